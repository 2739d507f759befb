"""DARTS' convolutions, each a row of steps, with real weights or binary ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import tensorflow as tf

from larq_nas.layers import Activation, batch_norm, binary_conv, factorized_reduce, split_halves
from larq_nas.spaces.space import Precision

__all__ = ["Style", "convolution", "reduce", "steps_of"]


@dataclass(frozen=True)
class Style:
    """How convolutions are built.

    # Arguments
        precision: `"real"`: ReLU, convolutions, batch norm, as in DARTS. `"binary"`: batch
            norm, sign, convolution and activation, one by one, as in BATS' section 3.
        activation: of binary convolutions.
    """

    precision: Precision = "real"
    activation: Activation = "relu"


@dataclass(frozen=True)
class Step:
    """A convolution, depthwise or of all channels."""

    kernel_size: tuple[int, int]
    depthwise: bool = False
    strides: tuple[int, int] = (1, 1)
    dilation_rate: int = 1


Row = tuple[Step, ...]
"""Convolutions between a ReLU and a batch norm."""

_POINTWISE = Step((1, 1))


def steps_of(name: str, strides: int) -> Sequence[Row]:
    """Return the rows of an operation, such as `"separable_conv_3x3"`."""
    if name == "conv_7x1_1x7":
        return [(Step((7, 1), strides=(strides, 1)), Step((1, 7), strides=(1, strides)))]
    kind, _, size = name.rpartition("_conv_")
    kernel_size = int(size[0]), int(size[0])
    first = Step(kernel_size, True, (strides, strides), 2 if kind == "dilated" else 1)
    if kind == "dilated":
        return [(first, _POINTWISE)]
    return [(first, _POINTWISE), (Step(kernel_size, True), _POINTWISE)]


def convolution(
    x: tf.Tensor,
    name: str,
    *,
    filters: int,
    style: Style,
    rows: Sequence[Row] = ((_POINTWISE,),),
) -> tf.Tensor:
    """Apply `rows` of convolutions; by default a 1x1 convolution.

    # Arguments
        x: tensor, shape `(batch, height, width, channels)`.
        name: prefix of the layers' names.
        filters: number of output channels.
        style: whether weights are real or binary.
        rows: the convolutions.
    """
    build = _real_row if style.precision == "real" else partial(_binary_row, style=style)
    for index, row in enumerate(rows):
        x = build(x, f"{name}_{index}" if len(rows) > 1 else name, filters, row)
    return x


def reduce(x: tf.Tensor, name: str, *, filters: int, style: Style) -> tf.Tensor:
    """Halve height and width with two 1x1 convolutions, one on every other pixel each."""
    if style.precision == "binary":
        return factorized_reduce(x, filters, name=name, activation=style.activation)
    even, odd = split_halves(tf.keras.layers.ReLU(name=f"{name}_relu")(x), name=name)
    conv = partial(tf.keras.layers.Conv2D, kernel_size=1, strides=2, use_bias=False)
    few = filters // 2
    halves = [
        conv(few, name=f"{name}_even_conv")(even),
        conv(filters - few, name=f"{name}_odd_conv")(odd),
    ]
    x = tf.keras.layers.Concatenate(name=f"{name}_concat")(halves)
    return batch_norm(x, f"{name}_bn")


def _real_row(x: tf.Tensor, name: str, filters: int, row: Row) -> tf.Tensor:
    x = tf.keras.layers.ReLU(name=f"{name}_relu")(x)
    for index, step in enumerate(row):
        x = _real_conv(x, f"{name}_{index}" if len(row) > 1 else name, filters, step)
    return batch_norm(x, f"{name}_bn")


def _real_conv(x: tf.Tensor, name: str, filters: int, step: Step) -> tf.Tensor:
    # TensorFlow has no depthwise convolution with strides and dilation.
    skips = step.depthwise and step.dilation_rate > 1 and step.strides != (1, 1)
    settings: dict[str, Any] = {
        "kernel_size": step.kernel_size,
        "strides": 1 if skips else step.strides,
        "dilation_rate": step.dilation_rate,
        "padding": "same",
        "use_bias": False,
        "name": f"{name}_conv",
    }
    if not step.depthwise:
        return tf.keras.layers.Conv2D(filters, **settings)(x)
    x = tf.keras.layers.DepthwiseConv2D(**settings)(x)
    return _every_other(x, name, step.strides) if skips else x


def _every_other(x: tf.Tensor, name: str, strides: tuple[int, int]) -> tf.Tensor:
    """Take the pixels that a convolution with these strides would."""
    first = [1 - size % 2 for size in x.shape[1:3]]  # where "same" pads less on the left
    cropping = (first[0], 0), (first[1], 0)
    x = tf.keras.layers.Cropping2D(cropping, name=f"{name}_crop")(x)
    return tf.keras.layers.MaxPool2D(1, strides, padding="same", name=f"{name}_skip")(x)


def _binary_row(x: tf.Tensor, name: str, filters: int, row: Row, style: Style) -> tf.Tensor:
    for index, step in enumerate(row):
        x = binary_conv(
            x,
            filters,
            step.kernel_size,
            name=f"{name}_{index}" if len(row) > 1 else name,
            strides=step.strides,
            dilation_rate=step.dilation_rate,
            groups=filters if step.depthwise else 1,
            activation=style.activation,
            identity=False,
        )
    return x
