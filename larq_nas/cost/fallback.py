"""Which binary layers Larq Compute Engine will run in binary."""

from typing import Any

import larq as lq
import tensorflow as tf

from larq_nas.cost.network import Network
from larq_nas.cost.quantizers import is_sign, kernel_scale, zero_one
from larq_nas.layers import BinaryConv2D

__all__ = [
    "cause_of_fallback",
    "no_binary_kernel",
    "pads_with_zeros",
    "runs_in_binary",
    "scales_kernel",
    "shares_dilation",
]

_EXPORTED_IN_BINARY = (lq.layers.QuantConv2D, lq.layers.QuantConv1D, lq.layers.QuantDense)


def runs_in_binary(network: Network, index: int) -> bool:
    """Return whether call `index` is binary, and will be computed in binary."""
    return network.binary(index) and not cause_of_fallback(network, index)


def cause_of_fallback(network: Network, index: int) -> str:
    """Return why binary call `index` will run in float, as far as can be told beforehand."""
    layer = network.calls[index].layer
    if not isinstance(layer, _EXPORTED_IN_BINARY):
        return no_binary_kernel(layer)
    quantizer = getattr(layer, "input_quantizer", None)
    if zero_one(quantizer):
        if getattr(layer, "padding", "") == "same" and layer.pad_values:
            return "its inputs are 0 and 1, and it pads with another number; pad with zeros"
    elif quantizer is None:
        if not network.reads_signs(index):
            return "its signs are taken before another layer; take them in the convolution"
    elif not is_sign(quantizer):
        return "its input quantizer gives other numbers than -1 and 1"
    if kernel_scale(layer.kernel_quantizer) == "other":
        return "its kernel quantizer gives other numbers than one scale times -1 and 1"
    return ""


def no_binary_kernel(layer: tf.keras.layers.Layer) -> str:
    """Return that the engine has no binary kernel for such a layer, and what to use instead."""
    return (
        f"Larq Compute Engine has no binary kernel for {type(layer).__name__}; "
        "use a QuantConv2D (1x1 in place of a dense layer)"
    )


def scales_kernel(layer: Any) -> bool:
    """Return whether the kernel quantizer of `layer` gives other sizes than 1."""
    quantizer = getattr(layer, "kernel_quantizer", None)
    return quantizer is not None and kernel_scale(quantizer) != "ones"


def pads_with_zeros(layer: Any) -> bool:
    """Return whether a binary convolution pads with zeros, which keeps ReLU and bits out of it.

    Around inputs of 0 and 1, a zero is the sign of an input that is 0.
    """
    zeros = getattr(layer, "padding", "") == "same" and not getattr(layer, "pad_values", 0)
    return zeros and not zero_one(getattr(layer, "input_quantizer", None))


def shares_dilation(network: Network, index: int) -> bool:
    """Return whether another layer dilates the same tensor in the same way.

    Keras dilates through a space-to-batch transform. The converter undoes it, but not where two
    layers have come to share it. `BinaryConv2D` has none.
    """
    own, inputs = _dilation(network.calls[index].layer), network.inputs[index]
    return bool(own) and any(
        number != index and network.inputs[number] == inputs and _dilation(call.layer) == own
        for number, call in enumerate(network.calls)
    )


def _dilation(layer: Any) -> tuple[Any, ...]:
    rate = getattr(layer, "dilation_rate", (1,))
    if isinstance(layer, BinaryConv2D) or not isinstance(rate, tuple) or max(rate) == 1:
        return ()
    quantizer = type(getattr(layer, "input_quantizer", None))
    return rate, layer.kernel_size, layer.padding, getattr(layer, "pad_values", 0), quantizer
