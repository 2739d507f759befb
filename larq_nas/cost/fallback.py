"""Which binary layers Larq Compute Engine will run in binary."""

from typing import Any

import tensorflow as tf

from larq_nas.cost.network import Network
from larq_nas.cost.quantizers import is_sign, kernel_scale
from larq_nas.layers import BinaryConv2D

__all__ = [
    "cause_of_fallback",
    "no_binary_kernel",
    "pads_with_zeros",
    "runs_in_binary",
    "scales_kernel",
    "shares_dilation",
]


def runs_in_binary(network: Network, index: int) -> bool:
    """Return whether call `index` is binary, and will be computed in binary."""
    return network.binary(index) and not cause_of_fallback(network, index)


def cause_of_fallback(network: Network, index: int) -> str:
    """Return why binary call `index` will run in float, as far as can be told beforehand."""
    layer = network.calls[index].layer
    if network.facts[index].kind != "conv" or not isinstance(layer, tf.keras.layers.Conv2D):
        return no_binary_kernel(layer)
    if getattr(layer, "input_quantizer", None) is None:
        if not network.reads_signs(index):
            return "its signs are taken before another layer; take them in the convolution"
    elif not is_sign(layer.input_quantizer):
        return "its input quantizer gives other numbers than -1 and 1"
    if kernel_scale(layer.kernel_quantizer) == "other":
        return "its kernel quantizer gives other numbers than one scale times -1 and 1"
    if isinstance(layer, BinaryConv2D):
        return ""
    if layer.groups > 1 and (layer.input_spec.axes[-1] // layer.groups) % 32:
        return "its groups are not of 32 channels; use larq_nas.layers.BinaryConv2D"
    if shares_dilation(network, index):
        return (
            "another layer dilates the same tensor in the same way; "
            "use larq_nas.layers.BinaryConv2D"
        )
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
    """Return whether a binary convolution pads with zeros, which keeps ReLU and bits out of it."""
    return getattr(layer, "padding", "") == "same" and not getattr(layer, "pad_values", 0)


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
