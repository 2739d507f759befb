"""ResNet-18 as a space of widths, by stage and block."""

from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from larq_nas.errors import require_whole, unknown_name
from larq_nas.spaces.chooser import Chooser
from larq_nas.spaces.space import Precision, register
from larq_nas.spaces.width_space import WidthSpace
from larq_nas.training.recipe import RECIPES, Recipe

__all__ = ["ResNet18", "ResNet18Cifar"]

_BLOCKS = 2


@dataclass(frozen=True)
class _ResNet18(WidthSpace):
    """Four stages of two blocks of two convolutions, each block with a shortcut.

    What a shortcut adds to must be as wide as what it carries, so a stage has one width, the
    first the stem's too; the convolution within each block has a width of its own.
    """

    downsample: Precision = "binary"

    filters: ClassVar[tuple[int, ...]]
    dense_bias: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.downsample not in ("binary", "real"):
            raise unknown_name("precision of `downsample`", self.downsample, ("binary", "real"))

    @property
    def layers(self) -> dict[str, int]:
        layers = {}
        for stage, filters in enumerate(self.filters, 1):
            layers[f"stage{stage}"] = filters
            layers |= {f"stage{stage}_block{n}": filters for n in range(1, _BLOCKS + 1)}
        return layers

    def build(
        self, choose: Chooser, input_shape: tuple[int, int, int], classes: int
    ) -> tf.keras.Model:
        images = tf.keras.Input(input_shape, name="image")
        widths = self.widths(choose)
        x = self.stem(images, widths["stage1"])
        for stage in range(1, len(self.filters) + 1):
            for block in range(1, _BLOCKS + 1):
                name = f"stage{stage}_block{block}"
                strides = 2 if stage > 1 and block == 1 else 1
                x = self._block(x, widths[name], widths[f"stage{stage}"], strides, name)
        x = tf.keras.layers.GlobalAveragePooling2D(name="pool")(x)
        dense = tf.keras.layers.Dense(classes, use_bias=self.dense_bias, name="dense")
        return tf.keras.Model(images, dense(x), name=self.name)

    def stem(self, images: tf.Tensor, filters: int) -> tf.Tensor:
        """Apply the layers before the first stage."""
        raise NotImplementedError

    def _block(self, x: tf.Tensor, inner: int, filters: int, strides: int, name: str) -> tf.Tensor:
        y = self.activate(self.conv(x, inner, f"{name}_1", strides=strides), f"{name}_1")
        y = self.conv(y, filters, f"{name}_2")
        if strides > 1:
            x = self._downsample(x, filters, strides, f"{name}_downsample")
        return self.activate(tf.keras.layers.Add(name=f"{name}_add")([y, x]), name)

    def _downsample(self, x: tf.Tensor, filters: int, strides: int, name: str) -> tf.Tensor:
        if self.downsample == "binary":
            return self.conv(x, filters, name, 1, strides)
        return self.real_conv(x, filters, 1, name, strides)


@register
@dataclass(frozen=True)
class ResNet18(_ResNet18):
    """ResNet-18 in its ImageNet form, by its widths (Shen et al., section 3).

    !!! example
        ```python
        space = larq_nas.spaces.ResNet18(ratios=(0.5, 1, 2))
        ```

    # Arguments
        expansion: how many times its own width each layer gets: one ratio for all, one for
            each of `stage1`, `stage1_block1`, `stage1_block2`, `stage2` and so on, or `None`
            to choose them by a search.
        ratios: the ratios to choose from; by default Shen's (Eq. 2).
        precision: `"binary"`, or `"real"` for the float twin; first and last layer are real.
        binarization: `"sign"`, `"dorefa"` as Shen et al. have it (Eq. 1), `"dms"` as DMS does
            (Eq. 2), or `"bats"` as BATS binarizes what it compares with (section 3).
        downsample: `"binary"`, or `"real"` as in Bi-Real Net, for the 1x1 convolutions of
            shortcuts.
        stem_kernel: height and width of the first kernel, in pixels; DMS counts 3.

    # References
        - [Deep Residual Learning for Image Recognition](https://arxiv.org/abs/1512.03385)
        - [Searching for Accurate Binary Neural Architectures](https://arxiv.org/abs/1909.07378)
    """

    name: ClassVar[str] = "resnet18"
    filters: ClassVar[tuple[int, ...]] = (64, 128, 256, 512)

    stem_kernel: int = 7

    def recipe(self) -> Recipe:
        return RECIPES["shen2019_imagenet"]

    @property
    def images(self) -> tuple[tuple[int, int, int], int]:
        return (224, 224, 3), 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole(stem_kernel=self.stem_kernel)

    def stem(self, images: tf.Tensor, filters: int) -> tf.Tensor:
        x = self.first_conv(images, filters, self.stem_kernel, "stem", strides=2)
        return tf.keras.layers.MaxPool2D(3, 2, "same", name="stem_pool")(x)


@register
@dataclass(frozen=True)
class ResNet18Cifar(_ResNet18):
    """ResNet-18 for small images, with a quarter of the channels (DMS, section 3.1).

    # Arguments
        expansion: how many times its own width each layer gets: one ratio for all, one for
            each of `stage1`, `stage1_block1`, `stage1_block2`, `stage2` and so on, or `None`
            to choose them by a search.
        ratios: the ratios to choose from.
        precision: `"binary"`, or `"real"` for the float twin; first and last layer are real.
        binarization: `"sign"`, `"dorefa"` as Shen et al. have it (Eq. 1), `"dms"` as DMS does
            (Eq. 2), or `"bats"` as BATS binarizes what it compares with (section 3).
        downsample: `"binary"` or `"real"`, for the 1x1 convolutions of shortcuts.

    # References
        - DMS: Differentiable Dimension Search for Binary Neural Networks, under double-blind
          review
    """

    name: ClassVar[str] = "resnet18_cifar"
    filters: ClassVar[tuple[int, ...]] = (16, 32, 64, 128)
    dense_bias: ClassVar[bool] = False

    def recipe(self) -> Recipe:
        return RECIPES["dms_resnet"]

    def stem(self, images: tf.Tensor, filters: int) -> tf.Tensor:
        return self.first_conv(images, filters, 3, "stem")
