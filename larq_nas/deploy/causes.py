"""Why a layer that is binary by definition runs in float."""

import larq as lq
import numpy as np
import tensorflow as tf

from larq_nas.layers.conv import BinaryConv2D

__all__ = ["has_quantizer", "is_binary", "likely_cause", "no_binary_kernel", "quantized_kernel"]

_SMALLEST_SCALE = 1.2e-7


def has_quantizer(layer: tf.keras.layers.Layer) -> bool:
    """Return whether `layer` quantizes its inputs or its weights itself."""
    return bool(getattr(layer, "input_quantizer", None)) or bool(_weight_quantizers(layer))


def is_binary(layer: tf.keras.layers.Layer) -> bool:
    """Return whether inputs and weights of `layer` are binary by definition.

    A quantizer that does not say its precision, such as a function, counts as binary: it is
    better to ask for `allow_float` than to let one pass.
    """
    quantizers = [getattr(layer, "input_quantizer", None), *_weight_quantizers(layer)]
    if len(quantizers) < 2 or None in quantizers:
        return False
    return all(getattr(quantizer, "precision", 1) == 1 for quantizer in quantizers)


def _weight_quantizers(layer: tf.keras.layers.Layer) -> list[object]:
    names = ("kernel_quantizer", "depthwise_quantizer", "pointwise_quantizer")
    quantizers = [getattr(layer, name, None) for name in names]
    return [quantizer for quantizer in quantizers if quantizer is not None]


def quantized_kernel(layer: tf.keras.layers.Layer) -> np.ndarray:
    """Return the kernel the convolution computes with, `(height, width, inputs, filters)`."""
    with lq.context.quantized_scope(True):
        kernel: np.ndarray = tf.convert_to_tensor(layer.kernel).numpy()
    return kernel


def no_binary_kernel(layer: tf.keras.layers.Layer) -> str:
    """Return that the engine has no binary kernel for such a layer, and what to use instead."""
    return (
        f"Larq Compute Engine has no binary kernel for {type(layer).__name__}; "
        "use a QuantConv2D (1x1 in place of a dense layer)"
    )


def likely_cause(layer: tf.keras.layers.Layer) -> str:
    """Return why `layer` fell back to float, and what to do, in one clause."""
    if not isinstance(layer, lq.layers.QuantConv2D):
        return no_binary_kernel(layer)
    kernel = quantized_kernel(layer)
    scales = np.abs(kernel).max(axis=(0, 1, 2))
    if np.any(kernel == 0) or np.any(scales <= _SMALLEST_SCALE):
        return "its quantized kernel holds zeros or vanishing scales; keep scales above 1e-6"
    if not np.allclose(np.abs(kernel), scales, rtol=1e-4):
        return "its quantized kernel is not one scale times +1 or -1 in each filter"
    if not isinstance(layer, BinaryConv2D):
        if layer.groups > 1:
            return "its groups do not convert; use larq_nas.layers.BinaryConv2D"
        if max(layer.dilation_rate) > 1:
            return (
                "it dilates through a space-to-batch transform that another layer shares; "
                "use larq_nas.layers.BinaryConv2D"
            )
    return (
        f"the converter did not recognize its input quantizer {_name(layer.input_quantizer)}; "
        "use ste_sign, approx_sign or swish_sign"
    )


def _name(quantizer: object) -> str:
    return str(getattr(quantizer, "name", quantizer))
