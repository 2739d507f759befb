"""Pools whose gradient is fast inside of a function."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from larq_nas.fused.describe import Parts

__all__ = ["pool"]


def pool(x: tf.Tensor, made: Parts) -> tf.Tensor:
    """Pool `x`, shape `(batch, height, width, channels)`, as `made` says; see `describe`."""
    settings = made["size"], made["strides"], made["padding"]
    if made["pool"] == "average":
        return tf.nn.avg_pool2d(x, *settings)
    pooled: tf.Tensor = _max_pool(*settings)(x)
    return pooled


def _max_pool(size: Any, strides: Any, padding: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return a max pool that pools again for its gradient.

    Where both are in one function, TensorFlow takes the gradient from oneDNN, several times as
    fast; a cell's gradient is a function of its own.
    """

    @tf.custom_gradient
    def run(x: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return tf.raw_ops.MaxPoolGrad(
                orig_input=x,
                orig_output=tf.nn.max_pool2d(x, size, strides, padding),
                grad=upstream,
                ksize=[1, *size, 1],
                strides=[1, *strides, 1],
                padding=padding,
            )

        return tf.nn.max_pool2d(x, size, strides, padding), gradient

    return run
