"""Counts of a model from its layers alone, by the conventions of the papers."""

import math

import tensorflow as tf

from larq_nas.layers import BinaryConv2D


def parameters(model: tf.keras.Model) -> int:
    """What PyTorch counts as parameters."""
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def macs(layer: tf.keras.layers.Layer) -> int:
    """Multiply-accumulates of a convolution or a dense layer, 0 for others."""
    if not isinstance(layer, tf.keras.layers.Conv2D | tf.keras.layers.Dense):
        return 0
    return math.prod(layer.kernel.shape) * math.prod(layer.output_shape[1:-1])


def binary_macs(model: tf.keras.Model) -> int:
    return sum(macs(layer) for layer in model.layers if isinstance(layer, BinaryConv2D))


def float_operations(model: tf.keras.Model) -> int:
    """BATS' FLOPs: all that is not binary, but PReLU."""
    return sum(map(_operations, model.layers))


def _operations(layer: tf.keras.layers.Layer) -> int:
    if isinstance(layer, BinaryConv2D):
        return 0
    per_element = {
        tf.keras.layers.BatchNormalization: 2,
        tf.keras.layers.ReLU: 2,
        tf.keras.layers.MaxPool2D: 8,
        tf.keras.layers.AveragePooling2D: 9,
        tf.keras.layers.GlobalAveragePooling2D: 49,
        tf.keras.layers.Add: 1,
    }.get(type(layer), 0)
    return per_element * math.prod(layer.output_shape[1:]) + macs(layer)
