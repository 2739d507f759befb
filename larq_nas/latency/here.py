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

_TURNS, _PAUSE = 5, 0.2
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
            numbers. Their sum differs from the whole by some percent, as an operation finds
            other caches there.

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
        clock.warm_up(warmup_runs)
    for number in range(runs):
        if number % _TURNS == 0:
            # What slows the machine down for a moment then meets a few of the runs, not all.
            time.sleep(_PAUSE)
        for clock in clocks:
            clock.take_turn()
    return [network.latency() for network in timed]


class _Sample:
    """Times of one kind of run, in nanoseconds."""

    def __init__(self) -> None:
        self.times: list[int] = []
        self.waits: list[int] = []

    @property
    def undisturbed(self) -> np.ndarray:
        """Microseconds of the runs that no other program broke into, or of those nearest to that.

        Such a program leaves other caches behind, which a long run pays for and a short one,
        between two of them, does not.
        """
        waits = np.array(self.waits)
        fewest = np.sort(waits)[-(-len(waits) // _FEWEST) - 1]
        return np.array(self.times)[waits <= max(fewest, _NO_WAIT)] / 1000

    @property
    def median(self) -> float:
        return float(np.median(self.undisturbed))


class _Clock:
    """Times one model on random numbers, twice in each turn: after others, and after itself."""

    def __init__(self, flatbuffer: bytes, kernel: Kernel) -> None:
        self.interpreter = _load(flatbuffer, kernel)
        generator = np.random.default_rng(0)
        shapes, types = self.interpreter.input_shapes, self.interpreter.input_types
        self.inputs = [
            _random(generator, shape, np.dtype(kind))
            for shape, kind in zip(shapes, types, strict=True)
        ]
        self.after_others, self.after_itself = _Sample(), _Sample()

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


class _Network:
    """The clocks of a flatbuffer: with its operations and without, whole and in pieces."""

    def __init__(self, flatbuffer: bytes, kernel: Kernel, per_operation: bool) -> None:
        self.kernel = kernel
        self.whole = _Clock(flatbuffer, kernel), _Clock(hollow(flatbuffer), kernel)
        self.pieces: list[tuple[Piece, _Clock, _Clock]] = []
        for piece in cut(flatbuffer) if per_operation else []:
            clocks = _Clock(piece.hollow, kernel), _Clock(piece.model, kernel)
            self.pieces.append((piece, *clocks))
        self.clocks = [*self.whole, *(clock for _, *clocks in self.pieces for clock in clocks)]

    def latency(self) -> Latency:
        sample, without = (clock.after_itself for clock in self.whole)
        first, median, third = np.percentile(sample.undisturbed, (25, 50, 75))
        spread = float((third - first) / median)
        machine = _machine()
        return Latency(
            device=f"this machine ({machine})",
            kernel=self.kernel,
            threads=1,
            engine=_engine().__version__,
            microseconds=max(_LEAST, median - without.median),
            spread=spread,
            runs=len(sample.times),
            operations=[
                OperationLatency(piece.kind, piece.name, _alone(*clocks))
                for piece, *clocks in self.pieces
            ],
            warnings=_warnings(machine, self.kernel, spread),
        )


def _alone(without: _Clock, clock: _Clock) -> float:
    """Return what an operation takes, in microseconds.

    Between the operations of a network it finds its caches neither as it left them nor as
    empty as between models, each of which has memory of its own: so, the middle of both.
    """
    cold = clock.after_others.median - without.after_others.median
    warm = clock.after_itself.median - without.after_itself.median
    # What is shorter than the clock can tell comes out as anything around 0.
    return max(_LEAST, (cold + warm) / 2)


def _machine() -> str:
    machine = platform.machine()
    return "x86-64" if machine.lower() in _X86 else machine


def _warnings(machine: str, kernel: Kernel, spread: float) -> list[str]:
    warnings = []
    if machine == "x86-64" and kernel == "default":
        warnings.append("the default kernel is the slowest on x86-64: time the indirect one here")
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
