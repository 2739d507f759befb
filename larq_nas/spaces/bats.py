"""The search space of BATS: cells of binary group convolutions."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import tensorflow as tf

from larq_nas.errors import InputError, require_fields, require_known, require_whole
from larq_nas.layers import (
    Activation,
    binary_conv,
    building_in,
    current_domain,
    factorized_reduce,
    imagenet_stem,
    stem,
)
from larq_nas.spaces.cell_space import (
    CellSpace,
    Place,
    convolutions,
    groups_of_stem,
    identity,
    pools_and_zero,
)
from larq_nas.spaces.chooser import Chooser, ImageShape, Operation
from larq_nas.spaces.space import Precision, register

_CONVOLUTIONS = {
    # The paper's names, by which architectures and weights are saved. Without `groups` they name
    # dense convolutions too.
    "group_conv_3x3": (3, 1),
    "group_conv_5x5": (5, 1),
    "dilated_group_conv_3x3": (3, 2),
    "dilated_group_conv_5x5": (5, 2),
}
_OPERATIONS = (*_CONVOLUTIONS, "identity", "max_pool_3x3", "average_pool_3x3", "zero")


@register
@dataclass(frozen=True)
class Bats(CellSpace):
    """Cells of binary convolutions, pools and skips (BATS, section 4.1 and Table 1).

    The default is what to deploy: no groups, because Larq Compute Engine computes 32
    channels as fast as 3, and ReLU, which it fuses into the convolution. The paper's own
    network is `Bats(cells=20, channels=36, groups=12, activation="prelu")`, and on ImageNet
    `Bats(cells=14, channels=80, groups=16, activation="prelu", stem="imagenet")`. With
    `precision="real"` it is searched and trained as in appendix B, by SGD, with no sign in it.

    !!! example
        ```python
        space = larq_nas.spaces.Bats(cells=8, channels=32, search_cells=5, search_channels=16)
        model = larq_nas.search(train, validation, space=space)
        ```

    # Arguments
        cells: number of cells; those at 1/3 and 2/3 of the depth halve the image and double
            the channels.
        channels: channels of a node in the first cells.
        groups: groups of each convolution in a cell, at every width.
        nodes: nodes of a cell, each reading two earlier states.
        activation: `"relu"`, or the paper's `"prelu"`.
        precision: `"binary"`, or `"real"` for the float twin.
        stem: `"cifar"` keeps the images' size; `"imagenet"` gives the cells an eighth of it.
        operations: the candidates, of Table 1.
        search_cells: cells of the supernet; by default `cells`.
        search_channels: channels of the supernet; by default `channels`.
        search_groups: groups of each convolution of the supernet; by default `groups`. 8 of 24
            channels have 3 channels each, as the paper's 12 of 36 have.
        shared_norms: whether operations that read one state share its batch norm and sign.
        positive_scales: whether scales of batch norms before signs are held above 0.

    # References
        - [BATS: Binary ArchitecTure Search](https://arxiv.org/abs/2003.01711)
    """

    name: ClassVar[str] = "bats"
    known_operations: ClassVar[tuple[str, ...]] = _OPERATIONS

    cells: int = 5
    channels: int = 32
    groups: int = 1
    activation: Activation = "relu"
    precision: Precision = "binary"
    operations: tuple[str, ...] = _OPERATIONS
    search_groups: int | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_fields(require_whole, self, "groups", "search_groups")
        channels = "channels" if self.search_channels is None else "search_channels"
        groups = "groups" if self.search_groups is None else "search_groups"
        for name, by in (("channels", "groups"), (channels, groups)):
            if getattr(self, name) % getattr(self, by):
                raise InputError(
                    f"`{name}` must be divisible by `{by}`, but got {getattr(self, name)} channels "
                    f"in {getattr(self, by)} groups."
                )
        require_known("activation", self.activation, ("relu", "prelu"))
        require_known("precision", self.precision, ("binary", "real"))

    def settings(self) -> dict[str, Any]:
        settings = super().settings()
        # Runs and tables of before have no such settings.
        if self.precision == "binary":
            del settings["precision"]
        if self.search_groups is None:
            del settings["search_groups"]
        return settings

    def proxy(self) -> "Bats":
        found: Bats = self._proxy(groups=self.search_groups or self.groups, search_groups=None)
        return found

    def build(self, choose: Chooser, input_shape: ImageShape, classes: int) -> tf.keras.Model:
        domain = current_domain()
        if self.precision == "real":
            domain = dataclasses.replace(domain, weights="real", activations="real")
        with building_in(domain):
            return super().build(choose, input_shape, classes)

    def _cifar_stem(self, images: tf.Tensor) -> tf.Tensor:
        return stem(images, 3 * self.channels)

    def _imagenet_stem(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # 4 groups of the published 80 channels (section 6.3), 6 of its 120.
        groups = groups_of_stem(self.channels, self.channels // 20)
        return imagenet_stem(images, self.channels, groups=groups)

    def _preprocess(self, before: tf.Tensor, x: tf.Tensor, place: Place) -> list[tf.Tensor]:
        # With the identity of section 4.1 where widths agree: behind the ImageNet stem.
        preprocess = partial(binary_conv, kernel_size=1, activation=self.activation)
        halve = partial(factorized_reduce, activation=self.activation)
        first = halve if place.halved else preprocess
        return [
            first(before, place.channels, name=f"{place.prefix}_pre0"),
            preprocess(x, place.channels, name=f"{place.prefix}_pre1"),
        ]

    def _candidates(self, channels: int, strides: int) -> Mapping[str, Operation]:
        settings: Any = {"filters": channels, "strides": strides, "activation": self.activation}
        return {
            "identity": partial(identity, **settings),
            **pools_and_zero(strides),
            **convolutions(_CONVOLUTIONS, _convolution, groups=self.groups, **settings),
        }


def _convolution(x: tf.Tensor, name: str, **settings: Any) -> tf.Tensor:
    return binary_conv(x, name=name, **settings)
