"""Operations of a flatbuffer: tensors and constants, order, bytes and memory."""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from larq_nas.graph.channels import divide
from larq_nas.graph.opaque import CONSTANT_BYTES, KIND_BYTES, TENSOR_BYTES
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
    """An operation of a flatbuffer, by its name such as `"LceBconv2d"`, and the call it is of."""

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
    """Return the shape of `area` rows of the channels of call `index`: of rank 4, as an image."""

    def constants(channels: Sequence[Any]) -> list[Constant]:
        whole = isinstance(channels[index], int)
        return [Constant(4 * rank, ("shape", area, channels[index]) if whole else None)]

    return constants


def shared(keys: Sequence[Hashable], constants: Constants) -> Constants:
    """Return constants that a file holds once, known by `keys`; the last is for any further."""

    def named(channels: Sequence[Any]) -> list[Constant]:
        return [
            constant
            if constant.same is not None
            else Constant(constant.bytes, (slot, keys[min(slot, len(keys) - 1)]))
            for slot, constant in enumerate(constants(channels))
        ]

    return named


def binary_constants(fusing: Fusing, index: int, packs: bool) -> Constants:
    """Return the constants of a binary convolution.

    If it `packs` its output, thresholds take the place of a multiplier and an offset.
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

    Some are outputs of calls that are `known` beforehand, with what they hold all over.
    """
    call, facts = fusing.network.calls[index], fusing.network.facts[index]
    offset = facts.bias or fusing.fused_kinds(index) & {"norm", "offset"}
    sizes = [int(weight.shape.num_elements()) for weight in call.layer.weights]
    stored = [read for read in fusing.inputs[index] if read in known]

    def constants(channels: Sequence[Any]) -> list[Constant]:
        outputs = channels[index]
        if stored:
            calls = fusing.network.calls
            return [Constant(4 * calls[i].area * channels[i], known[i]) for i in stored]
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


# What a file takes, and how much more some operations take: fitted as `TENSOR_BYTES`.
_FILE = 565
_MORE = {"LceBconv2d": 183, "CONCATENATION": 78}
# Two kernels of so few signs may be equal by chance; a file holds them once.
_FEW_BITS = 20
# The converter names a part of a split by its layer and a number, and cuts names.
_LONGEST_NAME, _NUMBER, _USUAL_NAME = 50, len("/split_10"), 31
# What the names of the two steps from inputs of 0 and 1 to signs are shorter by.
_SHORTER = 28


def flatbuffer_bytes(
    network: Network, operators: Sequence[Operator], channels: Sequence[Any]
) -> Any:
    """Return how many bytes the flatbuffer will have, given the channels of each call."""
    total: Any = _FILE + KIND_BYTES * len({operator.kind for operator in operators})
    named: dict[Hashable, list[Any]] = {}
    small: Counter[tuple[int, int]] = Counter()
    for operator in operators:
        total = total + len(operator.writes) * TENSOR_BYTES + _MORE.get(operator.kind, 0)
        if operator.kind == "SPLIT":
            layer = network.calls[operator.call].layer.name.rstrip("_0123456789")
            name = min(_LONGEST_NAME, len(layer) + _NUMBER)
            total = total + len(operator.writes) * (name - _USUAL_NAME)
        total = total - _SHORTER * sum(tensor.turned for tensor in operator.writes)
        for constant in operator.constants(channels):
            if isinstance(constant.bits, int) and constant.bits <= _FEW_BITS:
                small[constant.bits, constant.bytes] += 1
            elif constant.same is None:
                total = total + constant.bytes + CONSTANT_BYTES
            else:
                named.setdefault(constant.same, []).append(constant.bytes)
    for (signs, size), count in small.items():
        # Of so many kernels of random signs these are different; the file holds those.
        different = float(2**signs * -np.expm1(count * np.log1p(-(2.0**-signs))))
        total = total + round(different) * (size + CONSTANT_BYTES)
    for sizes in named.values():
        if all(isinstance(size, int) for size in sizes):
            total = total + sum(size + CONSTANT_BYTES for size in set(sizes))
            continue
        for number, size in enumerate(sizes):
            total = total + _is_new(size, sizes[:number]) * (size + CONSTANT_BYTES)
    return total


def _is_new(size: Any, earlier: Sequence[Any]) -> Any:
    """Return 1 where `size` is none of `earlier`, else 0."""
    new: Any = 1
    for other in earlier:
        if tf.is_tensor(size) or tf.is_tensor(other):
            differ = tf.not_equal(tf.cast(size, tf.float64), tf.cast(other, tf.float64))
            new = new * tf.cast(differ, tf.float64)
        else:
            new = new * np.not_equal(size, other)
    return int(new) if np.ndim(new) == 0 and not tf.is_tensor(new) else new


def peak_memory(network: Network, operators: Sequence[Operator], channels: Sequence[Any]) -> Any:
    """Return the most bytes of tensors alive at once in operations in order; no constants."""
    sizes: dict[Tensor, Any] = {}
    last = {tensor: step for step, operator in enumerate(operators) for tensor in operator.reads}
    alive: Any = 0
    peak: Any = 0
    for step, operator in enumerate(operators):
        for tensor in (*operator.reads, *operator.writes):
            if tensor not in sizes:
                sizes[tensor] = tensor.bytes(network, channels)
                alive = alive + sizes[tensor]
        peak = _larger(peak, alive)
        for tensor in set(operator.reads):
            if last[tensor] == step:
                alive = alive - sizes[tensor]
    return peak


def order(network: Network, operators: Sequence[Operator]) -> list[Operator]:
    """Return the operations in the order the converter puts them: depth first, by name."""
    readers: dict[Tensor, list[int]] = {}
    for number, operator in enumerate(operators):
        for tensor in operator.reads:
            readers.setdefault(tensor, []).append(number)
    written = {tensor for operator in operators for tensor in operator.writes}
    starts = [n for n, operator in enumerate(operators) if not set(operator.reads) & written]
    done: list[int] = []
    entered: set[int] = set()
    stack = [(number, False) for number in _by_name(network, operators, starts)]
    while stack:
        number, leaving = stack.pop()
        if leaving:
            done.append(number)
        elif number not in entered:
            entered.add(number)
            stack.append((number, True))
            following = {n for tensor in operators[number].writes for n in readers.get(tensor, [])}
            stack += [(n, False) for n in _by_name(network, operators, following - entered)]
    return [operators[number] for number in reversed(done)]


def _by_name(network: Network, operators: Sequence[Operator], numbers: Any) -> list[int]:
    return sorted(numbers, key=lambda n: (network.calls[operators[n].call].name, n))


def _larger(one: Any, other: Any) -> Any:
    if isinstance(one, tf.Tensor) or isinstance(other, tf.Tensor):
        return tf.maximum(tf.cast(one, tf.float64), tf.cast(other, tf.float64))
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.maximum(one, other)
    return max(one, other)


def without_twice_reshaped(operators: Sequence[Operator]) -> list[Operator]:
    """Return the operations with reshapes of what was just reshaped as one, or as none.

    A convolution over rows reads images of height 1, and so does the one that follows.
    """
    read: Counter[Tensor] = Counter(tensor for op in operators for tensor in op.reads)
    writers: dict[Tensor, Operator] = {}
    same: dict[Tensor, Tensor] = {}
    kept: list[Operator] = []
    for operator in operators:
        operator = replace(operator, reads=tuple(same.get(t, t) for t in operator.reads))
        before = writers.get(operator.reads[0]) if operator.kind == "RESHAPE" else None
        if before is not None and before.kind == "RESHAPE" and read[before.writes[0]] == 1:
            kept.remove(before)
            operator = replace(operator, reads=before.reads)
            if before.reads[0].form == "image" and operator.writes[0].form.startswith("image for"):
                same[operator.writes[0]] = before.reads[0]
                continue
        kept.append(operator)
        writers |= dict.fromkeys(operator.writes, operator)
    return kept
