"""Search spaces of widths, an expansion ratio for each layer: of VGG, and of ResNet-18."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import tensorflow as tf

from larq_nas.choices import expand, require_multiple, require_ratios
from larq_nas.errors import (
    InputError,
    require_known,
    require_whole,
    use_plain_numbers,
)
from larq_nas.layers import batch_norm, binary_conv, current_domain, sign_conv
from larq_nas.layers.blocks import Binarization
from larq_nas.spaces.chooser import Chooser, ImageShape
from larq_nas.spaces.space import Precision, Space, register

OfNetwork: TypeAlias = Binarization | Literal["bats"]
"""How a network is binary: each of its convolutions, or as BATS makes any network binary."""

_BINARIZATIONS = (*get_args(Binarization), "bats")


@dataclass(frozen=True)
class WidthSpace(Space):
    """A fixed network of which the widths are open.

    # Arguments
        expansion: how many times its own width each layer gets: one ratio for all, one for
            each in the order of `layers`, or `None` to choose them by a search.
        ratios: the ratios to choose from; by default those of Shen et al. (Eq. 2).
        multiple_of: what all widths are rounded to multiples of; Larq Compute Engine packs 32
            binary channels to a word. As published there is no rounding: 1.
        precision: `"binary"`, or `"real"` for the float twin; first and last layer are real.
        binarization: `"sign"`, `"dorefa"` as Shen et al. have it (Eq. 1), or `"dms"` as DMS does
            (Eq. 2), see `larq_nas.layers.sign_conv`, with the ReLUs of the float twin where an
            addition or the last layer reads (A.3), of which `"sign"` and `"dorefa"` have none; or
            `"bats"` as BATS binarizes what it compares with (section 3): batch norm, sign,
            convolution, a learned scale and PReLU.
    """

    expansion: float | tuple[float, ...] | None = None
    ratios: tuple[float, ...] = (0.25, 0.5, 1, 2, 3, 4)
    precision: Precision = "binary"
    binarization: OfNetwork = "sign"
    multiple_of: int = dataclasses.field(default=1, kw_only=True)

    @property
    def layers(self) -> dict[str, int]:
        """Number of filters at ratio 1 of each layer whose width is open, by its name."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        use_plain_numbers(self)
        require_known("precision", self.precision, ("binary", "real"))
        require_known("binarization", self.binarization, _BINARIZATIONS)
        if not isinstance(self.ratios, tuple) or not self.ratios:
            raise InputError(f"`ratios` must be a list of numbers, but got {self.ratios!r}.")
        require_ratios("ratios", self.ratios)
        require_multiple(self.multiple_of)
        require_ratios("expansion", self._given() or ())
        if isinstance(self.expansion, tuple) and len(self.expansion) != len(self.layers):
            raise InputError(
                f"`expansion` must be one ratio, or {len(self.layers)} (for "
                f"{', '.join(self.layers)}), but got {len(self.expansion)}."
            )

    def widths(self, choose: Chooser) -> dict[str, int]:
        """Return the number of filters of each layer, by its name."""
        given = self._given()
        if given is None:
            return {
                name: choose.filters(name, filters, self.ratios, self.multiple_of)
                for name, filters in self.layers.items()
            }
        return {
            name: expand(filters, ratio, self.multiple_of)
            for (name, filters), ratio in zip(self.layers.items(), given, strict=True)
        }

    def settings(self) -> dict[str, Any]:
        # Runs and tables of before have no such setting.
        settings = super().settings()
        if self.multiple_of == 1:
            del settings["multiple_of"]
        return settings

    def _given(self) -> Sequence[float] | None:
        if self.expansion is None or isinstance(self.expansion, tuple):
            return self.expansion
        return [self.expansion] * len(self.layers)

    def first_conv(
        self,
        x: tf.Tensor,
        filters: int,
        kernel_size: int,
        name: str,
        strides: int = 1,
        *,
        is_read_real: bool = False,
    ) -> tf.Tensor:
        """Apply the real convolution of the images, and batch norm."""
        x = self.real_conv(x, filters, kernel_size, name, strides)
        if self.binarization == "bats":
            # BATS changes the layers that it binarizes, and leaves this one its ReLU.
            return tf.keras.layers.ReLU(name=f"{name}_relu")(x)
        return self.activate(x, name, is_read_real)

    def real_conv(
        self, x: tf.Tensor, filters: int, kernel_size: int, name: str, strides: int = 1
    ) -> tf.Tensor:
        """Apply a real convolution and batch norm."""
        x = tf.keras.layers.Conv2D(
            filters, kernel_size, strides, "same", use_bias=False, name=f"{name}_conv"
        )(x)
        return batch_norm(x, f"{name}_bn", affine=True)

    def conv(
        self, x: tf.Tensor, filters: int, name: str, kernel_size: int = 3, strides: int = 1
    ) -> tf.Tensor:
        """Apply a convolution and batch norm; of signs, if the network is binary."""
        if not self._binary():
            return self.real_conv(x, filters, kernel_size, name, strides)
        if self.binarization == "bats":
            return binary_conv(
                x,
                filters,
                kernel_size,
                name=name,
                strides=strides,
                activation="prelu",
                identity=False,
            )
        return sign_conv(
            x, filters, kernel_size, name=name, strides=strides, binarization=self.binarization
        )

    def activate(self, x: tf.Tensor, name: str, is_read_real: bool = False) -> tf.Tensor:
        """Apply ReLU in the float twin; a binary network has its quantizers.

        What an addition or the last layer reads too (`is_read_real`) passes none: as in the
        twin, `"dms"` has a ReLU there. Its quantizers, which have 0 for what is negative, read
        the same through it; signs would all be 1.
        """
        if self._binary() and not (is_read_real and self.binarization == "dms"):
            return x
        return tf.keras.layers.ReLU(name=f"{name}_relu")(x)

    def _binary(self) -> bool:
        # As BATS has it, the float twin is of the same layers, without signs.
        follows = self.binarization == "bats" or current_domain().activations == "binary"
        return self.precision == "binary" and follows


@dataclass(frozen=True)
class _Vgg(WidthSpace):
    """A chain of 3x3 convolutions with max-pools between, and a dense layer."""

    filters: ClassVar[tuple[int, ...]]
    pooled: ClassVar[frozenset[int]]

    @property
    def layers(self) -> dict[str, int]:
        return {f"conv{number}": filters for number, filters in enumerate(self.filters, 1)}

    def check(self, input_shape: ImageShape) -> None:
        smallest = 2 ** len(self.pooled)
        if min(input_shape[:2]) < smallest:
            raise InputError(
                f"Images must be at least {smallest}x{smallest} pixels for the "
                f"{len(self.pooled)} max-pools of `{self.name}`, but got "
                f"{input_shape[0]}x{input_shape[1]}: enlarge them, or search the space "
                "`resnet18_cifar`, which takes any size."
            )

    def build(self, choose: Chooser, input_shape: ImageShape, classes: int) -> tf.keras.Model:
        self.check(input_shape)
        x = images = tf.keras.Input(input_shape, name="image")
        for number, (name, filters) in enumerate(self.widths(choose).items(), 1):
            if number == 1:
                x = self.first_conv(x, filters, 3, name)
            else:
                is_last = number == len(self.filters)
                x = self.activate(self.conv(x, filters, name), name, is_read_real=is_last)
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
        **settings: those of `larq_nas.spaces.WidthSpace`.

    # References
        - [Searching for Accurate Binary Neural Architectures](https://arxiv.org/abs/1909.07378)
    """

    name: ClassVar[str] = "vgg_small"
    filters: ClassVar[tuple[int, ...]] = (128, 128, 256, 256, 512, 512)
    pooled: ClassVar[frozenset[int]] = frozenset({2, 4, 6})


@register
@dataclass(frozen=True)
class Vgg11(_Vgg):
    """VGG-11 with a quarter of its channels, by the width of its convolutions (DMS).

    # Arguments
        expansion: how many times its own width each layer gets: one ratio for all, one for
            each of `conv1` to `conv8`, or `None` to choose them by a search.
        **settings: those of `larq_nas.spaces.WidthSpace`.

    # References
        - DMS: Differentiable Dimension Search for Binary Neural Networks, under double-blind
          review
    """

    name: ClassVar[str] = "vgg11"
    filters: ClassVar[tuple[int, ...]] = (16, 32, 64, 64, 128, 128, 128, 128)
    pooled: ClassVar[frozenset[int]] = frozenset({1, 2, 4, 6, 8})


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
        require_known("precision of `downsample`", self.downsample, ("binary", "real"))

    @property
    def layers(self) -> dict[str, int]:
        layers = {}
        for stage, filters in enumerate(self.filters, 1):
            layers[f"stage{stage}"] = filters
            layers |= {f"stage{stage}_block{n}": filters for n in range(1, _BLOCKS + 1)}
        return layers

    def build(self, choose: Chooser, input_shape: ImageShape, classes: int) -> tf.keras.Model:
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
        x = tf.keras.layers.Add(name=f"{name}_add")([y, x])
        return self.activate(x, name, is_read_real=True)

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
        expansion: one ratio for all layers, or one for each of `stage1`, `stage1_block1`,
            `stage1_block2`, `stage2` and so on, or `None` to choose them by a search.
        downsample: `"binary"`, or `"real"` as in Bi-Real Net, for the 1x1 convolutions of
            shortcuts.
        stem_kernel: height and width of the first kernel, in pixels; DMS counts 3.
        **settings: those of `larq_nas.spaces.WidthSpace`.

    # References
        - [Deep Residual Learning for Image Recognition](https://arxiv.org/abs/1512.03385)
        - [Searching for Accurate Binary Neural Architectures](https://arxiv.org/abs/1909.07378)
    """

    name: ClassVar[str] = "resnet18"
    filters: ClassVar[tuple[int, ...]] = (64, 128, 256, 512)

    stem_kernel: int = 7

    @property
    def images(self) -> tuple[ImageShape, int]:
        return (224, 224, 3), 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole(stem_kernel=self.stem_kernel)

    def stem(self, images: tf.Tensor, filters: int) -> tf.Tensor:
        x = self.first_conv(images, filters, self.stem_kernel, "stem", 2, is_read_real=True)
        return tf.keras.layers.MaxPool2D(3, 2, "same", name="stem_pool")(x)


@register
@dataclass(frozen=True)
class ResNet18Cifar(_ResNet18):
    """ResNet-18 for small images, with a quarter of the channels (DMS, section 3.1).

    # Arguments
        expansion: one ratio for all layers, or one for each of `stage1`, `stage1_block1`,
            `stage1_block2`, `stage2` and so on, or `None` to choose them by a search.
        downsample: `"binary"` or `"real"`, for the 1x1 convolutions of shortcuts.
        **settings: those of `larq_nas.spaces.WidthSpace`.

    # References
        - DMS: Differentiable Dimension Search for Binary Neural Networks, under double-blind
          review
    """

    name: ClassVar[str] = "resnet18_cifar"
    filters: ClassVar[tuple[int, ...]] = (16, 32, 64, 128)
    dense_bias: ClassVar[bool] = False

    def stem(self, images: tf.Tensor, filters: int) -> tf.Tensor:
        return self.first_conv(images, filters, 3, "stem", is_read_real=True)
