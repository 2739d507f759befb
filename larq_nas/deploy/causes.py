"""Why a layer that is binary by definition runs in float, or gives wrong numbers."""

from collections.abc import Sequence
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_nas.cost.fallback import cause_in_layer, is_binary, no_binary_kernel, pads_with_zeros
from larq_nas.cost.graph import Call
from larq_nas.cost.kinds import shape_read
from larq_nas.cost.quantizers import kernel_scale, zero_one
from larq_nas.layers.conv import BinaryConv2D

__all__ = [
    "cause_beforehand",
    "is_binary",
    "likely_cause",
    "likely_cause_of_difference",
    "quantized_kernel",
]

_SMALLEST_SCALE = 1.2e-7


def quantized_kernel(layer: tf.keras.layers.Layer) -> np.ndarray:
    """Return the kernel the convolution computes with, `(height, width, inputs, filters)`."""
    with lq.context.quantized_scope(True):
        kernel: np.ndarray = tf.convert_to_tensor(layer.kernel).numpy()
    return kernel


def cause_beforehand(layer: tf.keras.layers.Layer) -> str:
    """Return why no conversion can compute `layer` in binary; empty if one might."""
    if not is_binary(layer):
        return ""
    kernel = getattr(layer, "kernel", None)
    scale = "ones" if kernel is None else kernel_scale(layer.kernel_quantizer, kernel)
    return cause_in_layer(layer, shape_read(layer), scale)


def likely_cause(layer: tf.keras.layers.Layer) -> str:
    """Return why `layer` fell back to float, and what to do, in one clause."""
    cause = cause_beforehand(layer)
    if cause or not isinstance(layer, lq.layers.QuantConv2D):
        return cause or no_binary_kernel(layer)
    scales = np.abs(quantized_kernel(layer)).max(axis=(0, 1, 2))
    if np.any(scales <= _SMALLEST_SCALE):
        return "its quantized kernel has vanishing scales; keep them above 1e-6"
    if not isinstance(layer, BinaryConv2D):
        if layer.groups > 1:
            return "its groups are not of 32 channels; use larq_nas.layers.BinaryConv2D"
        if max(layer.dilation_rate) > 1:
            return (
                "it dilates through a space-to-batch transform that another layer shares; "
                "use larq_nas.layers.BinaryConv2D"
            )
    if zero_one(layer.input_quantizer):
        return "its inputs are 0 and 1, not signs; convert it with rewrite=True"
    return (
        "the converter did not recognize its signs; use ste_sign in the convolution, or convert "
        "it with rewrite=True"
    )


def likely_cause_of_difference(calls: Sequence[Call], index: int) -> str:
    """Return why call `index` gives other numbers on a device, and what to do, in one clause."""
    call = calls[index]
    layer, source = call.layer, calls[call.inputs[0]]
    if isinstance(getattr(layer, "input_quantizer", None), lq.quantizers.SteTern):
        return "its input quantizer gives three values; use ste_sign"
    if is_binary(layer) and pads_with_zeros(layer) and _is_larger_than_image(layer, source.shape):
        return (
            f"it pads with zeros an image of {source.shape[:2]} smaller than its kernel; "
            "pad with ones (pad_values=1.0)"
        )
    if source.facts.kind == "pad" and max(layer.strides) > 1:
        return (
            f"`{source.name}` pads it on both sides before a stride, which the converter takes "
            'for padding="same"; use padding="same"'
        )
    return "use larq_nas.layers.BinaryConv2D with its defaults"


def _is_larger_than_image(layer: Any, shape: Sequence[int]) -> bool:
    sizes = zip(layer.kernel_size, layer.dilation_rate, shape, strict=False)
    return any((taps - 1) * step + 1 > size for taps, step, size in sizes)
