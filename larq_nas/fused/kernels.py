"""Kernels of many convolutions, side by side in one variable."""

import json
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from larq_nas.fused.describe import Parts
from larq_nas.layers import BinaryConv2D
from larq_nas.layers.conv import block_diagonal

__all__ = ["Stack", "Stacked", "weighed"]


@tf.keras.utils.register_keras_serializable("larq_nas")
class Stacked(tf.keras.initializers.Initializer):
    """Draw each part of a stack as if it was alone.

    # Arguments
        initializer: of one part.
        parts: number of parts along the last axis, of the same size.
    """

    def __init__(self, initializer: Any, parts: int) -> None:
        self.initializer = tf.keras.initializers.get(initializer)
        self.parts = parts

    def __call__(self, shape: Sequence[int], dtype: Any = None, **kwargs: Any) -> tf.Tensor:
        part = (*shape[:-1], shape[-1] // self.parts)
        # Without a seed of its own, one initializer draws the same values each time.
        config = self.initializer.get_config()
        drawn = [type(self.initializer).from_config(config) for _ in range(self.parts)]
        return tf.concat([one(part, dtype=dtype) for one in drawn], axis=-1)

    def get_config(self) -> dict[str, Any]:
        initializer = tf.keras.initializers.serialize(self.initializer)
        return {"initializer": initializer, "parts": self.parts}


class Stack:
    """Kernels of one size, quantized and weighted at once.

    # Arguments
        layer: one of the convolutions; they differ in strides and dilation alone.
        channels: number of channels they read.
        prelu: initializer of the slopes of PReLU behind them, if it is there.
    """

    def __init__(self, layer: BinaryConv2D, channels: int, prelu: Any = None) -> None:
        self.layer = layer
        self.channels = channels
        self.prelu = prelu
        self.filters = layer.filters
        self.parts = 0
        self.convolutions: list[tuple[int, int, int]] = []

    def add(self, state: int, operation: int, targets: int) -> None:
        """Add the kernels of an operation on a state, one for each node that reads it."""
        self.convolutions.append((state, operation, targets))
        self.parts += targets

    @staticmethod
    def key(made: Parts) -> str:
        """Return what convolutions of one stack have in common."""
        config = made["layer"]
        names = "kernel_size", "groups", "filters", "kernel_quantizer", "kernel_constraint"
        alike = [config[name] for name in (*names, "kernel_initializer")]
        return json.dumps([*alike, made["prelu"]])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        height, width = self.layer.kernel_size
        return height, width, self.channels // self.layer.groups, self.parts * self.filters

    @property
    def sizes(self) -> list[int]:
        """Filters of each convolution."""
        return [targets * self.filters for _, _, targets in self.convolutions]

    def kernels(self, kernel: tf.Tensor, weights: tf.Tensor) -> list[tf.Tensor]:
        """Return the kernel of each convolution, its filters weighted.

        # Arguments
            kernel: the stack, of `shape`.
            weights: weight of each filter, 0 or more.
        """
        if self.layer.kernel_quantizer is not None:
            kernel = self.layer.kernel_quantizer(kernel)
        # Their gradient comes from `weighed`, which needs no gradient of the kernel.
        kernel = kernel * tf.stop_gradient(weights)
        if self.layer.groups > 1:
            kernel = block_diagonal(kernel, self.layer.groups, self.parts)
        return tf.split(kernel, self.sizes, axis=-1)


@tf.custom_gradient
def weighed(y: tf.Tensor, weights: tf.Tensor) -> Any:
    """Return `y`, whose channels a kernel has weighted, as a function of the weights too.

    For `y = w * f(x)`, the derivative by `w` is `y / w`.

    # Arguments
        y: shape `(batch, height, width, channels)`.
        weights: shape `(channels,)`.
    """

    def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return upstream, tf.math.divide_no_nan(tf.reduce_sum(upstream * y, axis=(0, 1, 2)), weights)

    return tf.identity(y), gradients
