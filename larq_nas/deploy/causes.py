"""Why a layer that is binary by definition runs in float, or gives wrong numbers."""

from collections.abc import Sequence
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_nas.cost.fallback import no_binary_kernel, pads_with_zeros
from larq_nas.cost.graph import Call
from larq_nas.cost.quantizers import bits, is_sign, zero_one
from larq_nas.deploy.flatbuffer import is_constant, operators, read_model
from larq_nas.layers.conv import BinaryConv2D

__all__ = [
    "cause_beforehand",
    "cause_of_state",
    "has_quantizer",
    "is_binary",
    "likely_cause",
    "likely_cause_of_difference",
    "quantized_kernel",
    "warnings_of_loops",
]

_SMALLEST_SCALE = 1.2e-7
_FUSED_LSTM = "UNIDIRECTIONAL_SEQUENCE_LSTM"
# What its kernel limits the cell to: TensorFlow Lite's choice, which Keras does not know.
_CELL_LIMIT = 10


def has_quantizer(layer: tf.keras.layers.Layer) -> bool:
    """Return whether `layer` quantizes its inputs or its weights itself."""
    return bool(getattr(layer, "input_quantizer", None)) or bool(_weight_quantizers(layer))


def is_binary(layer: tf.keras.layers.Layer) -> bool:
    """Return whether `layer` quantizes both its inputs and its weights, as binary layers do.

    Whatever the quantizers give: it is better to ask for `allow_float` than to let a layer
    pass that nobody thinks of as float.
    """
    quantizers = [getattr(layer, "input_quantizer", None), *_weight_quantizers(layer)]
    return len(quantizers) > 1 and None not in quantizers


def _weight_quantizers(layer: tf.keras.layers.Layer) -> list[object]:
    names = ("kernel_quantizer", "depthwise_quantizer", "pointwise_quantizer")
    quantizers = [getattr(layer, name, None) for name in names]
    return [quantizer for quantizer in quantizers if quantizer is not None]


def quantized_kernel(layer: tf.keras.layers.Layer) -> np.ndarray:
    """Return the kernel the convolution computes with, `(height, width, inputs, filters)`."""
    with lq.context.quantized_scope(True):
        kernel: np.ndarray = tf.convert_to_tensor(layer.kernel).numpy()
    return kernel


def cause_beforehand(layer: tf.keras.layers.Layer) -> str:
    """Return why no conversion can compute `layer` in binary; empty if one might."""
    if not is_binary(layer):
        return ""
    quantizer = layer.input_quantizer
    if isinstance(quantizer, lq.quantizers.SteTern):
        return f"its input quantizer {_name(quantizer)} gives three values; use ste_sign"
    if bits(quantizer) not in (1, 32):
        return (
            f"its inputs have {bits(quantizer)} bits, and Larq Compute Engine computes with 1; "
            "use ste_sign, or DoReFa(1)"
        )
    return ""


def likely_cause(layer: tf.keras.layers.Layer) -> str:
    """Return why `layer` fell back to float, and what to do, in one clause."""
    if cause_beforehand(layer):
        return cause_beforehand(layer)
    if getattr(layer, "padding", "") == "causal":
        return 'its padding is causal; pad by hand, or with padding="same"'
    if getattr(layer, "padding", "") == "same" and layer.pad_values not in (0.0, 1.0):
        return f"it pads with {layer.pad_values}; kernels pad with 0 or 1"
    if not isinstance(layer, lq.layers.QuantConv2D):
        return no_binary_kernel(layer)
    kernel = quantized_kernel(layer)
    scales = np.abs(kernel).max(axis=(0, 1, 2))
    if np.any(scales <= _SMALLEST_SCALE):
        return "its quantized kernel has vanishing scales; keep them above 1e-6"
    if np.any(kernel == 0):
        return "its quantized kernel holds zeros, as tf.sign gives; use ste_sign"
    if not np.allclose(np.abs(kernel), scales, rtol=1e-4):
        return "its quantized kernel is not one scale times +1 or -1 in each filter"
    if not isinstance(layer, BinaryConv2D):
        if layer.groups > 1:
            return "its groups are not of 32 channels; use larq_nas.layers.BinaryConv2D"
        if max(layer.dilation_rate) > 1:
            return (
                "it dilates through a space-to-batch transform that another layer shares; "
                "use larq_nas.layers.BinaryConv2D"
            )
    return _cause_of_quantizer(layer)


def _cause_of_quantizer(layer: Any) -> str:
    quantizer = layer.input_quantizer
    if zero_one(quantizer):
        if getattr(layer, "padding", "") == "same" and layer.pad_values:
            return "its inputs are 0 and 1, and it pads with another number; pad with zeros"
        return "its inputs are 0 and 1, not signs; convert it with rewrite=True"
    if quantizer is None or is_sign(quantizer):
        return "the converter did not recognize its signs; use ste_sign in the convolution"
    return (
        f"the converter did not recognize its input quantizer {_name(quantizer)}; "
        "use ste_sign, approx_sign or swish_sign"
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


def cause_of_state(calls: Sequence[Call], flatbuffer: bytes) -> str:
    """Return which layer became an operation that keeps a state between images, if one did.

    The converter makes one operation of an LSTM's loop, unless it is unrolled or masked. Its
    cell and its output both start as a tensor of zeros, and these two states are then one
    tensor that the operation writes to: wrong numbers, and others for the next image.
    """
    model = read_model(flatbuffer)
    variables = [i for i, tensor in enumerate(model.subgraphs[0].tensors) if tensor.isVariable]
    if not any(is_constant(model, index) for index in variables):
        return ""
    return (
        f"Recurrent layer {_fused_lstm(calls)} would compute wrong numbers: the converter makes "
        "one operation of its loop, which mixes up cell and output, and keeps them from one "
        "image to the next; build it with unroll=True."
    )


def warnings_of_loops(calls: Sequence[Call], flatbuffer: bytes) -> list[str]:
    """Return a line if the converter made one operation of the loop of an LSTM."""
    if all(operator.kind != _FUSED_LSTM for operator in operators(flatbuffer)):
        return []
    return [
        f"the converter makes one operation of the loop of {_fused_lstm(calls)}, which limits "
        f"its cell to +-{_CELL_LIMIT}, as Keras does not: if that is not meant, build it with "
        "unroll=True"
    ]


def _fused_lstm(calls: Sequence[Call]) -> str:
    """Return the name of the first layer with an LSTM of which the converter takes the loop."""
    for call in calls:
        for layer in call.layer._flatten_layers():
            if isinstance(layer, tf.keras.layers.LSTM) and not _is_loop(layer, call):
                return f"`{call.name}`"
    return "(an LSTM)"


def _is_loop(layer: tf.keras.layers.LSTM, call: Call) -> bool:
    """Return whether an LSTM stays a loop, or none: only what cuDNN can compute is fused."""
    masked = call.layer._inbound_nodes[call.index].keras_inputs[:1]
    return not layer._could_use_gpu_kernel or any(
        getattr(tensor, "_keras_mask", None) is not None for tensor in masked
    )


def _is_larger_than_image(layer: Any, shape: Sequence[int]) -> bool:
    sizes = zip(layer.kernel_size, layer.dilation_rate, shape, strict=False)
    return any((taps - 1) * step + 1 > size for taps, step, size in sizes)


def _name(quantizer: object) -> str:
    return str(getattr(quantizer, "name", quantizer))
