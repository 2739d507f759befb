"""VGG-small and VGG-11 as spaces of widths."""

from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from larq_nas.errors import InputError
from larq_nas.spaces.chooser import Chooser
from larq_nas.spaces.space import register
from larq_nas.spaces.width_space import WidthSpace
from larq_nas.training.recipe import RECIPES, Recipe

__all__ = ["Vgg11", "VggSmall"]


@dataclass(frozen=True)
class _Vgg(WidthSpace):
    """A chain of 3x3 convolutions with max-pools between, and a dense layer."""

    filters: ClassVar[tuple[int, ...]]
    pooled: ClassVar[frozenset[int]]

    @property
    def layers(self) -> dict[str, int]:
        return {f"conv{number}": filters for number, filters in enumerate(self.filters, 1)}

    def check(self, input_shape: tuple[int, int, int]) -> None:
        smallest = 2 ** len(self.pooled)
        if min(input_shape[:2]) < smallest:
            raise InputError(
                f"Images must be at least {smallest}x{smallest} pixels for the "
                f"{len(self.pooled)} max-pools of `{self.name}`, but got "
                f"{input_shape[0]}x{input_shape[1]}."
            )

    def build(
        self, choose: Chooser, input_shape: tuple[int, int, int], classes: int
    ) -> tf.keras.Model:
        self.check(input_shape)
        x = images = tf.keras.Input(input_shape, name="image")
        for number, (name, filters) in enumerate(self.widths(choose).items(), 1):
            if number == 1:
                x = self.first_conv(x, filters, 3, name)
            else:
                x = self.activate(self.conv(x, filters, name), name)
            if number in self.pooled:
                x = tf.keras.layers.MaxPool2D(2, name=f"{name}_pool")(x)
        x = tf.keras.layers.Flatten(name="flatten")(x)
        return tf.keras.Model(
            images, tf.keras.layers.Dense(classes, name="dense")(x), name=self.name
        )


@register
@dataclass(frozen=True)
class VggSmall(_Vgg):
    """VGG-small, by the width of its six convolutions (Shen et al., section 3).

    !!! example
        ```python
        twice = larq_nas.Architecture("vgg_small", {"expansion": 2})
        model = twice.build((32, 32, 3), classes=10)
        ```

    # Arguments
        expansion: how many times its own width each layer gets: one ratio for all, one for
            each of `conv1` to `conv6`, or `None` to choose them by a search.
        ratios: the ratios to choose from; by default the paper's (Eq. 2).
        precision: `"binary"`, or `"real"` for the float twin; first and last layer are real.
        binarization: `"sign"`, `"dorefa"` as Shen et al. have it (Eq. 1), `"dms"` as DMS does
            (Eq. 2), or `"bats"` as BATS binarizes what it compares with (section 3).

    # References
        - [Searching for Accurate Binary Neural Architectures](https://arxiv.org/abs/1909.07378)
    """

    name: ClassVar[str] = "vgg_small"
    filters: ClassVar[tuple[int, ...]] = (128, 128, 256, 256, 512, 512)
    pooled: ClassVar[frozenset[int]] = frozenset({2, 4, 6})

    def recipe(self) -> Recipe:
        return RECIPES["shen2019"]


@register
@dataclass(frozen=True)
class Vgg11(_Vgg):
    """VGG-11 with a quarter of its channels, by the width of its convolutions (DMS).

    # Arguments
        expansion: how many times its own width each layer gets: one ratio for all, one for
            each of `conv1` to `conv8`, or `None` to choose them by a search.
        ratios: the ratios to choose from.
        precision: `"binary"`, or `"real"` for the float twin; first and last layer are real.
        binarization: `"sign"`, `"dorefa"` as Shen et al. have it (Eq. 1), `"dms"` as DMS does
            (Eq. 2), or `"bats"` as BATS binarizes what it compares with (section 3).

    # References
        - DMS: Differentiable Dimension Search for Binary Neural Networks, under double-blind
          review
    """

    name: ClassVar[str] = "vgg11"
    filters: ClassVar[tuple[int, ...]] = (16, 32, 64, 64, 128, 128, 128, 128)
    pooled: ClassVar[frozenset[int]] = frozenset({1, 2, 4, 6, 8})

    def recipe(self) -> Recipe:
        return RECIPES["dms_a"]
