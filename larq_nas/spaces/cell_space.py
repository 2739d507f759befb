"""Search spaces of cells: the stack of cells, and operations they share."""

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import tensorflow as tf

from larq_nas.errors import (
    InputError,
    require_at_most,
    require_fields,
    require_known,
    require_whole,
    use_plain_numbers,
)
from larq_nas.layers import (
    Activation,
    batch_norm,
    building_in,
    classifier,
    current_domain,
    factorized_reduce,
    imagenet_stem,
)
from larq_nas.spaces.chooser import Chooser, ImageShape, Operation, Operations
from larq_nas.spaces.space import Space

# Beyond, a network cannot be built in any time or memory.
_MOST_CELLS, _MOST_CHANNELS, _MOST_NODES = 256, 4096, 32
_SMALL_CELLS, _SMALL_CHANNELS = 3, 4


def pools_and_zero(strides: int) -> dict[str, Operation]:
    """Return the candidates that every space of cells has, by name."""
    return {
        "max_pool_3x3": partial(max_pool, strides=strides),
        "average_pool_3x3": partial(average_pool, strides=strides),
        "zero": None,
    }


def convolutions(
    table: Mapping[str, tuple[int, int]], build: Callable[..., tf.Tensor], **settings: Any
) -> dict[str, Operation]:
    """Return candidates by name, of the kernel sizes and dilation rates in `table`."""
    return {
        name: partial(build, kernel_size=kernel_size, dilation_rate=dilation_rate, **settings)
        for name, (kernel_size, dilation_rate) in table.items()
    }


def identity(
    x: tf.Tensor, name: str, *, filters: int, strides: int, activation: Activation
) -> tf.Tensor:
    """Pass `x` on; where it must be halved, by a factorized reduce."""
    if strides == 1:
        return x
    return factorized_reduce(x, filters, name=name, activation=activation)


def max_pool(x: tf.Tensor, name: str, *, strides: int) -> tf.Tensor:
    """Take the maximum over 3x3 pixels."""
    return _normalize(tf.keras.layers.MaxPool2D(3, strides, padding="same", name=name)(x), name)


def average_pool(x: tf.Tensor, name: str, *, strides: int) -> tf.Tensor:
    """Take the mean over 3x3 pixels, those outside the image not counted."""
    y = tf.keras.layers.AveragePooling2D(3, strides, padding="same", name=name)(x)
    return _normalize(y, name)


def _normalize(x: tf.Tensor, name: str) -> tf.Tensor:
    return batch_norm(x, f"{name}_bn") if current_domain().pool_norm else x


_POOLED = 5
_CHANNELS = (128, 768)


def auxiliary_classifier(x: tf.Tensor, classes: int, *, name: str = "auxiliary") -> tf.Tensor:
    """Return logits of what a cell in the middle gives, with real weights, as DARTS does.

    Their loss is added to that of the network, and trains the first cells more directly
    ([Going Deeper with Convolutions](https://arxiv.org/abs/1409.4842)).
    """
    layers = tf.keras.layers
    x = layers.ReLU(name=f"{name}_relu")(x)
    sizes, strides = zip(*map(_pool, x.shape[1:3]), strict=True)
    x = layers.AveragePooling2D(sizes, strides, name=f"{name}_pool")(x)
    few, many = _CHANNELS
    x = layers.Conv2D(few, 1, use_bias=False, name=f"{name}0_conv")(x)
    x = layers.ReLU(name=f"{name}0_relu")(batch_norm(x, f"{name}0_bn", affine=True))
    rest = x.shape[1:3]
    x = layers.Conv2D(many, rest, use_bias=False, name=f"{name}1_conv")(x)
    x = layers.ReLU(name=f"{name}1_relu")(batch_norm(x, f"{name}1_bn", affine=True))
    x = layers.Flatten(name=f"{name}_flatten")(x)
    return layers.Dense(classes, name=f"{name}_dense")(x)


def _pool(size: int) -> tuple[int, int]:
    """Return the size and the strides of a pool that leaves two places, or the one there is.

    Of 8 pixels they are DARTS' on CIFAR, 5 and 3; of 7 those on ImageNet, 5 and 2.
    """
    if _POOLED < size <= 2 * _POOLED:
        return _POOLED, size - _POOLED
    return (size - size // 2, size // 2) if size > 1 else (1, 1)


_ADDED = ("shared_norms", "positive_scales")

StemName = Literal["cifar", "imagenet"]
"""One convolution at full size, or three that halve the image each."""


@dataclass(frozen=True)
class Place:
    """Where a cell stands in the stack: the number of cells below it, and channels of its nodes.

    `halved` tells whether what it reads last was halved, so that the state before is larger.
    """

    index: int
    channels: int
    halves: bool
    halved: bool

    @property
    def kind(self) -> str:
        """The name of its choices' group."""
        return "reduction" if self.halves else "normal"

    @property
    def prefix(self) -> str:
        """The prefix of its layers' names."""
        return f"cell{self.index}"


@dataclass(frozen=True)
class CellSpace(Space):
    """Cells that each read the two before them; each space says what they are made of.

    Reduction cells stand at 1/3 and 2/3 of the depth, halve the image and double the
    channels. See `Bats` for the settings.

    # Arguments
        shared_norms: whether binary convolutions that read one state share a batch norm, and
            with it the sign. Searches, in which it learns nothing, are the same.
        positive_scales: whether scales of batch norms before signs are held above 0, so that
            Larq Compute Engine only adds offsets there.
    """

    known_operations: ClassVar[tuple[str, ...]]
    keep_zero: ClassVar[bool] = False
    proxy_size: ClassVar[tuple[int, int] | None] = None
    """Most cells and channels of the supernet, unless its settings say otherwise."""

    cells: int = 20
    channels: int = 36
    nodes: int = 4
    stem: StemName = "cifar"
    operations: tuple[str, ...] = ()
    search_cells: int | None = None
    search_channels: int | None = None
    shared_norms: bool = dataclasses.field(default=False, kw_only=True)
    positive_scales: bool = dataclasses.field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        use_plain_numbers(self)
        sizes = ("cells", "channels", "nodes", "search_cells", "search_channels")
        require_fields(require_whole, self, *sizes)
        for name, most in zip(sizes, (_MOST_CELLS, _MOST_CHANNELS, _MOST_NODES) * 2, strict=False):
            require_at_most(most, **{name: getattr(self, name)})
        require_known("stem", self.stem, ("cifar", "imagenet"))
        if isinstance(self.operations, list):
            object.__setattr__(self, "operations", tuple(self.operations))
        if not isinstance(self.operations, tuple):
            raise InputError(f"`operations` must be a list of names, but got {self.operations!r}.")
        for operation in self.operations:
            require_known("operation", operation, self.known_operations)
        if len(set(self.operations)) < len(self.operations):
            raise InputError(f"`operations` must be different ones, but got {self.operations}.")
        if not set(self.operations) - {"zero"}:
            raise InputError(f"`operations` must hold more than zero, but got {self.operations}.")

    @property
    def images(self) -> tuple[ImageShape, int]:
        return super().images if self.stem == "cifar" else ((224, 224, 3), 1000)

    @property
    def smallest(self) -> tuple["CellSpace", ...]:
        groups = getattr(self, "groups", 1)
        changes: dict[str, Any] = {
            name: value
            for name, value in (("stem_groups", False), ("search_groups", None))
            if hasattr(self, name)
        }
        changes |= {
            "cells": min(self.cells, _SMALL_CELLS),
            "channels": min(self.channels, groups * -(-_SMALL_CHANNELS // groups)),
            "nodes": 1,
            "search_cells": None,
            "search_channels": None,
        }
        small: CellSpace = dataclasses.replace(self, **changes)
        spaces = (small, dataclasses.replace(small, stem="imagenet"))
        return tuple(space for space in spaces if space != self)

    @property
    def reductions(self) -> set[int]:
        """Indices of the cells that halve the image."""
        return {self.cells // 3, 2 * self.cells // 3}

    def proxy(self) -> "CellSpace":
        return self._proxy()

    def _proxy(self, **changes: Any) -> Any:
        """Return the space of the supernet, with further changes."""
        most_cells, most_channels = self.proxy_size or (self.cells, self.channels)
        return dataclasses.replace(
            self,
            cells=self.search_cells or min(self.cells, most_cells),
            channels=self.search_channels or min(self.channels, most_channels),
            search_cells=None,
            search_channels=None,
            **changes,
        )

    def with_cells(self, cells: int) -> "CellSpace":
        """Return the same space with so many cells."""
        return dataclasses.replace(self, cells=cells)

    def check(self, input_shape: ImageShape) -> None:
        stem, halvings = ("the ImageNet stem and ", 3) if self.stem == "imagenet" else ("", 0)
        smallest = 2 ** (len(self.reductions) + halvings)
        if min(input_shape[:2]) < smallest:
            raise InputError(
                f"Images must be at least {smallest}x{smallest} pixels for {stem}"
                f"{len(self.reductions)} reduction cells, but got "
                f"{input_shape[0]}x{input_shape[1]}: "
                "enlarge them, or search the space `resnet18_cifar`, which takes any size."
            )

    def build(self, choose: Chooser, input_shape: ImageShape, classes: int) -> tf.keras.Model:
        self.check(input_shape)
        domain = dataclasses.replace(
            current_domain(), shared_norms=self.shared_norms, positive_scales=self.positive_scales
        )
        with building_in(domain):
            return self._build(choose, input_shape, classes)

    def settings(self) -> dict[str, Any]:
        # Runs and tables of before have no such settings.
        unset = {name for name in _ADDED if not getattr(self, name)}
        return {key: value for key, value in super().settings().items() if key not in unset}

    def _build(self, choose: Chooser, input_shape: ImageShape, classes: int) -> tf.keras.Model:
        images = tf.keras.Input(input_shape, name="image")
        if self.stem == "imagenet":
            before, x = self._imagenet_stem(images)
        else:
            before = x = self._cifar_stem(images)
        channels, halved = self.channels, self.stem == "imagenet"
        further: list[tf.Tensor] = []
        for index in range(self.cells):
            halves = index in self.reductions
            channels *= 2 if halves else 1
            place = Place(index, channels, halves, halved)
            before, x = x, self._cell(choose, before, x, place)
            halved = halves
            if current_domain().auxiliary and index == 2 * self.cells // 3:
                further.append(auxiliary_classifier(x, classes))
        logits = classifier(x, classes)
        return tf.keras.Model(images, [logits, *further] if further else logits, name=self.name)

    def _imagenet_stem(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Build the stem that halves the images three times."""
        return imagenet_stem(images, self.channels)

    def _cell(self, choose: Chooser, before: tf.Tensor, x: tf.Tensor, place: Place) -> tf.Tensor:
        steps: list[Operations] = []
        for strides in (1, 2):
            known = self._candidates(place.channels, strides)
            steps.append({name: known[name] for name in self.operations})
        return choose.cell(
            place.kind,
            self._preprocess(before, x, place),
            lambda state: steps[1] if place.halves and state < 2 else steps[0],
            nodes=self.nodes,
            prefix=place.prefix,
            concat=self._concat(place.kind),
            keep_zero=self.keep_zero,
        )

    def _concat(self, kind: str) -> Sequence[int] | None:
        """Return the states a kind of cell concatenates, or `None` for all nodes."""
        return None

    @abstractmethod
    def _cifar_stem(self, images: tf.Tensor) -> tf.Tensor:
        """Build the stem that keeps the images' size."""

    @abstractmethod
    def _preprocess(self, before: tf.Tensor, x: tf.Tensor, place: Place) -> list[tf.Tensor]:
        """Bring both inputs of a cell to its number of channels, and to one size."""

    @abstractmethod
    def _candidates(self, channels: int, strides: int) -> Operations:
        """Return the operations by name, of which `operations` are chosen from."""


def groups_of_stem(channels: int, most: int) -> int:
    """Return the groups of the ImageNet stem: `most`, or the next fewer that divide its widths."""
    widths = channels // 2, channels
    return next((g for g in range(most, 0, -1) if not any(width % g for width in widths)), 1)
