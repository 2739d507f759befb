"""Binary layers that run in float, and why."""

from collections.abc import Sequence
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_nas.graph.layers import Facts, is_convolution_function
from larq_nas.graph.quantizers import (
    gives_signs_of_another,
    is_sign_but_at_zero,
    sign_of_zero,
    zero_one,
)
from larq_nas.layers import BinaryConv2D
from larq_nas.lce.network import Network
from larq_nas.quantizers import quantized_scope

_LEVELS_IN_OTHERS = "its inputs are 0 and 1, and it pads with another number; pad with zeros"
_EXPORTED_IN_BINARY = (lq.layers.QuantConv2D, lq.layers.QuantConv1D, lq.layers.QuantDense)


def has_quantizer(layer: tf.keras.layers.Layer) -> bool:
    """Return whether `layer` quantizes its inputs or its weights itself."""
    return bool(getattr(layer, "input_quantizer", None)) or bool(weight_quantizers(layer))


def is_binary(layer: tf.keras.layers.Layer) -> bool:
    """Return whether `layer` quantizes both its inputs and its weights, as binary layers do.

    Whatever the quantizers give: it is better to ask for `allow_float` than to let a layer
    pass that nobody thinks of as float.
    """
    quantizers = [getattr(layer, "input_quantizer", None), *weight_quantizers(layer)]
    return len(quantizers) > 1 and None not in quantizers


def weight_quantizers(layer: tf.keras.layers.Layer) -> list[object]:
    """Return the quantizers of a layer's weights."""
    names = ("kernel_quantizer", "depthwise_quantizer", "pointwise_quantizer")
    quantizers = [getattr(layer, name, None) for name in names]
    return [quantizer for quantizer in quantizers if quantizer is not None]


def runs_in_binary(network: Network, index: int) -> bool:
    """Return whether call `index` is binary, and will be computed in binary."""
    return network.binary(index) and not cause_of_fallback(network, index)


def cause_of_fallback(network: Network, index: int) -> str:
    """Return why call `index` will run in float though its layer quantizes inputs and weights.

    As far as can be told beforehand; empty if it will run in binary.
    """
    layer, facts = network.calls[index].layer, network.facts[index]
    cause = cause_in_layer(layer, network.shape_read(index), facts)
    if cause or getattr(layer, "input_quantizer", None):
        return cause
    if network.levels(index):
        return _LEVELS_IN_OTHERS if _padding_of(layer) else ""
    if network.reads_signs(index) or index in network.borders:
        return ""
    if not is_convolution_function(layer) and network.signs(network.calls[index].inputs[0]):
        return ""
    return "its signs are taken before another layer; take them in the convolution"


def cause_in_layer(layer: Any, shape: Sequence[int] | None, facts: Facts) -> str:
    """Return what in a binary layer itself keeps it from running in binary, and what to do.

    It reads `shape`, without the batch.
    """
    if is_convolution_function(layer):
        return ""
    if not isinstance(layer, _EXPORTED_IN_BINARY):
        return no_binary_kernel(layer)
    cause = _cause_of_inputs(layer, getattr(layer, "input_quantizer", None), shape, facts)
    if cause or odd_padding(layer):
        return cause or odd_padding(layer)
    if facts.kernel_scale != "other":
        return ""
    with quantized_scope():
        kernel = tf.convert_to_tensor(layer.kernel).numpy()
    if not np.isfinite(kernel).all():
        return "its quantized kernel holds NaN or infinity; train it again"
    if np.any(kernel == 0):
        return "its quantized kernel holds zeros, as tf.sign gives; use ste_sign"
    return "its quantized kernel is not one scale times +1 or -1 in each filter; use ste_sign"


def _padding_of(layer: Any) -> float:
    """Return what a layer pads with, if it does; `QuantDense` and others have no padding."""
    same = getattr(layer, "padding", "") == "same"
    return float(getattr(layer, "pad_values", 0.0)) if same else 0.0


def _cause_of_inputs(layer: Any, quantizer: Any, shape: Sequence[int] | None, facts: Facts) -> str:
    if isinstance(quantizer, lq.quantizers.SteTern):
        return f"its input quantizer {name_of(quantizer)} gives three values; use ste_sign"
    if zero_one(quantizer):
        return _LEVELS_IN_OTHERS if _padding_of(layer) else ""
    if quantizer is None or sign_of_zero(quantizer, shape):
        return ""
    if gives_signs_of_another(quantizer, shape):
        if facts.before_sign is not None or facts.turned:
            return ""
        return (
            f"the converter does not recognize the signs of its input quantizer "
            f"{name_of(quantizer)}; let it end with larq.math.sign"
        )
    number = getattr(quantizer, "precision", None) or 1
    if number != 1:
        return (
            f"its inputs have {number} bits, and Larq Compute Engine computes with 1; "
            "use ste_sign, or DoReFa(1)"
        )
    if is_sign_but_at_zero(quantizer, shape):
        return (
            f"its input quantizer {name_of(quantizer)} gives another number than 1 for 0, as "
            "tf.sign does; use ste_sign"
        )
    return (
        f"its input quantizer {name_of(quantizer)} gives other numbers than -1 and 1; use "
        "ste_sign, approx_sign or swish_sign"
    )


def name_of(quantizer: Any) -> str:
    """Return what a quantizer, a layer or a function, is called."""
    return str(getattr(quantizer, "name", None) or getattr(quantizer, "__name__", quantizer))


def odd_padding(layer: Any) -> str:
    """Return that the padding of `layer` has no sign; empty if it has, or pads with zeros."""
    value = _padding_of(layer)
    if value in (0.0, 1.0, -1.0):
        return ""
    return f"it pads with {value}, which is no sign; pad with 1, -1 or 0"


def no_binary_kernel(layer: tf.keras.layers.Layer) -> str:
    """Return that the engine has no binary kernel for such a layer, and what to use instead."""
    instead = "a QuantConv2D (1x1 in place of a dense layer)"
    if isinstance(layer, tf.keras.layers.Conv2DTranspose):
        instead = "UpSampling2D and a QuantConv2D"
    return f"Larq Compute Engine has no binary kernel for {type(layer).__name__}; use {instead}"


def pads_with_zeros(layer: Any) -> bool:
    """Return whether a binary convolution pads with zeros, which keeps ReLU and bits out of it.

    Around inputs of 0 and 1, a zero is the sign of an input that is 0.
    """
    if is_convolution_function(layer):
        node = layer._inbound_nodes[-1]
        settings = tf.nest.flatten((node.call_args, node.call_kwargs))
        return any(isinstance(setting, str) and setting == "SAME" for setting in settings)
    zeros = getattr(layer, "padding", "") == "same" and not getattr(layer, "pad_values", 0)
    return zeros and not zero_one(getattr(layer, "input_quantizer", None))


def zero_padded(network: Network, index: int) -> bool:
    """Return whether the kernel of binary call `index` pads with zeros."""
    known = index in network.borders or network.levels(index)
    return not known and pads_with_zeros(network.calls[index].layer)


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
