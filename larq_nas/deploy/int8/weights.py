"""The kernel of a real layer in int8."""

from functools import cached_property
from typing import Literal

import numpy as np
import tensorflow as tf

from larq_nas.deploy.flatbuffer import Operator

__all__ = ["Weights"]

_KINDS = {"conv": "CONV_2D", "depthwise": "DEPTHWISE_CONV_2D", "dense": "FULLY_CONNECTED"}
_LARGEST = 127
# A filter that is almost 0 would make its bias overflow, which is held in steps of its weights.
_SMALLEST_FILTER = 1e-3


class Weights:
    """A kernel in int8, symmetric around 0: each filter with a step of its own.

    A dense layer has one step for all: with more, the converter fails.

    # Arguments
        kernel: shape `(height, width, inputs, filters)`, `(height, width, channels, multiplier)`
            or `(inputs, filters)`.
        kind: `"conv"`, `"depthwise"` or `"dense"`.
    """

    def __init__(self, kernel: np.ndarray, kind: Literal["conv", "depthwise", "dense"]) -> None:
        self.kernel, self.kind = kernel.astype("float32"), kind

    @property
    def operation(self) -> str:
        """The kind of operation that computes with it."""
        return _KINDS[self.kind]

    @cached_property
    def variable(self) -> tf.Variable:
        """The kernel before it is rounded."""
        return tf.Variable(self.kernel, trainable=False)

    @cached_property
    def rows(self) -> np.ndarray:
        """The weights of each filter, shape `(filters, weights)`."""
        return _rows(self.kernel, self.kind)

    @cached_property
    def bounds(self) -> np.ndarray:
        """The largest weight of each filter; of a dense layer, one for all."""
        largest = np.abs(self.rows).max(axis=1)
        top = max(float(largest.max()), 1e-6)
        return (
            np.full_like(largest, top)
            if self.kind == "dense"
            else np.maximum(largest, _SMALLEST_FILTER * top)
        )

    def rounded(self) -> tf.Tensor:
        """Return the kernel through fake-quant."""
        kernel = tf.convert_to_tensor(self.variable)
        if self.kind == "dense":
            bound = float(self.bounds[0])
            return tf.quantization.fake_quant_with_min_max_vars(
                kernel, -bound, bound, narrow_range=True
            )
        flat = (
            tf.reshape(kernel, (*kernel.shape[:-2], 1, -1)) if self.kind == "depthwise" else kernel
        )
        flat = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            flat, -self.bounds, self.bounds, narrow_range=True
        )
        return tf.reshape(flat, kernel.shape)

    def are_those_of(self, operator: Operator) -> bool:
        """Return whether an operation of a flatbuffer computes with this kernel in int8."""
        if operator.kind != self.operation or operator.filters is None or operator.steps is None:
            return False
        filters = operator.filters
        # A depthwise convolution has its filters last.
        filters = filters.reshape(-1, filters.shape[-1]).T if self.kind == "depthwise" else filters
        rows = filters.reshape(len(filters), -1) * operator.steps.reshape(-1, 1)
        steps = self.bounds.reshape(-1, 1) / _LARGEST
        return rows.shape == self.rows.shape and bool(np.all(np.abs(rows - self.rows) <= steps))


def _rows(kernel: np.ndarray, kind: str) -> np.ndarray:
    """Return a kernel as one row for each filter."""
    filters = int(np.prod(kernel.shape[2:])) if kind == "depthwise" else kernel.shape[-1]
    rows: np.ndarray = kernel.reshape(-1, filters).T
    return rows
