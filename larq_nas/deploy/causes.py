"""Causes for which a binary layer runs in float or computes wrong numbers."""

from collections.abc import Sequence
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_nas.deploy.flatbuffer import is_constant, operators, read_model
from larq_nas.errors import InputError
from larq_nas.graph.calls import Call
from larq_nas.graph.layers import facts_of, shape_read
from larq_nas.graph.quantizers import zero_one
from larq_nas.layers.conv import BinaryConv2D
from larq_nas.lce.fallback import cause_in_layer, is_binary, no_binary_kernel, pads_with_zeros
from larq_nas.lce.padding import folds
from larq_nas.quantizers import quantized_scope

_SMALLEST_SCALE = 1.2e-7
_FUSED_LSTM = "UNIDIRECTIONAL_SEQUENCE_LSTM"
# TensorFlow Lite's kernel limits the cell to this, and Keras does not.
_CELL_LIMIT = 10
_RANDOM = (
    tf.keras.layers.SpatialDropout1D,
    tf.keras.layers.SpatialDropout2D,
    tf.keras.layers.GaussianDropout,
    tf.keras.layers.GaussianNoise,
    tf.keras.layers.AlphaDropout,
    tf.keras.layers.RandomFlip,
    tf.keras.layers.RandomRotation,
    tf.keras.layers.RandomZoom,
    tf.keras.layers.RandomTranslation,
    tf.keras.layers.RandomContrast,
    tf.keras.layers.RandomBrightness,
    tf.keras.layers.RandomCrop,
    tf.keras.layers.RandomHeight,
    tf.keras.layers.RandomWidth,
)


def quantized_kernel(layer: tf.keras.layers.Layer) -> np.ndarray:
    """Return the kernel the convolution computes with, `(height, width, inputs, filters)`."""
    with quantized_scope():
        kernel: np.ndarray = tf.convert_to_tensor(layer.kernel).numpy()
    return kernel


def require_inference(calls: Sequence[Call]) -> None:
    """Refuse what no deployed network computes: layers in training, and weights that are NaN.

    # Raises
        InputError: naming the layer, the cause and what to do.
    """
    for call in calls:
        if _is_in_training(call):
            norm = isinstance(call.layer, tf.keras.layers.BatchNormalization)
            does = "takes mean and variance of the batch" if norm else "draws random numbers"
            raise InputError(
                f"Layer `{call.name}` is called with training=True, so that it {does} on a device "
                "too: call it without."
            )
        for weight in call.layer.weights:
            if weight.dtype.is_floating and not np.isfinite(weight.numpy()).all():
                raise InputError(
                    f"Layer `{call.name}` holds NaN or infinity in `{weight.name}`: train it "
                    "again, with a lower learning rate, or take an earlier checkpoint."
                )


def _is_in_training(call: Call) -> bool:
    """Return whether a call runs in training mode, where that changes what it computes."""
    if call.function is not None or not call.layer._inbound_nodes:
        return False
    kinds = (tf.keras.layers.BatchNormalization, tf.keras.layers.Dropout, *_RANDOM)
    frozen = isinstance(call.layer, kinds[0]) and not call.layer.trainable
    node = call.layer._inbound_nodes[call.index]
    chosen = node.call_kwargs.get("training") is True or any(arg is True for arg in node.call_args)
    return isinstance(call.layer, kinds) and chosen and not frozen


def cause_beforehand(layer: tf.keras.layers.Layer) -> str:
    """Return why no conversion can compute `layer` in binary; empty if one might."""
    if not is_binary(layer):
        return ""
    return cause_in_layer(layer, shape_read(layer), facts_of(layer))


def likely_cause(layer: tf.keras.layers.Layer) -> str:
    """Return why `layer` fell back to float, and what to do, in one clause."""
    cause = cause_beforehand(layer)
    if cause:
        return cause
    if getattr(layer, "padding", "") == "causal":
        return "its padding is causal, which no kernel has; convert it with rewrite=True"
    if getattr(layer, "padding", "") == "same" and float(layer.pad_values) == -1.0:
        return "it pads with -1, and kernels with 1 or 0; convert it with rewrite=True"
    if not isinstance(layer, lq.layers.QuantConv2D):
        return no_binary_kernel(layer)
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
    read = call.inputs[0]
    while calls[read].inputs and folds(calls, read):
        read = calls[read].inputs[0]
    source = calls[read]
    if source.facts.kind == "pad" and max(getattr(layer, "strides", (1,))) > 1:
        return (
            f"`{source.name}` pads it on both sides before a stride, which the converter takes "
            'for padding="same"; use padding="same"'
        )
    if is_binary(layer) and call.facts.kernel_scale == "scaled":
        return (
            "sums that are exactly 0 get either sign by the rounding of its scales; put a batch "
            "norm between it and the next sign"
        )
    if call.facts.kind == "relu":
        return "before a sign it leaves +1 alone; leave it out, or put a batch norm behind it"
    if is_binary(layer):
        return "use larq_nas.layers.BinaryConv2D with its defaults"
    return "use another layer of Keras or Larq in its place"


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
    """Return whether an LSTM is not fused: the converter fuses only what cuDNN can compute."""
    masked = call.layer._inbound_nodes[call.index].keras_inputs[:1]
    return not layer._could_use_gpu_kernel or any(
        getattr(tensor, "_keras_mask", None) is not None for tensor in masked
    )


def _is_larger_than_image(layer: Any, shape: Sequence[int]) -> bool:
    sizes = zip(layer.kernel_size, layer.dilation_rate, shape, strict=False)
    return any((taps - 1) * step + 1 > size for taps, step, size in sizes)
