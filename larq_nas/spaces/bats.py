"""The search space of BATS: cells of grouped binary convolutions."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import tensorflow as tf

from larq_nas.choosers import Chooser, Operation
from larq_nas.errors import InputError, require_whole, unknown_name
from larq_nas.layers import Activation, binary_conv, classifier, factorized_reduce, stem
from larq_nas.spaces.operations import average_pool, identity, max_pool
from larq_nas.spaces.space import Space, register

__all__ = ["Bats"]

_CONVOLUTIONS = {
    "group_conv_3x3": (3, 1),
    "group_conv_5x5": (5, 1),
    "dilated_group_conv_3x3": (3, 2),
    "dilated_group_conv_5x5": (5, 2),
}
_OPERATIONS = (*_CONVOLUTIONS, "identity", "max_pool_3x3", "average_pool_3x3", "zero")


@register
@dataclass(frozen=True)
class Bats(Space):
    """Cells of binary convolutions, pools and skips (BATS, section 4.1 and Table 1).

    The default is what to deploy: no groups, because Larq Compute Engine computes 32
    channels as fast as 3, and ReLU, which it fuses into the convolution. The paper's own
    network is `Bats(cells=20, channels=36, groups=12, activation="prelu")`.

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
        operations: the candidates, of Table 1.
        search_cells: cells of the supernet; by default `cells`.
        search_channels: channels of the supernet; by default `channels`.

    # References
        - [BATS: Binary ArchitecTure Search](https://arxiv.org/abs/2003.01711)
    """

    name: ClassVar[str] = "bats"
    temperature: ClassVar[Mapping[str, float]] = {"normal": 0.2, "reduction": 0.15}

    cells: int = 5
    channels: int = 32
    groups: int = 1
    nodes: int = 4
    activation: Activation = "relu"
    operations: tuple[str, ...] = _OPERATIONS
    search_cells: int | None = None
    search_channels: int | None = None

    def __post_init__(self) -> None:
        for name in ("cells", "channels", "groups", "nodes"):
            require_whole(**{name: getattr(self, name)})
        for name in ("search_cells", "search_channels"):
            if getattr(self, name) is not None:
                require_whole(**{name: getattr(self, name)})
        if not isinstance(self.operations, tuple):
            raise InputError(f"`operations` must be a list of names, but got {self.operations!r}.")
        for name in ("channels", "search_channels"):
            channels = getattr(self, name)
            if channels and channels % self.groups:
                raise InputError(
                    f"`{name}` must be divisible by `groups`, but got {channels} channels "
                    f"in {self.groups} groups."
                )
        if self.activation not in ("relu", "prelu"):
            raise unknown_name("activation", self.activation, ("relu", "prelu"))
        for operation in self.operations:
            if operation not in _OPERATIONS:
                raise unknown_name("operation", operation, _OPERATIONS)
        if not set(self.operations) - {"zero"}:
            raise InputError(f"`operations` must hold more than zero, but got {self.operations}.")

    @property
    def reductions(self) -> set[int]:
        """Indices of the cells that halve the image."""
        return {self.cells // 3, 2 * self.cells // 3}

    def proxy(self) -> "Bats":
        return dataclasses.replace(
            self,
            cells=self.search_cells or self.cells,
            channels=self.search_channels or self.channels,
            search_cells=None,
            search_channels=None,
        )

    def check(self, input_shape: tuple[int, int, int]) -> None:
        smallest = 2 ** len(self.reductions)
        if min(input_shape[:2]) < smallest:
            raise InputError(
                f"Images must be at least {smallest}x{smallest} pixels for {len(self.reductions)} "
                f"reduction cells, but got {input_shape[0]}x{input_shape[1]}."
            )

    def build(
        self, choose: Chooser, input_shape: tuple[int, int, int], classes: int
    ) -> tf.keras.Model:
        self.check(input_shape)
        images = tf.keras.Input(input_shape, name="image")
        before = x = stem(images, 3 * self.channels)
        channels, halved = self.channels, False
        for index in range(self.cells):
            halves = index in self.reductions
            channels *= 2 if halves else 1
            before, x = x, self._cell(choose, before, x, channels, halves, halved, f"cell{index}")
            halved = halves
        return tf.keras.Model(images, classifier(x, classes), name=self.name)

    def _cell(
        self,
        choose: Chooser,
        before: tf.Tensor,
        x: tf.Tensor,
        channels: int,
        halves: bool,
        halved: bool,
        prefix: str,
    ) -> tf.Tensor:
        preprocess = partial(binary_conv, kernel_size=1, activation=self.activation, identity=False)
        if halved:
            state0 = factorized_reduce(
                before, channels, name=f"{prefix}_pre0", activation=self.activation
            )
        else:
            state0 = preprocess(before, channels, name=f"{prefix}_pre0")
        state1 = preprocess(x, channels, name=f"{prefix}_pre1")
        steps = [self._candidates(channels, strides) for strides in (1, 2)]
        return choose.cell(
            "reduction" if halves else "normal",
            [state0, state1],
            lambda state: steps[1] if halves and state < 2 else steps[0],
            nodes=self.nodes,
            prefix=prefix,
        )

    def _candidates(self, channels: int, strides: int) -> Mapping[str, Operation]:
        candidates: dict[str, Operation] = {
            "identity": partial(
                identity, filters=channels, strides=strides, activation=self.activation
            ),
            "max_pool_3x3": partial(max_pool, strides=strides),
            "average_pool_3x3": partial(average_pool, strides=strides),
            "zero": None,
        }
        for name, (kernel_size, dilation_rate) in _CONVOLUTIONS.items():
            candidates[name] = partial(
                _convolution,
                filters=channels,
                kernel_size=kernel_size,
                dilation_rate=dilation_rate,
                strides=strides,
                groups=self.groups,
                activation=self.activation,
            )
        return {name: candidates[name] for name in self.operations}


def _convolution(x: tf.Tensor, name: str, **settings: Any) -> tf.Tensor:
    return binary_conv(x, name=name, **settings)
