"""The search space of DARTS, whose cells BATS binarizes to compare with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import tensorflow as tf

from larq_nas.choosers import Operation
from larq_nas.layers import Activation, stem
from larq_nas.spaces.convolutions import Style, convolution, reduce, steps_of
from larq_nas.spaces.operations import pools_and_zero
from larq_nas.spaces.skeleton import CellSpace, Place, StemName, require_known
from larq_nas.spaces.space import Precision, register
from larq_nas.training.recipe import Recipe
from larq_nas.training.recipes import RECIPES

__all__ = ["Darts"]

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
    its own batch norm and activation.

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
    known_operations: ClassVar[tuple[str, ...]] = (*_OPERATIONS, *_FURTHER)

    cells: int = 20
    channels: int = 36
    nodes: int = 4
    precision: Precision = "real"
    activation: Activation = "relu"
    stem: StemName = "cifar"
    operations: tuple[str, ...] = _OPERATIONS
    normal_concat: tuple[int, ...] | None = None
    reduction_concat: tuple[int, ...] | None = None
    search_cells: int | None = None
    search_channels: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_known("precision", self.precision, ("real", "binary"))
        require_known("activation", self.activation, ("relu", "prelu"))

    @property
    def searching(self) -> Mapping[str, Any]:
        return {"temperature": 1.0}

    def recipe(self) -> Recipe:
        return RECIPES["bats" if self.precision == "binary" else "bats_real"]

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
        return {name: candidates[name] for name in self.operations}


def _identity(x: tf.Tensor, name: str) -> tf.Tensor:
    return x
