"""The search space of BNAS: cells of binary convolutions, skips and Zeroise."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import tensorflow as tf

from larq_nas.errors import InputError, require_bool
from larq_nas.layers import (
    BINARY_SEARCH,
    Domain,
    batch_norm,
    binary_conv,
    current_domain,
    imagenet_stem,
    stem,
)
from larq_nas.spaces.cell_space import (
    CellSpace,
    Place,
    convolutions,
    groups_of_stem,
    pools_and_zero,
)
from larq_nas.spaces.chooser import Chooser, Operation
from larq_nas.spaces.space import register

_CONVOLUTIONS = {
    "dilated_conv_3x3": (3, 2),
    "dilated_conv_5x5": (5, 2),
    "conv_3x3": (3, 1),
    "conv_5x5": (5, 1),
}
# Of BATS (section 6.3), which v2 follows: of its 80 channels, and of the 64 of BNAS-D.
_STEM_GROUPS = 4
_OPERATIONS = ("zero", "max_pool_3x3", "average_pool_3x3", *_CONVOLUTIONS)


@register
@dataclass(frozen=True)
class Bnas(CellSpace):
    """Cells of binary convolutions, pools and zeros, bridged by skips (BNAS, section 4).

    The zero operation competes and stays in the network, where it costs nothing: what only
    zeros read is not built. Each cell but the first adds the output of the one before to its
    own. Weights have XNOR-Net's scale, the mean magnitude of each filter. It is searched as
    published: binary but for the convolutions that bring a cell's inputs to its width.

    !!! example
        ```python
        space = larq_nas.spaces.Bnas(cells=8, channels=32, search_cells=5, search_channels=16)
        model = larq_nas.search(train, validation, space=space)
        ```

    # Arguments
        cells: number of cells; those at 1/3 and 2/3 of the depth halve the image and double
            the channels.
        channels: channels of a node in the first cells.
        nodes: nodes of a cell, each reading two earlier states.
        stem: `"cifar"` keeps the images' size; `"imagenet"` gives the cells an eighth of it.
        stem_groups: whether the ImageNet stem's convolutions have 4 groups from the second on,
            as in v2; or 3 or 2, if 4 do not divide their channels.
        skips: whether cells are bridged; without, the template is that of DARTS.
        operations: the candidates, of Table 1.
        search_cells: cells of the supernet; by default 8, or `cells` if those are fewer.
        search_channels: channels of the supernet; by default 16, or `channels` if those are
            fewer.

    # References
        - [Learning Architectures for Binary Networks](https://arxiv.org/abs/2002.06963)
        - [BNAS v2](https://arxiv.org/abs/2110.08562)
    """

    name: ClassVar[str] = "bnas"
    search_domain: ClassVar[Domain] = BINARY_SEARCH
    proxy_size: ClassVar[tuple[int, int]] = (8, 16)
    known_operations: ClassVar[tuple[str, ...]] = _OPERATIONS
    keep_zero: ClassVar[bool] = True

    stem_groups: bool = False
    skips: bool = True
    operations: tuple[str, ...] = _OPERATIONS

    def __post_init__(self) -> None:
        super().__post_init__()
        require_bool(stem_groups=self.stem_groups, skips=self.skips)
        if self.stem_groups and self.stem == "cifar":
            raise InputError(
                "`stem_groups` is for the ImageNet stem: the CIFAR stem is one convolution; give "
                'stem="imagenet", or leave it out.'
            )
        if self.stem_groups and groups_of_stem(self.channels, _STEM_GROUPS) == 1:
            wider = range(self.channels + 1, self.channels + 64)
            nearest = next(width for width in wider if groups_of_stem(width, _STEM_GROUPS) > 1)
            raise InputError(
                f"`stem_groups` makes 4 groups of the stem's channels and of their half, or 2 or "
                f"3, but {self.channels} channels do not divide so: take channels={nearest}, or "
                "leave it out."
            )

    def proxy(self) -> "Bnas":
        # A supernet has few channels; its stem is grouped where that is possible.
        proxy: Any = self._proxy(stem_groups=False)
        grouped = self.stem_groups and groups_of_stem(proxy.channels, _STEM_GROUPS) > 1
        found: Bnas = dataclasses.replace(proxy, stem_groups=grouped)
        return found

    def _cifar_stem(self, images: tf.Tensor) -> tf.Tensor:
        return stem(images, 3 * self.channels, norm="before")

    def _imagenet_stem(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        groups = groups_of_stem(self.channels, _STEM_GROUPS) if self.stem_groups else 1
        return imagenet_stem(images, self.channels, groups=groups)

    def _preprocess(self, before: tf.Tensor, x: tf.Tensor, place: Place) -> list[tf.Tensor]:
        first = partial(_preprocess, filters=place.channels, kernel_size=1)
        if place.halved:
            # Without scale and offset on CIFAR, with them on ImageNet: as published.
            affine = False if self.stem == "cifar" else None
            first = partial(first, kernel_size=3, strides=2, affine=affine)
        return [
            first(before, f"{place.prefix}_pre0"),
            _preprocess(x, f"{place.prefix}_pre1", filters=place.channels, kernel_size=1),
        ]

    def _cell(self, choose: Chooser, before: tf.Tensor, x: tf.Tensor, place: Place) -> tf.Tensor:
        y = super()._cell(choose, before, x, place)
        if place.index == 0 or not self.skips:
            return y
        skip = _halve(x, y.shape[-1], f"{place.prefix}_skip") if place.halves else x
        return tf.keras.layers.Add(name=f"{place.prefix}_add")([y, skip])

    def _candidates(self, channels: int, strides: int) -> dict[str, Operation]:
        convs = convolutions(_CONVOLUTIONS, _conv, filters=channels, strides=strides)
        return {**pools_and_zero(strides), **convs}


def _conv(x: tf.Tensor, name: str, **settings: Any) -> tf.Tensor:
    """Apply batch norm, sign, convolution and ReLU, the weights scaled as in XNOR-Net."""
    return binary_conv(x, name=name, identity=False, scaling="mean", **settings)


def _preprocess(x: tf.Tensor, name: str, filters: int, **settings: Any) -> tf.Tensor:
    """Bring a cell's input to its width, with real numbers where the domain says so."""
    if current_domain().preprocess == "binary":
        return _conv(x, name, filters=filters, **settings)
    affine = settings.pop("affine", None)
    layer = tf.keras.layers.Conv2D(
        filters, padding="same", use_bias=False, activation="relu", name=f"{name}_conv", **settings
    )
    return layer(batch_norm(x, f"{name}_bn", affine))


def _halve(x: tf.Tensor, filters: int, name: str) -> tf.Tensor:
    """Apply batch norm and a real 2x2 convolution: what bridges a reduction cell."""
    x = batch_norm(x, f"{name}_bn", affine=True)
    return tf.keras.layers.Conv2D(filters, 2, strides=2, padding="same", name=f"{name}_conv")(x)
