"""Times a model in Larq Compute Engine's interpreter."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from larq_nas.deploy.export import engine
from larq_nas.deploy.parity import KERNELS, Kernel
from larq_nas.errors import ConversionError, first_line

__all__ = ["Clock", "Sample"]

# Nanoseconds that reading two clocks may take, and the least share of runs to go by, one in 5.
_NO_WAIT, _FEWEST = 20_000, 5


class Sample:
    """Times of one kind of run, one for each turn, in nanoseconds."""

    def __init__(self) -> None:
        self.times: list[int] = []
        self.waits: list[int] = []

    def undisturbed(self, turns: np.ndarray) -> np.ndarray:
        """Return microseconds of the runs that no other program broke into, or the nearest to that.

        Such a program leaves other caches behind, which a long run pays for and a short one,
        between two of them, does not.

        # Arguments
            turns: indices of the turns to look at.
        """
        waits = np.array(self.waits)[turns]
        fewest = np.sort(waits)[-(-len(waits) // _FEWEST) - 1]
        return np.array(self.times)[turns][waits <= max(fewest, _NO_WAIT)] / 1000

    def median(self, turns: np.ndarray) -> float:
        """Return the median of those."""
        return float(np.median(self.undisturbed(turns)))


class Clock:
    """Times one model, twice in each turn: after others, and after itself.

    # Arguments
        flatbuffer: the model.
        kernel: the kernel of the binary convolutions.
        inputs: what it reads; by default random numbers.
    """

    def __init__(
        self, flatbuffer: bytes, kernel: Kernel, inputs: list[np.ndarray] | None = None
    ) -> None:
        self.interpreter = _load(flatbuffer, kernel)
        generator = np.random.default_rng(0)
        shapes, types = self.interpreter.input_shapes, self.interpreter.input_types
        self.inputs = inputs or [
            _random(generator, shape, np.dtype(kind))
            for shape, kind in zip(shapes, types, strict=True)
        ]
        self.after_others, self.after_itself = Sample(), Sample()

    def warm_up(self, runs: int) -> None:
        for _ in range(runs):
            self.interpreter.predict(self.inputs)

    def take_turn(self) -> None:
        for sample in (self.after_others, self.after_itself):
            before, start = time.perf_counter_ns(), time.thread_time_ns()
            self.interpreter.predict(self.inputs)
            took, passed = time.thread_time_ns() - start, time.perf_counter_ns() - before
            sample.times.append(took)
            sample.waits.append(passed - took)


def _load(flatbuffer: bytes, kernel: Kernel) -> Any:
    """Return the interpreter itself: Larq Compute Engine's wrapper copies what it is given."""
    try:
        return engine().testing.Interpreter(flatbuffer, **KERNELS[kernel]).interpreter
    except (RuntimeError, ValueError) as error:
        raise ConversionError(
            f"The {kernel} kernel cannot run the flatbuffer ({first_line(error)}); "
            "give what larq_nas.convert made, and a kernel that it was checked with."
        ) from error


def _random(generator: np.random.Generator, shape: Sequence[int], kind: np.dtype) -> np.ndarray:
    if kind.kind == "f":
        return generator.standard_normal(shape).astype(kind)
    if kind.kind == "b":
        return generator.integers(0, 2, shape).astype(kind)
    limits = np.iinfo(kind)
    return generator.integers(limits.min, limits.max, shape, kind, endpoint=True)
