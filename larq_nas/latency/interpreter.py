"""Time the operations of a flatbuffer in the engine's interpreter."""

import copy
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from larq_nas.deploy.export import engine
from larq_nas.deploy.flatbuffer import called_subgraphs, extract, is_constant, operators, read_model
from larq_nas.deploy.operations import KERNELS, Kernel
from larq_nas.errors import ConversionError, InputError, first_line, require_whole, unknown_name
from larq_nas.latency.latency import Latency, OperationLatency
from larq_nas.latency.signature import Signature, signatures

__all__ = [
    "Clock",
    "Piece",
    "Sample",
    "cut",
    "hollow",
    "measure_all_here",
    "measure_here",
    "values",
]


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


_NO_NUMBERS = (
    schema.TensorType.RESOURCE,
    schema.TensorType.STRING,
    schema.TensorType.VARIANT,
)


@dataclass(frozen=True)
class Piece:
    """One operation of a flatbuffer as a model of its own.

    # Arguments
        kind: the operation, such as `"LceBconv2d"`.
        name: name of its first output tensor.
        model: is given what the operation reads and what it will write over, and runs it.
        hollow: is given the same, and runs nothing.
        given: indices of those tensors in the flatbuffer. Both models have one more input, a
            number that they pass to their output.
    """

    kind: str
    name: str
    model: bytes
    hollow: bytes
    given: tuple[int, ...]


def cut(flatbuffer: bytes) -> list[Piece]:
    """Return a model for each operation of `flatbuffer`, in the order they run.

    An operation that runs subgraphs, such as the loop of a recurrent layer, is one.

    # Raises
        InputError: if operations share a variable, or pass on what is no array of numbers.
    """
    model = read_model(flatbuffer)
    _require_numbers(model, flatbuffer)
    pieces = []
    for index, found in enumerate(operators(flatbuffer)):
        operator = model.subgraphs[0].operators[index]
        # A tensor that is read twice is one input; an optional one that is absent is -1.
        read = [i for i in dict.fromkeys(operator.inputs) if i >= 0 and not is_constant(model, i)]
        # In the whole, memory that an operation writes was used shortly before. Here, giving it
        # numbers brings it into the caches. A loop may allocate what it writes itself.
        written = [] if called_subgraphs(operator) else operator.outputs
        given = [*read, *written]
        alone, nothing = _part(model, [index], given), _part(model, [], given)
        pieces.append(Piece(found.kind, found.output, alone, nothing, tuple(map(int, given))))
    return pieces


def values(flatbuffer: bytes) -> tuple[bytes, list[int]]:
    """Return a model of all operations that gives each tensor, and the tensors' indices."""
    model = read_model(flatbuffer)
    graph = model.subgraphs[0]
    written = [int(index) for operator in graph.operators for index in operator.outputs]
    tensors = [*map(int, graph.inputs), *written]
    return extract(model, range(len(graph.operators)), graph.inputs, tensors), tensors


def _require_numbers(model: schema.ModelT, flatbuffer: bytes) -> None:
    tensors = model.subgraphs[0].tensors
    pairs = zip(operators(flatbuffer), model.subgraphs[0].operators, strict=True)
    refused = [
        found.kind
        for found, operator in pairs
        if any(
            tensors[index].type in _NO_NUMBERS
            for index in (*operator.inputs, *operator.outputs)
            if index >= 0
        )
    ]
    if refused:
        raise InputError(
            f"{' and '.join(dict.fromkeys(refused))} cannot be measured alone: they share a "
            "variable, or pass on what is no array of numbers; measure the whole with "
            "per_operation=False."
        )


def hollow(flatbuffer: bytes) -> bytes:
    """Return a model that reads the inputs of `flatbuffer` and runs nothing."""
    model = read_model(flatbuffer)
    return _part(model, [], model.subgraphs[0].inputs)


def _part(model: schema.ModelT, kept: Sequence[int], inputs: Sequence[int]) -> bytes:
    """Return a model of the operations `kept`.

    Its output is a number that it is given: what the operations write is not copied out, so
    that a model with an operation and one without differ in nothing else.
    """
    extended = copy.copy(model)
    extended.subgraphs = [copy.copy(model.subgraphs[0]), *model.subgraphs[1:]]
    tensors = model.subgraphs[0].tensors
    extended.subgraphs[0].tensors = [*tensors, _number()]
    return extract(extended, kept, [*inputs, len(tensors)], [len(tensors)])


def _number() -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type = b"passed_through", [1], schema.TensorType.FLOAT32
    return tensor


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
