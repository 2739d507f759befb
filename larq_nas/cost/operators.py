"""The operations of a flatbuffer, their tensors and their constants."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import tensorflow as tf

from larq_nas.cost.count import divide
from larq_nas.cost.network import Network

__all__ = [
    "Constant",
    "Constants",
    "Operator",
    "Tensor",
    "words",
]


@dataclass(frozen=True)
class Constant:
    """A constant of an operation.

    # Arguments
        bytes: its size.
        same: constants of the same size and the same name are equal, and the file holds them
            once: what it holds all over if that is one number, or where it comes from.
        bits: how many signs it is made of, if it is a binary kernel: two of few signs may be equal
            by chance.
    """

    bytes: Any
    same: Hashable = None
    bits: Any = None


Constants: TypeAlias = Callable[[Sequence[Any]], list[Constant]]
"""The constants for given numbers of channels of each call's output."""


@dataclass(frozen=True)
class Tensor:
    """A tensor in memory: the output of a call, in a form.

    # Arguments
        call: index of the call.
        form: `"float"`, `"bits"`, or a name of its own for what lies between operations.
        parts: into how many it is split along the channels.
        packed: whether 32 channels share a word.
        area: number of positions, if not that of the output.
        times: how often its channels are there.
    """

    call: int
    form: str = "float"
    parts: int = 1
    packed: bool = False
    area: int | None = None
    times: int = 1

    @property
    def turned(self) -> bool:
        """Whether it is one of the two steps from inputs of 0 and 1 to signs."""
        return self.form == "turned" or self.form.startswith("from ")

    def bytes(self, network: Network, channels: Sequence[Any]) -> Any:
        """Return its size, given the number of channels of each call's output."""
        wide = divide(channels[self.call], self.parts) * self.times
        area = network.calls[self.call].area if self.area is None else self.area
        return 4 * area * (words(wide) if self.packed else wide)


def bits(call: int) -> Tensor:
    """Return the signs of the output of `call`, 32 to a word."""
    return Tensor(call, "bits", packed=True)


@dataclass(frozen=True)
class Operator:
    """One operation of a flatbuffer.

    # Arguments
        kind: its name, such as `"LceBconv2d"`.
        call: index of the call it computes.
        reads: the tensors it reads.
        writes: the tensors it writes.
        constants: its constants.
    """

    kind: str
    call: int
    reads: tuple[Tensor, ...]
    writes: tuple[Tensor, ...]
    constants: Constants = lambda channels: []


def words(channels: Any) -> Any:
    """Return how many 32-bit words hold a bit of each channel; not rounded for tensors."""
    return channels / 32 if isinstance(channels, float | tf.Tensor) else -(-channels // 32)
