"""Real layers that run in int8, their ranges, and the borders to float."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Literal

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from larq_nas.deploy.flatbuffer import operation, read_model, values, write_model
from larq_nas.layers.conv import is_exporting
from larq_nas.lce.fusing import Fusing
from larq_nas.lce.network import WEIGHTED

__all__ = ["NAMES", "Grid", "Grids", "Int8", "border", "real_layers", "without_borders"]


Int8 = Literal["ends", "all"]
"""Which part of a network runs in int8."""

NAMES = ("ends", "all")


def real_layers(fusing: Fusing, which: Int8) -> list[int]:
    """Return the calls of the real layers that are to run in int8.

    `"ends"` are those that no binary layer stands before, or none behind.

    # Arguments
        fusing: the network, with what fuses in it.
        which: which of them.
    """
    network = fusing.network
    calls = range(len(network.calls))
    weighted = [index for index in calls if fusing.kind(index) in WEIGHTED]
    binary = {index for index in weighted if network.binary(index)}
    real = [index for index in weighted if index not in binary]
    if which == "all":
        return real
    before = _reached(binary, fusing, forward=True)
    behind = _reached(binary, fusing, forward=False)
    return [index for index in real if index not in before or index not in behind]


def _reached(starts: set[int], fusing: Fusing, forward: bool) -> set[int]:
    """Return the calls behind `starts`, or before them."""
    reached = set(starts)
    waiting = list(starts)
    while waiting:
        index = waiting.pop()
        near = fusing.readers.get(index, []) if forward else fusing.inputs[index]
        waiting += set(near) - reached
        reached |= set(near)
    return reached


# No network computes with it by chance.
_MARK = np.float32(3.0718e37)
_FIXED = ("SOFTMAX", "LOGISTIC", "TANH")
# Operations that give numbers as they are, of one input.
_MOVES = ("RESHAPE", "SPLIT", "TRANSPOSE", "STRIDED_SLICE", "UNPACK", "SQUEEZE", "EXPAND_DIMS")


def border(x: tf.Tensor) -> tf.Tensor:
    """Return `x`; traced for the converter, behind an operation that marks a border."""
    return tf.math.floormod(x, _MARK) if is_exporting() else x


def without_borders(flatbuffer: bytes) -> bytes:
    """Return a flatbuffer without the operations that mark borders.

    The converter also rounds the output of a softmax, sigmoid or tanh by itself, as it knows their
    range. Within a layer in float, such as an attention, that rounding is removed.
    """
    model = read_model(flatbuffer)
    graph = model.subgraphs[0]
    kinds = [operation(model, op) for op in graph.operators]
    made = {int(out): n for n, op in enumerate(graph.operators) for out in op.outputs}
    readers: dict[int, list[int]] = {}
    for number, op in enumerate(graph.operators):
        for index in op.inputs:
            readers.setdefault(int(index), []).append(number)
    replaced: dict[int, int] = {}
    dropped: set[int] = set()
    for number, op in enumerate(graph.operators):
        source = int(op.inputs[0]) if len(op.inputs) else -1
        if kinds[number] == "FLOOR_MOD":
            if _is_mark(values(model, graph.tensors[op.inputs[1]])):
                replaced[int(op.outputs[0])] = source
                dropped.add(number)
            continue
        rounds = kinds[number] == "QUANTIZE" and kinds[made.get(source, number)] in _FIXED
        moved, ends = _moved(graph, kinds, readers, int(op.outputs[0])) if rounds else ([], [])
        if ends:
            replaced[int(op.outputs[0])] = source
            for index in moved:
                graph.tensors[index].type = schema.TensorType.FLOAT32
                graph.tensors[index].quantization = None
            for end in ends:
                replaced[int(graph.operators[end].outputs[0])] = int(graph.operators[end].inputs[0])
            dropped |= {number, *ends}
    graph.operators = [op for number, op in enumerate(graph.operators) if number not in dropped]
    for op in graph.operators:
        op.inputs = [_first(replaced, int(index)) for index in op.inputs]
    graph.outputs = [_first(replaced, int(index)) for index in graph.outputs]
    for signature in model.signatureDefs or []:
        for entry in signature.outputs:
            entry.tensorIndex = _first(replaced, entry.tensorIndex)
    return write_model(model)


def _moved(
    graph: schema.SubGraphT, kinds: list[str], readers: dict[int, list[int]], start: int
) -> tuple[list[int], list[int]]:
    """Return the tensors that numbers of `start` are moved to, and the DEQUANTIZEs behind them.

    Nothing, if something computes with them in int8.
    """
    moved, ends = [start], set[int]()
    for index in moved:
        for reader in readers.get(index, []):
            if kinds[reader] == "DEQUANTIZE":
                ends.add(reader)
            elif kinds[reader] in _MOVES and index not in graph.outputs:
                outputs = map(int, graph.operators[reader].outputs)
                moved += [output for output in outputs if output not in moved]
            else:
                return [], []
    return moved, sorted(ends)


def _first(replaced: dict[int, int], index: int) -> int:
    while index in replaced:
        index = replaced[index]
    return index


def _is_mark(constant: np.ndarray | None) -> bool:
    return constant is not None and constant.size == 1 and constant.reshape(-1)[0] == _MARK


_STEPS = 255
# Where only the sign of a number is read, a narrower range rounds those near 0 more finely,
# and what it cuts off keeps its sign.
_SIGNS_ALONE = 1 / 16
# Binary convolutions give integers, times a scale: in steps that are a simple fraction of it,
# many lie in the middle between two steps, where each kernel rounds them all to its own side.
_OFF_MIDDLE = 1.002
# Kernels hold biases in whole steps too, and round halves to another side.
_JITTER, _SEED = 0.02, 8


class Grid:
    """Rounds a tensor to int8, once its range is known.

    # Arguments
        grids: what it is one of.
        signs_alone: whether only the signs of the tensor are read.
        exact: whether the tensor is float before, so that kernels round it as TensorFlow does.
        fixed: its range, if that is the same for all images.
    """

    def __init__(
        self,
        grids: "Grids",
        signs_alone: bool = False,
        exact: bool = False,
        fixed: tuple[float, float] | None = None,
    ) -> None:
        self._grids, self._signs_alone, self._exact = grids, signs_alone, exact
        self._fixed = fixed is not None
        self.seen = np.array(fixed or (0.0, 0.0))

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Return `x` rounded; while ranges are observed, note its range and return it."""
        if self._grids.mode == "observe":
            if not self._fixed:
                self.seen[0] = min(self.seen[0], tf.reduce_min(x))
                self.seen[1] = max(self.seen[1], tf.reduce_max(x))
            return x
        if self._grids.mode == "jitter" and not self._exact:
            seed = (_SEED, next(self._grids.draws))
            x = x + tf.random.stateless_uniform(tf.shape(x), seed, -_JITTER, _JITTER) * self.step
        return tf.quantization.fake_quant_with_min_max_vars(x, *self.range)

    @property
    def step(self) -> float:
        """What a number is rounded to a multiple of."""
        return self._step_and_zero()[0]

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest number that is kept; 0 is on the grid."""
        step, zero = self._step_and_zero()
        return -zero * step, (_STEPS - zero) * step

    def cut(self, x: np.ndarray) -> np.ndarray:
        """Return `x` within the range, where that is narrow on purpose."""
        return np.clip(x, *self.range) if self._signs_alone else x

    def _step_and_zero(self) -> tuple[float, int]:
        """Return the step, and how many there are below 0.

        Fake-quant moves a range until 0 is on its grid, and images from -1 to 1 then lie in the
        middle between two steps; a range that is a little wider has no such ties.
        """
        low, high = (float(end) for end in self.seen)
        if self._signs_alone:
            high = _SIGNS_ALONE * max(-low, high)
            low = -high
        # Of a tensor that is 0 nothing is known; a tiny step would make biases overflow.
        high = high if high > low else 1.0
        zero = round(-low * _STEPS / (high - low))
        below = -low / zero if zero else 0.0
        above = high / (_STEPS - zero) if zero < _STEPS else 0.0
        free = not self._exact and not self._fixed
        return max(below, above) * (_OFF_MIDDLE if free else 1.0), zero


class Grids:
    """All grids of a network; they observe ranges until they are set to round.

    # Attributes
        mode: `"observe"`, `"round"`, or `"jitter"`: round after moving numbers by a small part
            of a step, as kernels do that compute with integers alone.
        draws: numbers what is drawn at random, so that each conversion draws the same.
    """

    def __init__(self) -> None:
        self.mode = "observe"
        self.draws = count()
        self._all: list[Grid] = []

    def new(
        self,
        signs_alone: bool = False,
        exact: bool = False,
        fixed: tuple[float, float] | None = None,
    ) -> Grid:
        """Return another grid."""
        self._all.append(Grid(self, signs_alone, exact, fixed))
        return self._all[-1]

    def join(self, first: Grid, *others: Grid) -> Grid:
        """Let grids have one range from now on, and return the first."""
        joined = [id(other.seen) for other in others]
        for grid in self._all:
            if id(grid.seen) in joined:
                grid.seen = first.seen
        return first

    @contextmanager
    def jittering(self) -> Iterator[None]:
        """Move numbers at random before they are rounded."""
        self.mode, before = "jitter", self.mode
        try:
            yield
        finally:
            self.mode = before
