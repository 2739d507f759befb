"""Measures flatbuffers on this machine, through Larq Compute Engine's interpreter."""

import platform
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from larq_nas.deploy.parity import KERNELS, Kernel
from larq_nas.errors import ConversionError, first_line, require_whole, unknown_name
from larq_nas.latency.cut import Piece, cut, hollow
from larq_nas.latency.latency import Latency, OperationLatency

__all__ = ["measure_all_here", "measure_here"]

_ROUNDS = 10
_NOISY = 0.1
# Nanoseconds that reading two clocks may take, and the least share of runs to go by, one in 5.
_NO_WAIT, _FEWEST = 20_000, 5
_LEAST = 0.01
_X86 = ("x86_64", "amd64", "i386", "i686")


def measure_here(
    flatbuffer: bytes,
    *,
    kernel: Kernel = "default",
    runs: int = 50,
    warmup_runs: int = 5,
    per_operation: bool = False,
) -> Latency:
    """Measure how long a flatbuffer takes on this machine, on one thread.

    The time is that of the processor, so that other processes count little. What a call of
    the interpreter takes without any operation is measured beside it, and left out.

    !!! example
        ```python
        conversion = larq_nas.convert(model)
        print(larq_nas.latency.measure_here(conversion.flatbuffer, kernel="indirect"))
        ```

    # Arguments
        flatbuffer: the converted model.
        kernel: the kernel of the binary convolutions: `"default"`, `"reference"` or
            `"indirect"`.
        runs: number of inferences to time.
        warmup_runs: number of inferences before those.
        per_operation: whether to time each operation too, as a model of its own on random
            numbers. Their sum is a little less than the whole: alone, an operation finds its
            caches as it left them.

    # Raises
        InputError: if an argument cannot be used.
        ConversionError: if the kernel cannot run the flatbuffer.
    """
    (latency,) = measure_all_here(
        [flatbuffer],
        kernel=kernel,
        runs=runs,
        warmup_runs=warmup_runs,
        per_operation=per_operation,
    )
    return latency


def measure_all_here(
    flatbuffers: Sequence[bytes],
    *,
    kernel: Kernel = "default",
    runs: int = 50,
    warmup_runs: int = 5,
    per_operation: bool = False,
) -> list[Latency]:
    """Measure several flatbuffers in turns, so that a drift of the machine meets all alike.

    # Arguments
        flatbuffers: the converted models.
        kernel: see `measure_here`.
        runs: see `measure_here`.
        warmup_runs: see `measure_here`.
        per_operation: see `measure_here`.
    """
    require_whole(runs=runs, warmup_runs=warmup_runs)
    if kernel not in KERNELS:
        raise unknown_name("kernel", kernel, KERNELS)
    timed = [_Network(flatbuffer, kernel, per_operation) for flatbuffer in flatbuffers]
    clocks = [clock for network in timed for clock in network.clocks]
    for clock in clocks:
        clock.run(warmup_runs)
    rounds = min(_ROUNDS, runs)
    for number in range(rounds):
        for clock in clocks:
            # The first run of a turn pays for what the others left in the caches.
            clock.run(1)
            clock.run(runs // rounds + (number < runs % rounds), keep=True)
    return [network.latency() for network in timed]


class _Clock:
    """Times one model on random numbers."""

    def __init__(self, flatbuffer: bytes, kernel: Kernel) -> None:
        self.interpreter = _load(flatbuffer, kernel)
        generator = np.random.default_rng(0)
        shapes, types = self.interpreter.input_shapes, self.interpreter.input_types
        self.inputs = [
            _random(generator, shape, np.dtype(kind))
            for shape, kind in zip(shapes, types, strict=True)
        ]
        self.times: list[int] = []
        self.waits: list[int] = []

    def run(self, times: int, keep: bool = False) -> None:
        predict, inputs = self.interpreter.predict, self.inputs
        for _ in range(times):
            before, start = time.perf_counter_ns(), time.thread_time_ns()
            predict(inputs)
            took, passed = time.thread_time_ns() - start, time.perf_counter_ns() - before
            if keep:
                self.times.append(took)
                self.waits.append(passed - took)

    @property
    def undisturbed(self) -> np.ndarray:
        """The times of the runs that no other program broke into, or of those nearest to that.

        Such a program leaves other caches behind, which a long run pays for and a short one,
        between two of them, does not.
        """
        waits = np.array(self.waits)
        fewest = np.sort(waits)[-(-len(waits) // _FEWEST) - 1]
        return np.array(self.times)[waits <= max(fewest, _NO_WAIT)] / 1000

    @property
    def microseconds(self) -> float:
        return float(np.median(self.undisturbed))


class _Network:
    """The clocks of a flatbuffer: with its operations and without, whole and in pieces."""

    def __init__(self, flatbuffer: bytes, kernel: Kernel, per_operation: bool) -> None:
        self.kernel = kernel
        self.whole = _Clock(flatbuffer, kernel), _Clock(hollow(flatbuffer), kernel)
        self.pieces: list[tuple[Piece, _Clock, _Clock]] = []
        for piece in cut(flatbuffer) if per_operation else []:
            clocks = _Clock(piece.model, kernel), _Clock(piece.hollow, kernel)
            self.pieces.append((piece, *clocks))

    @property
    def clocks(self) -> list[_Clock]:
        return [*self.whole, *(clock for _, *clocks in self.pieces for clock in clocks)]

    def latency(self) -> Latency:
        first, median, third = np.percentile(self.whole[0].undisturbed, (25, 50, 75))
        spread = float((third - first) / median)
        machine = _machine()
        return Latency(
            device=f"this machine ({machine})",
            kernel=self.kernel,
            threads=1,
            engine=_engine().__version__,
            microseconds=_difference(*self.whole),
            spread=spread,
            runs=len(self.whole[0].times),
            operations=[
                OperationLatency(piece.kind, piece.name, _difference(*clocks))
                for piece, *clocks in self.pieces
            ],
            warnings=_warnings(machine, spread),
        )


def _difference(clock: _Clock, without: _Clock) -> float:
    # What is shorter than the clock can tell comes out as anything around 0.
    return max(_LEAST, clock.microseconds - without.microseconds)


def _machine() -> str:
    machine = platform.machine()
    return "x86-64" if machine.lower() in _X86 else machine


def _warnings(machine: str, spread: float) -> list[str]:
    warnings = []
    if machine == "x86-64":
        warnings.append("x86-64 timings say nothing about ARM, not even which network is faster")
    if spread > _NOISY:
        warnings.append(
            f"half of the timings lie {spread:.0%} apart: end other programs, and measure again"
        )
    return warnings


def _load(flatbuffer: bytes, kernel: Kernel) -> Any:
    """Return the interpreter itself: Larq Compute Engine's wrapper copies what it is given."""
    try:
        return _engine().testing.Interpreter(flatbuffer, **KERNELS[kernel]).interpreter
    except (RuntimeError, ValueError) as error:
        raise ConversionError(
            f"The {kernel} kernel cannot run the flatbuffer ({first_line(error)}); "
            "give what larq_nas.convert made, and a kernel that it was checked with."
        ) from error


def _engine() -> Any:
    try:
        import larq_compute_engine
    except ImportError:
        raise ConversionError(
            "Measuring here needs larq-compute-engine, which is not installed here: "
            "pip install larq-compute-engine==0.16.0, or measure on a device."
        ) from None
    return larq_compute_engine


def _random(generator: np.random.Generator, shape: Sequence[int], kind: np.dtype) -> np.ndarray:
    if kind.kind == "f":
        return generator.standard_normal(shape).astype(kind)
    if kind.kind == "b":
        return generator.integers(0, 2, shape).astype(kind)
    limits = np.iinfo(kind)
    return generator.integers(limits.min, limits.max, shape, kind, endpoint=True)
