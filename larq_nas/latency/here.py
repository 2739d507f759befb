"""Measures flatbuffers on this machine, through Larq Compute Engine's interpreter."""

import platform
import time
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np

from larq_nas.deploy.export import engine
from larq_nas.deploy.flatbuffer import read_model
from larq_nas.deploy.parity import KERNELS, Kernel
from larq_nas.errors import require_whole, unknown_name
from larq_nas.latency.clock import Clock, Sample
from larq_nas.latency.cut import Piece, cut, hollow, values
from larq_nas.latency.latency import Latency, OperationLatency
from larq_nas.latency.read import signatures
from larq_nas.latency.signature import Signature

__all__ = ["measure_all_here", "measure_here"]

_TURNS, _PAUSE = 5, 0.2
_NOISY = 0.1
_LEAST = 0.01
_COPIES = 3
_REARRANGING = ("CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
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

    The time is that of the processor, so that other processes count little; and figures are
    those of the quicker half of the time it took, as machines slow down for seconds. What a call
    of the interpreter takes without any operation is measured beside it, and left out.

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
        per_operation: whether to time each operation too, as a model of its own on what it
            reads there for random images. Their sum differs from the whole by some percent, as
            an operation finds other caches there.

    # Raises
        InputError: if an argument cannot be used, or an operation cannot be timed alone.
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
    for flatbuffer in flatbuffers:
        read_model(flatbuffer)
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


class _Network:
    """The clocks of a flatbuffer: with its operations and without, whole and in pieces."""

    def __init__(self, flatbuffer: bytes, kernel: Kernel, per_operation: bool) -> None:
        self.kernel = kernel
        # Where its memory happens to lie can make one copy slow for as long as it lives.
        self.wholes = [Clock(flatbuffer, kernel) for _ in range(_COPIES)]
        self.hollow = Clock(hollow(flatbuffer), kernel)
        self.pieces: list[tuple[Piece, tuple[Clock, Clock]]] = []
        # Equal operations share their clocks: the fewer models, the nearer is the memory they
        # need together to that of the whole, and what it leaves in the caches.
        shared: dict[Signature, tuple[Clock, Clock]] = {}
        if per_operation:
            pieces = cut(flatbuffer)
            # Indices and counters among random numbers would lead outside of what they count.
            known = _values(flatbuffer, kernel)
            for piece, same in zip(pieces, signatures(flatbuffer), strict=True):
                if same not in shared:
                    given = [*(known[index] for index in piece.given), np.zeros(1, "float32")]
                    clocks = [Clock(one, kernel, given) for one in (piece.hollow, piece.model)]
                    shared[same] = clocks[0], clocks[1]
                self.pieces.append((piece, shared[same]))
        self.clocks = [*self.wholes, self.hollow, *chain.from_iterable(shared.values())]

    def _steady(self) -> np.ndarray:
        """Return the quicker half of the turns.

        Machines slow down for seconds, all they run alike: the medians of what is compared with
        each other must not be of other seconds.
        """
        times = [
            sample.times
            for clock in self.clocks
            for sample in (clock.after_others, clock.after_itself)
        ]
        totals = np.sum(times, axis=0)
        return np.argsort(totals, kind="stable")[: -(-len(totals) // 2)]

    def latency(self) -> Latency:
        turns = self._steady()
        samples = sorted((clock.after_itself for clock in self.wholes), key=_by_median(turns))
        sample = samples[len(samples) // 2]
        first, median, third = np.percentile(sample.undisturbed(turns), (25, 50, 75))
        spread = float((third - first) / median)
        machine = _machine()
        return Latency(
            device=f"this machine ({machine})",
            kernel=self.kernel,
            threads=1,
            engine=engine().__version__,
            microseconds=max(_LEAST, median - self.hollow.after_itself.median(turns)),
            spread=spread,
            runs=len(sample.times),
            operations=[
                OperationLatency(piece.kind, piece.name, _alone(piece.kind, *clocks, turns))
                for piece, clocks in self.pieces
            ],
            warnings=_warnings(machine, self.kernel, spread),
        )


def _values(flatbuffer: bytes, kernel: Kernel) -> dict[int, np.ndarray]:
    """Return what each tensor of a network holds for random images."""
    model, tensors = values(flatbuffer)
    clock = Clock(model, kernel)
    found = clock.interpreter.predict(clock.inputs)
    return {index: np.array(value) for index, value in zip(tensors, found, strict=True)}


def _by_median(turns: np.ndarray) -> Callable[[Sample], float]:
    return lambda sample: sample.median(turns)


def _alone(kind: str, without: Clock, clock: Clock, turns: np.ndarray) -> float:
    """Return what an operation takes, in microseconds.

    Between the operations of a network it finds its caches neither as it left them nor as
    empty as between models, each of which has memory of its own: so, the middle of both. But
    what float convolutions rearrange their numbers in belongs to the interpreter: those of a
    network share it, and find it as they left it.
    """
    warm = clock.after_itself.median(turns) - without.after_itself.median(turns)
    if kind in _REARRANGING:
        return max(_LEAST, warm)
    cold = clock.after_others.median(turns) - without.after_others.median(turns)
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
