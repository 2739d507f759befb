"""Candidate operations without a binary convolution of their own."""

from functools import partial

import tensorflow as tf

from larq_nas.choosers import Operation
from larq_nas.layers import Activation, batch_norm, current_domain, factorized_reduce

__all__ = ["average_pool", "identity", "max_pool", "pools_and_zero"]


def pools_and_zero(strides: int) -> dict[str, Operation]:
    """Return the candidates that every space of cells has, by name."""
    return {
        "max_pool_3x3": partial(max_pool, strides=strides),
        "average_pool_3x3": partial(average_pool, strides=strides),
        "zero": None,
    }


def identity(
    x: tf.Tensor, name: str, *, filters: int, strides: int, activation: Activation
) -> tf.Tensor:
    """Pass `x` on; where it must be halved, by a factorized reduce."""
    if strides == 1:
        return x
    return factorized_reduce(x, filters, name=name, activation=activation)


def max_pool(x: tf.Tensor, name: str, *, strides: int) -> tf.Tensor:
    """Take the maximum over 3x3 pixels."""
    return _normalize(tf.keras.layers.MaxPool2D(3, strides, padding="same", name=name)(x), name)


def average_pool(x: tf.Tensor, name: str, *, strides: int) -> tf.Tensor:
    """Take the mean over 3x3 pixels, those outside the image not counted."""
    y = tf.keras.layers.AveragePooling2D(3, strides, padding="same", name=name)(x)
    return _normalize(y, name)


def _normalize(x: tf.Tensor, name: str) -> tf.Tensor:
    return batch_norm(x, f"{name}_bn") if current_domain().pool_norm else x
