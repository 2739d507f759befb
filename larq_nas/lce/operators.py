"""Operations of a flatbuffer, their tensors and their constants."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import tensorflow as tf

from larq_nas.graph.channels import divide
from larq_nas.lce.fusing import Fusing
from larq_nas.lce.network import WEIGHTED, Network


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


# Numbers for each axis, that of the images too.
_INDICES = {"reshape": 1, "pad": 2}
_GLOBAL_POOLS = ("global_average_pool", "global_max_pool")


def vector(index: int) -> Constants:
    """Return a number for each channel of the output of call `index`."""
    return lambda channels: [Constant(4 * channels[index])]


def numbers(count: int) -> Constants:
    """Return a constant of so many numbers."""
    return lambda channels: [Constant(4 * count)]


def known(count: int, *held: Any) -> Constants:
    """Return a constant of so many numbers, known by what it holds: files hold it once."""
    return lambda channels: [Constant(4 * count, held)]


def shape_of(area: int, index: int, rank: int) -> Constants:
    """Return the shape of rows of `area` positions and the channels of call `index`.

    # Arguments
        area: number of rows.
        index: index of the call.
        rank: how many numbers it has: 4 for an image of height 1.
    """

    def constants(channels: Sequence[Any]) -> list[Constant]:
        whole = isinstance(channels[index], int)
        return [Constant(4 * rank, ("shape", area, channels[index]) if whole else None)]

    return constants


def shared(keys: Sequence[Hashable], constants: Constants) -> Constants:
    """Return constants that several operations may hold, known by keys: the file holds them once.

    # Arguments
        keys: what each constant is known by; the last holds for any further.
        constants: the constants.
    """

    def named(channels: Sequence[Any]) -> list[Constant]:
        found = constants(channels)
        return [
            constant
            if constant.same is not None
            else Constant(constant.bytes, (slot, keys[min(slot, len(keys) - 1)]))
            for slot, constant in enumerate(found)
        ]

    return named


def binary_constants(fusing: Fusing, index: int, packs: bool) -> Constants:
    """Return the constants of a binary convolution.

    # Arguments
        fusing: what fuses with what.
        index: index of the call.
        packs: whether its output is bits: then thresholds take the place of a multiplier and
            an offset.
    """
    call, facts = fusing.network.calls[index], fusing.network.facts[index]
    fused = fusing.fused_kinds(index)
    scaled = bool(fused & {"norm", "scale"}) or facts.kernel_scale != "ones"
    moved = bool(fused & {"norm", "offset"}) or facts.bias
    height, _ = fusing.network.levels(index) or (None, 0)
    around = fusing.network.borders.get(index)
    twice = bool(around and around.doubles)
    taps = facts.taps
    if around:
        taps = math.prod(taken.stop - taken.start for taken in around.taps)
    size = 0.5 if twice else 1.0
    multiplier = None if scaled else size if height is None else size * height / 2
    offset = 0.0 if height is None and not moved else None

    def constants(channels: Sequence[Any]) -> list[Constant]:
        outputs = divide(channels[index], facts.groups)
        inputs = divide(channels[call.inputs[0]], facts.groups) * (1 + twice)
        kernel = Constant(4 * taps * outputs * words(inputs), bits=taps * outputs * inputs)
        if packs:
            # Half of the sum, if nothing is fused behind.
            plain = not (scaled or moved or height is not None or around)
            half = ("half", taps * inputs) if plain and isinstance(inputs, int) else None
            return [kernel, Constant(4 * outputs, half)]
        return [kernel, Constant(4 * outputs, multiplier), Constant(4 * outputs, offset)]

    return constants


def separable_constants(fusing: Fusing, index: int) -> tuple[Constants, Constants]:
    """Return the constants of a separable convolution's two convolutions."""
    facts, read = fusing.network.facts[index], fusing.network.calls[index].inputs[0]

    def depthwise(channels: Sequence[Any]) -> list[Constant]:
        wide = channels[read] * facts.multiplier
        return [Constant(4 * facts.taps * wide), Constant(4 * wide, 0.0)]

    def pointwise(channels: Sequence[Any]) -> list[Constant]:
        wide = channels[read] * facts.multiplier
        return [Constant(4 * wide * channels[index]), Constant(4 * channels[index])]

    return depthwise, pointwise


def plain_constants(fusing: Fusing, index: int, known: Mapping[int, float | None]) -> Constants:
    """Return the constants of an operation that is not binary.

    # Arguments
        fusing: what fuses with what.
        index: index of the call.
        known: the calls whose outputs do not depend on the image, and what they hold all over.
    """
    call, facts = fusing.network.calls[index], fusing.network.facts[index]
    offset = facts.bias or fusing.fused_kinds(index) & {"norm", "offset"}
    sizes = [int(weight.shape.num_elements()) for weight in call.layer.weights]
    stored = [read for read in fusing.inputs[index] if read in known]

    def constants(channels: Sequence[Any]) -> list[Constant]:
        outputs = channels[index]
        if stored:
            return [_stored(fusing, read, known[read], channels) for read in stored]
        if facts.kind in WEIGHTED:
            inputs = 1 if facts.kind == "depthwise" else channels[call.inputs[0]]
            kernel = divide(4 * facts.taps * inputs * outputs, facts.groups)
            if facts.kind == "dense" and not offset:
                return [Constant(kernel)]
            return [Constant(kernel), Constant(4 * outputs, None if offset else 0.0)]
        if facts.kind == "prelu":
            return [Constant(4 * outputs * (call.area if facts.vectors < 0 else 1))]
        if facts.kind in ("unknown", "converted") and call.first:
            return [Constant(4 * size) for size in sizes if size]
        if facts.kind in _GLOBAL_POOLS:
            rank = len(fusing.network.calls[call.inputs[0]].shape) - 1
            return [Constant(4 * rank, "axes")]
        if facts.constants:
            return [Constant(4 * facts.constants)]
        if facts.kind == "crop":
            cut = getattr(call.layer, "cropping", index)
            rank = len(call.shape) + 1
            return [Constant(4 * rank, (of, cut)) for of in ("begin", "end")] + [
                Constant(4 * rank, "strides")
            ]
        indices = _INDICES.get(facts.kind)
        return [Constant(4 * indices * (len(call.shape) + 1))] if indices else []

    return constants


def _stored(fusing: Fusing, index: int, value: float | None, channels: Sequence[Any]) -> Constant:
    """Return the output of call `index` as a constant."""
    return Constant(4 * fusing.network.calls[index].area * channels[index], value)
