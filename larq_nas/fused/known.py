"""Which settings of layers a fused cell knows: all others must be the default."""

import json
from typing import Any

import larq as lq
import tensorflow as tf

from larq_nas.layers import BinaryConv2D
from larq_nas.layers.scale import CenteredClip
from larq_nas.quantizers import XnorSign

__all__ = ["is_convolution", "is_norm", "is_pool", "is_prelu"]

_keras = tf.keras.layers
_ACTIVATIONS = (tf.keras.activations.relu, tf.keras.activations.linear)
# These take each filter for itself, so that several kernels can be one. Not so sums of plain
# signs: they are 0 where they cancel, and what rounding leaves where they were weighted before.
_KERNEL_QUANTIZERS = (type(None), XnorSign)
_CONSTRAINTS = (type(None), lq.constraints.WeightClip, CenteredClip)
_CONSTANT = (tf.keras.initializers.Zeros, tf.keras.initializers.Constant)


def is_norm(layer: tf.keras.layers.Layer) -> bool:
    """Return whether `layer` is a batch norm without scale and offset."""
    if type(layer) is not _keras.BatchNormalization or list(_axes(layer)) not in ([-1], [3]):
        return False
    default = _keras.BatchNormalization(
        momentum=layer.momentum, epsilon=layer.epsilon, center=False, scale=False
    )
    return _is_like(layer, default, "axis")


def _axes(layer: tf.keras.layers.BatchNormalization) -> list[int]:
    return [layer.axis] if isinstance(layer.axis, int) else layer.axis


def is_pool(layer: tf.keras.layers.Layer) -> bool:
    """Return whether `layer` is a pool over the channels-last image."""
    if type(layer) not in (_keras.MaxPooling2D, _keras.AveragePooling2D):
        return False
    default = type(layer)(layer.pool_size, layer.strides, layer.padding)
    return _is_like(layer, default)


def is_prelu(layer: tf.keras.layers.Layer) -> bool:
    """Return whether `layer` has a slope for each channel, equal at the start."""
    if type(layer) is not _keras.PReLU or not isinstance(layer.alpha_initializer, _CONSTANT):
        return False
    default = _keras.PReLU(alpha_initializer=layer.alpha_initializer, shared_axes=[1, 2])
    return _is_like(layer, default)


def is_convolution(layer: tf.keras.layers.Layer) -> bool:
    """Return whether several such binary convolutions are one with all their filters."""
    if type(layer) is not BinaryConv2D:
        return False
    if not isinstance(layer.kernel_quantizer, _KERNEL_QUANTIZERS):
        return False
    if layer.activation not in _ACTIVATIONS or not isinstance(
        layer.kernel_constraint, _CONSTRAINTS
    ):
        return False
    default = BinaryConv2D(
        layer.filters,
        layer.kernel_size,
        strides=layer.strides,
        dilation_rate=layer.dilation_rate,
        groups=layer.groups,
        padding=layer.padding,
        pad_values=layer.pad_values,
        activation=layer.activation,
        input_quantizer=layer.input_quantizer,
        kernel_quantizer=layer.kernel_quantizer,
        kernel_initializer=layer.kernel_initializer,
        kernel_constraint=layer.kernel_constraint,
    )
    return _is_sign(layer.input_quantizer) and _is_like(layer, default) and _can_be_rebuilt(layer)


def _is_sign(quantizer: Any) -> bool:
    """Return whether a quantizer of inputs is a function alone: it learns and measures nothing."""
    if quantizer is None:
        return True
    known = isinstance(quantizer, lq.quantizers.Quantizer)
    metrics = getattr(quantizer, "_custom_metrics", None)
    return known and not quantizer.weights and not metrics


def _can_be_rebuilt(layer: BinaryConv2D) -> bool:
    """Return whether its settings say all of it, an initializer of one's own included."""
    try:
        again = BinaryConv2D.from_config(json.loads(json.dumps(layer.get_config())))
    except (TypeError, ValueError):
        return False
    return _is_like(layer, again)


def _is_like(layer: Any, other: Any, *apart: str) -> bool:
    """Return whether settings are equal, apart from the name and those named."""
    configs = [
        {key: value for key, value in one.get_config().items() if key not in ("name", *apart)}
        for one in (layer, other)
    ]
    return json.dumps(configs[0], default=repr) == json.dumps(configs[1], default=repr)
