"""Proof that a flatbuffer computes what its Keras model computes, operation by operation.

A deep binary network turns one sign that rounding changed into other outputs altogether, so its
outputs alone tell little: a right flatbuffer can differ on every image, and a wrong one on few.
An operation alone has no such excuse. Each operation of the flatbuffer is therefore run by
itself, on tensors that hold what they hold in Keras, and what it writes is looked up among the
tensors of Keras:

- What equals one of them, but for rounding, is *matched*: from there on Keras's own numbers are
  used, so that no rounding is handed on.
- What equals none is a step between two tensors of Keras (a part of a split, the product of a
  batch norm): the engine's numbers are used until a matched tensor follows.

The flatbuffer is right if its outputs are matched with those of the model. Every operation that
leads to an output has then been run, from a tensor of Keras on, before whatever the converter
fused into it. That the whole does what its operations do is tested bit by bit.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_nas.deploy.causes import quantized_kernel
from larq_nas.deploy.flatbuffer import Operator, pack
from larq_nas.deploy.operations import Operations
from larq_nas.deploy.recording import LayerCall, Recording
from larq_nas.graph.quantizers import zero_one

# Of a channel's spread: what the sums of one operation may leave to rounding.
_EXACT = 1e-4
# Of a number: what float32 loses of it in a few operations.
_FLOAT32 = 5e-7
# Of a channel's largest number: what float32 keeps of it.
_RESOLUTION = 5e-6
# Of a channel's spread, or of its size if it hardly varies: rounding that is larger proves nothing.
_LARGEST_ROUNDING, _CONSTANT = 1e-2, 1e-4
# Rounding of the engine may turn as many signs as jitter of ten times its size, or a few more;
# where jitter turns more than this share, it proves nothing.
_FLIPS, _MOST_FLIPS = 3.0, 0.05
_SAMPLE = 256
_SMALLEST = 1e-37
_ALIKE = 0.7
_CONSTANT_OUTPUT = Operator("constant", "")


@dataclass(frozen=True)
class Equivalence:
    """Whether each operation of a flatbuffer computes what Keras computes.

    # Arguments
        kernel: the kernel that ran them.
        operations: how many operations lead to an output; each was compared.
        composed: whether the whole gives bit by bit what its operations give, one after another.
        equal: whether all outputs are matched with those of Keras.
        differing: if not, the layers that lead from what is matched to the first that is not, in
            order.
    """

    kernel: str
    operations: int
    composed: bool
    equal: bool
    differing: Sequence[tf.keras.layers.Layer] = ()

    @property
    def holds(self) -> bool:
        """Whether the flatbuffer computes what Keras computes."""
        return self.composed and self.equal


def compare_operations(
    recording: Recording,
    operations: Operations,
    images: Sequence[np.ndarray],
    whole: Sequence[np.ndarray] | None = None,
    lacking: Mapping[int, np.ndarray] | None = None,
) -> Equivalence:
    """Compare each operation of a flatbuffer with Keras.

    `whole` are the outputs of the whole flatbuffer, if the kernel runs here. `lacking` has, by id
    of a layer that is called once, the vector that its output in the flatbuffer lacks, as an
    offset is added later there. Outputs of the model lack nothing; and were the vector wrong, no
    operation would give what it leaves.
    """
    return _Comparison(recording, operations, images, lacking or {}).result(whole)


class _Comparison:
    """Runs the operations one by one, and matches what they write."""

    def __init__(
        self,
        recording: Recording,
        operations: Operations,
        images: Sequence[np.ndarray],
        lacking: Mapping[int, np.ndarray],
    ) -> None:
        self.recording, self.operations, self.images = recording, operations, images
        self.examples = len(images[0])
        self.candidates: dict[int, list[_Candidate]] = defaultdict(list)
        for candidate in _candidates(recording, images, lacking):
            self.candidates[candidate.values.size].append(candidate)
        # Keras's numbers where they are matched, the engine's elsewhere.
        self.values: dict[int, np.ndarray] = {}
        self.matched: set[int] = set()
        self.calls: set[int] = set()

    def result(self, whole: Sequence[np.ndarray] | None) -> Equivalence:
        """Return the comparison."""
        operations, steps = self.operations, self.operations.steps
        for index, image in zip(operations.inputs, self.images, strict=True):
            self.values[index] = image[:, None]
            self.matched.add(index)
        outputs = dict(zip(operations.outputs, self.recording.outputs, strict=True))
        for index, values in operations.constant_outputs(self.examples).items():
            self._match(_CONSTANT_OUTPUT, index, values, outputs[index])
        last = {read: step.index for step in steps for read in step.reads}
        for step in steps:
            written = operations.run(step, self.values, self.examples)
            for index, values in zip(step.writes, written, strict=True):
                self.values[index] = self._match(step, index, values, outputs.get(index))
            for index in step.reads:
                if last[index] == step.index and index not in outputs:
                    del self.values[index]
        equal = self.matched.issuperset(outputs)
        return Equivalence(
            operations.kernel,
            operations=self._leading(),
            composed=whole is None or _same(operations.chain(self.images), whole),
            equal=equal,
            differing=() if equal else self._differing(),
        )

    def _match(
        self, step: Operator, index: int, values: np.ndarray, output: tf.Tensor | None
    ) -> np.ndarray:
        """Return Keras's numbers for what an operation wrote; its own, if Keras has none.

        # Arguments
            step: the operation.
            index: the tensor it wrote.
            values: what it wrote, first axis the examples.
            output: the output of the model that the tensor has to be, if it is one.
        """
        quantization = self.operations.quantization(index) if step.writes else None
        if quantization is not None and values.dtype == np.int8:
            return self._match_int8(index, values, output, *quantization)
        if step.kind == "LceQuantize" and self.matched.issuperset(step.reads):
            # Signs of Keras's own numbers: there is no rounding that could excuse a single one.
            given = self.values[step.reads[0]]
            if given.dtype == np.float32 and np.array_equal(values, pack(given < 0)):
                self.matched.add(index)
            return values
        alike = [
            candidate
            for candidate in self._alike(values)
            if output is None or (candidate.tensor is output and not candidate.function)
        ]
        # All that are equal: a tensor and its sign are the same bits. The nearest comes first: a
        # small offset is less than rounding may change, but not less than what it changes.
        equal = [c for c in alike if c.equals(values) and self._may_turn(c, values)]
        equal = sorted(equal, key=lambda c: c.distance(values))
        if not equal:
            equal = list(islice((c for c in alike if self._rounds_to(c, values)), 1))
        if not equal:
            return values
        self.matched.add(index)
        self.calls.update(candidate.call for candidate in equal)
        return equal[0].in_form_of(values)

    def _match_int8(
        self,
        index: int,
        values: np.ndarray,
        output: tf.Tensor | None,
        scale: float,
        zero_point: int,
    ) -> np.ndarray:
        """Return the numbers of fake-quant for what an operation wrote in int8, if it wrote them.

        Two ways to round may differ by one step, and by no more.
        """
        numbers = scale * (values.astype("float32") - zero_point)
        found = [
            candidate
            for candidate in self.candidates.get(values.size, ())
            if (output is None or candidate.tensor is output)
            and candidate.values.dtype.kind == "f"
            and np.all(np.abs(candidate.rows() - candidate.rows(numbers)) <= 1.01 * scale)
        ]
        if not found:
            return values
        self.matched.add(index)
        self.calls.update(candidate.call for candidate in found)
        nearest = min(found, key=lambda c: float(np.abs(c.rows() - c.rows(numbers)).mean()))
        steps = np.round(nearest.values.reshape(values.shape) / scale) + zero_point
        return np.clip(steps, -128, 127).astype("int8")

    def _alike(self, values: np.ndarray) -> Iterator["_Candidate"]:
        """Yield the candidates that are like `values` in most of a sample of places."""
        if values.dtype == np.int32:
            # Words of 32 signs: all that has as many positions, and channels for these words.
            positions, words = values.size // values.shape[-1], values.shape[-1]
            sizes = [positions * channels for channels in range(32 * words - 31, 32 * words + 1)]
        else:
            sizes = []
        for size in dict.fromkeys([*sizes, values.size]):
            for candidate in self.candidates.get(size, ()):
                if candidate.is_like(values):
                    yield candidate

    def _may_turn(self, candidate: "_Candidate", values: np.ndarray) -> bool:
        """Return whether rounding explains each packed sign that is not the candidate's.

        It does where jitter moves Keras's number, and by enough to take it past 0. A sum of signs
        that is exactly 0 stays 0, and so does what a ReLU or a mask gives: such a sign is +1.
        """
        turned = candidate.turned(values)
        if not turned.any():
            return True
        moves = np.zeros_like(candidate.rows())
        for moved in self._jittered(candidate):
            moves = np.maximum(moves, np.abs(candidate.rows(moved) - candidate.rows()))
        return bool(np.all(moves[turned] > 0.1 * np.abs(candidate.rows()[turned])))

    def _jittered(self, candidate: "_Candidate") -> list[np.ndarray]:
        """Return the numbers of a candidate as other roundings might give them."""
        if candidate.tensor is None or candidate.values.dtype.kind != "f":
            return []
        found = self.recording.jittered(candidate.tensor, self.calls - {candidate.call})
        return [candidate.function(moved) if candidate.function else moved for moved in found]

    def _rounds_to(self, candidate: "_Candidate", values: np.ndarray) -> bool:
        """Return whether rounding explains what differs between `values` and a candidate.

        Keras computes the candidate anew, from what is matched, with numbers and weights moved
        by 1e-6. What that moves in a channel is what rounding may move, as long as it is small
        beside the channel's spread. What it moves further (numbers behind a sign that turned)
        may be as frequent in `values`, channel by channel.
        """
        # No jitter could explain more than this, and jitter takes long.
        if np.any(candidate.farther(values).mean(axis=0) > _FLIPS * _MOST_FLIPS):
            return False
        jittered = self._jittered(candidate)
        if not jittered or not all(np.isfinite(moved).all() for moved in jittered):
            return False
        if candidate.is_packed_in(values):
            negative = candidate.rows() < 0
            differing = candidate.turned(values)
            others = [(candidate.rows(moved) < 0) != negative for moved in jittered]
        else:
            moves = [np.abs(candidate.rows(moved) - candidate.rows()) for moved in jittered]
            usual = np.quantile(np.concatenate(moves), 0.9, axis=0)
            # A number may move as far as jitter moves it, such as a probability near 0.
            most = np.maximum(usual, np.max(moves, axis=0))
            limit = np.maximum(candidate.tolerance, np.minimum(10 * most, candidate.near))
            differing = candidate.differing(values, limit)
            others = [move > limit for move in moves]
        turned = np.mean([other.mean(axis=0) for other in others], axis=0)
        allowed = np.where(turned <= _MOST_FLIPS, _FLIPS * turned, 0.0)
        return bool(np.all(differing.mean(axis=0) <= allowed))

    def _leading(self) -> int:
        """Return how many operations lead to an output."""
        makers = {index: step for step in self.operations.steps for index in step.writes}
        found: set[int] = set()
        waiting = list(self.operations.outputs)
        while waiting:
            step = makers.get(waiting.pop())
            if step and step.index not in found:
                found.add(step.index)
                waiting += step.reads
        return len(found)

    def _differing(self) -> list[tf.keras.layers.Layer]:
        """Return the layers between matched tensors and the first output that is not matched."""
        recording = self.recording
        found = {
            recording.makers[id(output)]
            for index, output in zip(self.operations.outputs, recording.outputs, strict=True)
            if index not in self.matched and id(output) in recording.makers
        }
        waiting = [read for number in found for read in recording.read(number)]
        while waiting:
            number = waiting.pop()
            if number not in found and number not in self.calls:
                found.add(number)
                waiting += recording.read(number)
        return [recording.calls[number].layer for number in sorted(found)]


def _same(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> bool:
    """Return whether outputs are equal bit by bit, but for their shapes."""
    return all(
        np.array_equal(a.ravel(), b.ravel(), equal_nan=a.dtype.kind == "f")
        for a, b in zip(one, other, strict=True)
    )


@dataclass(frozen=True)
class _Candidate:
    """A tensor of Keras that one of the flatbuffer may hold.

    # Arguments
        values: its numbers, first axis the examples, last axis the channels.
        call: number of the layer call that gave it; -1 for an input of the model.
        tensor: the tensor in Keras; `None` for an input of the model.
        function: what it is of that tensor, such as the sign that a quantizer takes; `None` if it
            is the tensor itself.
        rounding: what rounding may change in each channel, where it is more than usual.
    """

    values: np.ndarray = field(repr=False)
    call: int
    tensor: tf.Tensor | None = field(default=None, repr=False)
    function: Callable[[np.ndarray], np.ndarray] | None = None
    rounding: np.ndarray | float = field(default=0.0, repr=False)

    def rows(self, values: np.ndarray | None = None) -> np.ndarray:
        """Return its numbers, or others in their place, shape `(positions, channels)`."""
        rows: np.ndarray = (self.values if values is None else values).reshape(
            -1, self.values.shape[-1]
        )
        return rows

    @cached_property
    def spread(self) -> np.ndarray:
        """By how much each channel varies."""
        return self.rows().std(axis=0)

    @cached_property
    def tolerance(self) -> np.ndarray:
        """What the rounding of one operation may change, for each channel."""
        largest = np.abs(self.rows()).max(axis=0)
        tolerance: np.ndarray = _EXACT * self.spread + _RESOLUTION * largest
        return np.maximum(tolerance, self.rounding)

    @cached_property
    def _places(self) -> np.ndarray:
        """A sample of positions."""
        positions = len(self.rows())
        generator = np.random.default_rng(positions)
        return generator.choice(positions, min(positions, _SAMPLE), replace=False)

    def is_like(self, values: np.ndarray) -> bool:
        """Return whether most of a sample of `values` is near its own."""
        if values.dtype.kind not in "fi" or self.values.dtype.kind != "f":
            return bool(values.dtype == self.values.dtype)
        rows = self._in_rows(values)
        if rows is None:
            return False
        places = self._places
        near = _within(self.rows()[places], rows[places], self.near)
        return bool(near.mean() >= _ALIKE)

    @cached_property
    def near(self) -> np.ndarray:
        """What rounding may change at the most, for each channel."""
        largest = np.abs(self.rows()).max(axis=0)
        varies = self.spread > _CONSTANT * largest
        near: np.ndarray = _LARGEST_ROUNDING * np.where(varies, self.spread, largest)
        return np.maximum(near, self.rounding)

    def equals(self, values: np.ndarray) -> bool:
        """Return whether `values` are its own, but for the rounding of one operation."""
        if self.values.dtype.kind != "f" or values.dtype.kind not in "fi":
            return np.array_equal(self.values.ravel(), values.ravel())
        return not self.differing(values, self.tolerance).any()

    def distance(self, values: np.ndarray) -> float:
        """Return how far `values` are from its own on average, in units of what is allowed."""
        rows = self._in_rows(values)
        if rows is None or rows.dtype.kind != "f" or self.values.dtype.kind != "f":
            return float(self.turned(values).mean())
        allowed = np.maximum(self.tolerance, np.finfo("float32").tiny)
        return float(np.mean(np.abs(self.rows() - rows) / allowed))

    def is_packed_in(self, values: np.ndarray) -> bool:
        """Return whether `values` are signs of as many numbers, packed."""
        rows = self._in_rows(values)
        return rows is not None and rows.dtype == bool and self.values.dtype.kind == "f"

    def turned(self, values: np.ndarray) -> np.ndarray:
        """Return which packed signs are not its own; none of numbers."""
        if not self.is_packed_in(values):
            return np.zeros_like(self.rows(), dtype=bool)
        return np.asarray(self._in_rows(values) != (self.rows() < 0))

    def farther(self, values: np.ndarray) -> np.ndarray:
        """Return where `values` are further away than any rounding, or other signs."""
        if self.is_packed_in(values):
            return self.turned(values)
        return self.differing(values, np.maximum(self.tolerance, self.near))

    def differing(self, values: np.ndarray, limit: np.ndarray) -> np.ndarray:
        """Return where `values` are further away than `limit`, shape `(positions, channels)`."""
        rows = self._in_rows(values)
        if rows is None:
            return np.ones_like(self.rows(), dtype=bool)
        return ~_within(self.rows(), rows, limit)

    def _in_rows(self, values: np.ndarray) -> np.ndarray | None:
        """Return numbers or unpacked signs, shape `(positions, channels)`; `None` if they are of
        another shape."""
        channels = self.values.shape[-1]
        if values.dtype != np.int32:
            return self.rows(values) if values.size == self.values.size else None
        if -(-channels // 32) != values.shape[-1]:
            # A vector that became an image of one position.
            channels = self.values.size // (values.size // values.shape[-1])
            return None if channels != self.values.shape[-1] else self.rows(values)
        octets = np.ascontiguousarray(values).view("u1").reshape(-1, 4 * values.shape[-1])
        bits = np.unpackbits(octets, axis=-1, bitorder="little")
        if bits[:, channels:].any():
            return None  # Signs of more channels than it has.
        bits = bits[:, :channels]
        return bits.astype(bool) if bits.size == self.values.size else None

    def in_form_of(self, values: np.ndarray) -> np.ndarray:
        """Return its numbers, or their signs packed, in the form of `values`."""
        if self.is_packed_in(values):
            return pack(self.rows() < 0).reshape(values.shape)
        own = self.values.reshape(values.shape).astype(values.dtype)
        # The engine's zeros stay: 0 and -0.0 are equal, but not to a kernel that packs signs. So
        # does what is added to 0 alone, as for a sign that is -1 there.
        return np.where((own == 0) & (np.abs(values) <= _SMALLEST), values, own)


def _within(expected: np.ndarray, got: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Return where numbers, or signs of numbers, are those that are expected."""
    if got.dtype == bool:
        return (got == (expected < 0)) | (np.abs(expected) <= limit)
    # Not a number is within no limit.
    return np.asarray(np.abs(expected - got) <= limit)


def _candidates(
    recording: Recording, images: Sequence[np.ndarray], lacking: Mapping[int, np.ndarray]
) -> Iterator[_Candidate]:
    """Yield the tensors that those of a flatbuffer may be."""
    examples = len(images[0])
    for image in images:
        yield _Candidate(image, -1)
    roundings = _roundings(recording)
    for number, call in enumerate(recording.calls):
        for tensor in call.outputs:
            if tensor.shape.rank and tensor.shape[0] == examples:
                yield _Candidate(tensor.numpy(), number, tensor, rounding=roundings[number])
                if id(call.layer) in lacking:
                    yield _without(tensor, number, lacking[id(call.layer)], roundings[number])
        for tensor, function in _taken(call):
            values = function(tensor.numpy())
            # The call itself is not what was matched, but what it makes of its input.
            yield _Candidate(values, -1, tensor, function)


def _without(
    tensor: tf.Tensor, call: int, vector: np.ndarray, rounding: np.ndarray | float
) -> _Candidate:
    """Return a tensor of Keras without an offset that the flatbuffer adds later.

    Keras rounds numbers that have the offset.
    """

    def function(x: np.ndarray) -> np.ndarray:
        return np.asarray((x - vector).astype("float32"))

    values = tensor.numpy()
    largest = np.abs(values).reshape(-1, len(vector)).max(axis=0)
    rounding = rounding + _FLOAT32 * np.maximum(largest, np.abs(vector))
    return _Candidate(function(values), call, tensor, function, rounding)


def _roundings(recording: Recording) -> list[np.ndarray | float]:
    """Return for each call what rounding leaves of differences of large numbers, by channel.

    A sum of signs may be near 0 in every image; and a channel that never varies has a variance of
    0: what float32 loses of its number and its mean is then multiplied by hundreds, and is more
    than what is left of their difference.
    """
    found: list[np.ndarray | float] = []
    for call in recording.calls:
        maker = recording.makers.get(id(call.inputs[0])) if len(call.inputs) == 1 else None
        before = 0.0 if maker is None or maker >= len(found) else found[maker]
        rounding = _rounding(call, before)
        fits = np.ndim(rounding) == 0 or len(rounding) == call.outputs[0].shape[-1]
        found.append(rounding if fits else 0.0)
    return found


def _rounding(call: LayerCall, before: np.ndarray | float) -> Any:
    """Return that of one call, from that of the call before it."""
    layer = call.layer
    if isinstance(layer, lq.layers.QuantConv2D) and layer.kernel_quantizer:
        # Kernels count signs that differ, and take twice that from the number of all signs.
        return _FLOAT32 * np.abs(quantized_kernel(layer)).sum(axis=(0, 1, 2))
    if isinstance(layer, tf.keras.layers.BatchNormalization):
        x, mean = call.inputs[0].numpy(), layer.moving_mean.numpy()
        if x.shape[-1] != len(mean):
            return 0.0
        size = np.abs(x).reshape(-1, len(mean)).max(axis=0) + np.abs(mean)
        scale = 1.0 if layer.gamma is None else np.abs(layer.gamma.numpy())
        deviation = np.sqrt(layer.moving_variance.numpy() + layer.epsilon)
        return scale / deviation * (_FLOAT32 * size + before)
    keeps = not layer.weights or isinstance(layer, tf.keras.layers.PReLU)
    return before if keeps else 0.0


def _taken(
    call: LayerCall,
) -> Iterator[tuple[tf.Tensor, Callable[[np.ndarray], np.ndarray]]]:
    """Yield what a layer makes of its input that is no output of a layer, and how.

    For a quantizer to 0 and 1 that is `threshold - x`, of which the engine takes the sign; for a
    quantizer that is a function, what it gives.
    """
    if not call.inputs or not call.inputs[0].dtype.is_floating:
        return
    levels = zero_one(call.layer)
    if levels is not None:
        yield call.inputs[0], lambda x: levels[1] - x
    quantizer = getattr(call.layer, "input_quantizer", None)
    if quantizer is not None and not isinstance(quantizer, tf.keras.layers.Layer):
        yield call.inputs[0], lambda x: np.asarray(quantizer(tf.constant(x)))
