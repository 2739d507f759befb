"""The search space of DARTS, with real or binary convolutions."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import tensorflow as tf

from larq_nas.errors import require_known
from larq_nas.layers import (
    SEARCH,
    Activation,
    Domain,
    batch_norm,
    binary_conv,
    factorized_reduce,
    split_halves,
    stem,
)
from larq_nas.spaces.cell_space import CellSpace, Place, pools_and_zero
from larq_nas.spaces.chooser import Operation
from larq_nas.spaces.space import Precision, register


@dataclass(frozen=True)
class Style:
    """How convolutions are built, the binary ones with an activation.

    `"real"`: ReLU, convolutions, batch norm, as in DARTS. `"binary"`: batch norm, sign,
    convolution and activation, one by one, as in BATS' section 3.
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
    x: tf.Tensor, name: str, *, filters: int, style: Style, rows: Sequence[Row] = ((_POINTWISE,),)
) -> tf.Tensor:
    """Apply `rows` of convolutions, real or binary; by default a 1x1 convolution."""
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


_OPERATIONS = (
    "separable_conv_3x3",
    "separable_conv_5x5",
    "dilated_conv_3x3",
    "dilated_conv_5x5",
    "identity",
    "max_pool_3x3",
    "average_pool_3x3",
    "zero",
)
_FURTHER = ("separable_conv_7x7", "conv_7x1_1x7")


@register
@dataclass(frozen=True)
class Darts(CellSpace):
    """Cells of separable convolutions, pools and skips, as DARTS and NASNet have them.

    With real weights it is DARTS' network. With binary ones it is what BATS compares with
    (Table 5): every convolution but the stem's is binary, the depthwise ones too, each with
    its own batch norm and activation. In a search, batch norm follows the pools too.

    !!! example
        ```python
        architecture = larq_nas.Architecture.published("darts_second_order")
        model = architecture.with_settings(precision="binary").build((32, 32, 3), classes=10)
        ```

    # Arguments
        cells: number of cells; those at 1/3 and 2/3 of the depth halve the image and double
            the channels.
        channels: channels of a node in the first cells.
        nodes: nodes of a cell, each reading two earlier states.
        precision: `"real"` or `"binary"`.
        activation: of binary convolutions: `"relu"`, or BATS' `"prelu"`.
        stem: `"cifar"` keeps the images' size; `"imagenet"` gives the cells an eighth of it.
        operations: the candidates; by default DARTS', besides which NASNet's and AmoebaNet's
            cells have `separable_conv_7x7` and `conv_7x1_1x7`.
        normal_concat: states that a normal cell concatenates, 2 being the first node; by
            default all nodes.
        reduction_concat: states that a reduction cell concatenates; by default all nodes.
        search_cells: cells of the supernet; by default `cells`.
        search_channels: channels of the supernet; by default `channels`.

    # References
        - [DARTS: Differentiable Architecture Search](https://arxiv.org/abs/1806.09055)
        - [BATS: Binary ArchitecTure Search](https://arxiv.org/abs/2003.01711)
    """

    name: ClassVar[str] = "darts"
    search_domain: ClassVar[Domain] = dataclasses.replace(SEARCH, pool_norm=True)
    known_operations: ClassVar[tuple[str, ...]] = (*_OPERATIONS, *_FURTHER)

    precision: Precision = "real"
    activation: Activation = "relu"
    operations: tuple[str, ...] = _OPERATIONS
    normal_concat: tuple[int, ...] | None = None
    reduction_concat: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_known("precision", self.precision, ("real", "binary"))
        require_known("activation", self.activation, ("relu", "prelu"))

    @property
    def _style(self) -> Style:
        return Style(self.precision, self.activation)

    def _concat(self, kind: str) -> Sequence[int] | None:
        return self.reduction_concat if kind == "reduction" else self.normal_concat

    def _cifar_stem(self, images: tf.Tensor) -> tf.Tensor:
        return stem(images, 3 * self.channels, relu=False)

    def _preprocess(self, before: tf.Tensor, x: tf.Tensor, place: Place) -> list[tf.Tensor]:
        first = reduce if place.halved else convolution
        style = self._style
        return [
            first(before, f"{place.prefix}_pre0", filters=place.channels, style=style),
            convolution(x, f"{place.prefix}_pre1", filters=place.channels, style=style),
        ]

    def _candidates(self, channels: int, strides: int) -> dict[str, Operation]:
        convolve = partial(convolution, filters=channels, style=self._style)
        halve = partial(reduce, filters=channels, style=self._style)
        candidates = pools_and_zero(strides)
        candidates["identity"] = halve if strides == 2 else _identity
        for name in self.operations:
            if "conv_" in name:
                candidates[name] = partial(convolve, rows=steps_of(name, strides))
        return candidates


def _identity(x: tf.Tensor, name: str) -> tf.Tensor:
    return x
