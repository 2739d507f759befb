"""Measure a flatbuffer in the engine's interpreter, or on a device by its address."""

import copy
import dataclasses
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from larq_nas.deploy.conversion import Conversion
from larq_nas.deploy.export import engine, run
from larq_nas.deploy.flatbuffer import called_subgraphs, extract, is_constant, operators, read_model
from larq_nas.deploy.golden import Golden, natural_order, tensors
from larq_nas.deploy.operations import KERNELS, Kernel
from larq_nas.errors import ConversionError, InputError, first_line, require_whole, unknown_name
from larq_nas.latency.devices import measure_on
from larq_nas.latency.latency import Latency, OperationLatency, golden_of, verdict
from larq_nas.latency.signature import Signature, signatures

HERE = "here"
"""The address of this machine."""


def measure(
    model: bytes | str | Path | Conversion,
    device: str = HERE,
    *,
    kernel: Kernel = "default",
    threads: int = 1,
    runs: int = 50,
    warmup_runs: int = 5,
    per_operation: bool = False,
    golden: bytes | str | Path | None = None,
    **options: Any,
) -> Latency:
    """Measure what one inference of a converted model takes.

    !!! example
        ```python
        conversion = larq_nas.convert(model, validation)
        print(larq_nas.latency.measure(conversion, kernel="indirect"))
        print(larq_nas.latency.measure("model.tflite", "ssh://pi@raspberrypi", threads=4))
        ```

    # Arguments
        model: a conversion, the bytes of a flatbuffer, or the path of one.
        device: `"here"`, `"ssh://[user@]host[:port]"` or `"adb://[serial]"`.
        kernel: the kernel of the binary convolutions: `"default"`, `"reference"` or
            `"indirect"`.
        threads: number of threads; here always 1.
        runs: number of inferences to time.
        warmup_runs: number of inferences before those.
        per_operation: whether to time each operation too.
        golden: path of the `golden.bin` of a package, or its bytes: then the outputs are
            compared there with those that are expected, before anything is timed.
        **options: for a device, further arguments of
            `larq_nas.latency.devices.measure_on`: `tool`, `program`, `ssh_options`, `repeats`,
            `timeout`, `xnnpack`.

    # Raises
        InputError: if an argument cannot be used.
        ConversionError: if the kernel cannot run the model, or its outputs are not as expected.
        larq_nas.latency.DeviceError: if the device does not do what it is asked.
    """
    flatbuffer = _flatbuffer(model)
    settings: dict[str, Any] = {"kernel": kernel, "runs": runs, "warmup_runs": warmup_runs}
    settings["per_operation"] = per_operation
    if device != HERE:
        return measure_on(device, flatbuffer, threads=threads, golden=golden, **settings, **options)
    if threads != 1:
        raise InputError(f"`threads` must be 1 on this machine, but got {threads!r}.")
    if options:
        raise InputError(
            f"`{sorted(options)[0]}` is for a device: give one, such as ssh://pi@raspberrypi."
        )
    found = [] if golden is None else golden_here(golden_of(golden, flatbuffer), flatbuffer, kernel)
    return dataclasses.replace(measure_here(flatbuffer, **settings), golden=found)


def _flatbuffer(model: bytes | str | Path | Conversion) -> bytes:
    if isinstance(model, Conversion):
        return model.flatbuffer
    if isinstance(model, bytes):
        return model
    if not isinstance(model, str | Path):
        raise InputError(
            "`model` must be a conversion, a flatbuffer or the path of one, but got "
            f"{type(model).__name__}: convert a Keras model with larq_nas.convert."
        )
    try:
        return Path(model).read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read `{model}`: {error.strerror}.") from None


def golden_here(golden: Golden, flatbuffer: bytes, kernel: Kernel) -> list[str]:
    """Return what the golden test finds on this machine; see `verdict`."""
    inputs, outputs = tensors(flatbuffer)
    feed = [x.reshape(-1, *end.shape[1:]) for x, end in zip(golden.stored, inputs, strict=True)]
    places, back = natural_order(inputs), natural_order(outputs)
    given = [feed[places.index(place)] for place in range(len(feed))]
    found = run(flatbuffer, given, kernel, **KERNELS[kernel])
    raw = [found[place].reshape(-1, end.elements) for place, end in zip(back, outputs, strict=True)]
    return verdict(golden, raw, "this machine")


# Nanoseconds that reading two clocks may take, and the least share of runs to go by, one in 5.
_NO_WAIT, _FEWEST = 20_000, 5


_FIRST, _AGAIN = 0, 1


class Clock:
    """Times one model, twice in each turn: first after others, and again after itself."""

    def __init__(
        self, flatbuffer: bytes, kernel: Kernel, inputs: list[np.ndarray] | None = None
    ) -> None:
        try:
            # The interpreter itself: Larq Compute Engine's wrapper copies what it is given.
            wrapper = engine().testing.Interpreter(flatbuffer, **KERNELS[kernel])
        except (RuntimeError, ValueError) as error:
            raise ConversionError(
                f"The {kernel} kernel cannot run the flatbuffer ({first_line(error)}); "
                "give what larq_nas.convert made, and a kernel that it was checked with."
            ) from error
        self.interpreter = wrapper.interpreter
        generator = np.random.default_rng(0)
        shapes, types = self.interpreter.input_shapes, self.interpreter.input_types
        self.inputs = inputs or [
            _random(generator, shape, np.dtype(kind))
            for shape, kind in zip(shapes, types, strict=True)
        ]
        self.turns: list[list[tuple[int, int]]] = []

    def take_turn(self) -> None:
        """Add what both runs took, and what they waited for others, in nanoseconds."""
        self.turns.append([])
        for _ in (_FIRST, _AGAIN):
            before, start = time.perf_counter_ns(), time.thread_time_ns()
            self.interpreter.predict(self.inputs)
            took, passed = time.thread_time_ns() - start, time.perf_counter_ns() - before
            self.turns[-1].append((took, passed - took))

    def undisturbed(self, turns: np.ndarray, run: int = _AGAIN) -> np.ndarray:
        """Return microseconds of the runs that no other program broke into, or the nearest to that.

        Such a program leaves other caches behind, which a long run pays for and a short one,
        between two of them, does not.
        """
        times, waits = np.array(self.turns)[turns, run].T
        fewest = np.sort(waits)[-(-len(waits) // _FEWEST) - 1]
        return times[waits <= max(fewest, _NO_WAIT)] / 1000

    def median(self, turns: np.ndarray, run: int = _AGAIN) -> float:
        """Return the median of those."""
        return float(np.median(self.undisturbed(turns, run)))


def _random(generator: np.random.Generator, shape: Sequence[int], kind: np.dtype) -> np.ndarray:
    if kind.kind == "f":
        return generator.standard_normal(shape).astype(kind)
    if kind.kind == "b":
        return generator.integers(0, 2, shape).astype(kind)
    limits = np.iinfo(kind)
    return generator.integers(limits.min, limits.max, shape, kind, endpoint=True)


_TYPES = schema.TensorType
_NO_NUMBERS = (_TYPES.RESOURCE, _TYPES.STRING, _TYPES.VARIANT)


@dataclass(frozen=True)
class Piece:
    """One operation of a flatbuffer, named by its first output, as a model of its own.

    It is given what the operation reads and what it will write over, the tensors of the indices
    `given`, and so is `hollow`, which runs nothing. Both models have one more input, a number that
    they pass to their output.
    """

    kind: str
    name: str
    model: bytes
    hollow: bytes
    given: tuple[int, ...]


def cut(flatbuffer: bytes) -> list[Piece]:
    """Return a model for each operation of `flatbuffer`, in the order they run.

    An operation that runs subgraphs, such as the loop of a recurrent layer, is one.
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


def _require_numbers(model: schema.ModelT, flatbuffer: bytes) -> None:
    tensors = model.subgraphs[0].tensors
    refused = []
    for found, operator in zip(operators(flatbuffer), model.subgraphs[0].operators, strict=True):
        ends = [index for index in (*operator.inputs, *operator.outputs) if index >= 0]
        if any(tensors[index].type in _NO_NUMBERS for index in ends):
            refused.append(found.kind)
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
    passed = schema.TensorT()
    passed.name, passed.shape, passed.type = b"passed_through", [1], _TYPES.FLOAT32
    extended = copy.copy(model)
    extended.subgraphs = [copy.copy(model.subgraphs[0]), *model.subgraphs[1:]]
    tensors = model.subgraphs[0].tensors
    extended.subgraphs[0].tensors = [*tensors, passed]
    return extract(extended, kept, [*inputs, len(tensors)], [len(tensors)])


_TURNS, _PAUSE = 5, 0.2
_NOISY = 0.1
_LEAST = 0.01
_COPIES = 3
_REARRANGING = ("CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
_X86 = ("x86_64", "amd64", "i386", "i686")


def measure_here(flatbuffer: bytes, **settings: Any) -> Latency:
    """Measure how long a flatbuffer takes on this machine; see `measure_all_here`."""
    return measure_all_here([flatbuffer], **settings)[0]


def measure_all_here(
    flatbuffers: Sequence[bytes],
    *,
    kernel: Kernel = "default",
    runs: int = 50,
    warmup_runs: int = 5,
    per_operation: bool = False,
) -> list[Latency]:
    """Measure how long flatbuffers take on this machine, on one thread.

    They take turns, so that a drift of the machine meets all alike. The time is that of the
    processor, so that other processes count little; and figures are those of the quicker half of
    the time it took, as machines slow down for seconds. What a call of the interpreter takes
    without any operation is measured beside it, and left out.

    # Arguments
        flatbuffers: the converted models.
        kernel, runs, warmup_runs: see `measure`.
        per_operation: whether to time each operation too, as a model of its own on what it
            reads there for random images. Their sum differs from the whole by some percent, as
            an operation finds other caches there.

    # Raises
        InputError: if an argument cannot be used, or an operation cannot be timed alone.
        ConversionError: if the kernel cannot run the flatbuffer.
    """
    require_whole(runs=runs, warmup_runs=warmup_runs)
    if kernel not in KERNELS:
        raise unknown_name("kernel", kernel, KERNELS)
    for flatbuffer in flatbuffers:
        read_model(flatbuffer)
    timed = [_Network(flatbuffer, kernel, per_operation) for flatbuffer in flatbuffers]
    clocks = [clock for network in timed for clock in network.clocks]
    for clock in clocks:
        for _ in range(warmup_runs):
            clock.interpreter.predict(clock.inputs)
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
                    without, alone = (Clock(m, kernel, given) for m in (piece.hollow, piece.model))
                    shared[same] = without, alone
                self.pieces.append((piece, shared[same]))
        self.clocks = [*self.wholes, self.hollow, *chain.from_iterable(shared.values())]

    def _steady(self) -> np.ndarray:
        """Return the quicker half of the turns.

        Machines slow down for seconds, all they run alike: the medians of what is compared with
        each other must not be of other seconds.
        """
        totals = np.array([clock.turns for clock in self.clocks])[..., 0].sum(axis=(0, 2))
        return np.argsort(totals, kind="stable")[: -(-len(totals) // 2)]

    def latency(self) -> Latency:
        turns = self._steady()
        whole = sorted(self.wholes, key=lambda clock: clock.median(turns))[_COPIES // 2]
        first, median, third = np.percentile(whole.undisturbed(turns), (25, 50, 75))
        spread = float((third - first) / median)
        machine = _machine()
        return Latency(
            device=f"this machine ({machine})",
            kernel=self.kernel,
            threads=1,
            engine=engine().__version__,
            microseconds=max(_LEAST, median - self.hollow.median(turns)),
            spread=spread,
            runs=len(whole.turns),
            operations=[
                OperationLatency(piece.kind, piece.name, _alone(piece.kind, *clocks, turns))
                for piece, clocks in self.pieces
            ],
            warnings=list(_warnings(machine, self.kernel, spread)),
        )


def _values(flatbuffer: bytes, kernel: Kernel) -> dict[int, np.ndarray]:
    """Return what each tensor of a network holds for random images."""
    model = read_model(flatbuffer)
    graph = model.subgraphs[0]
    written = [int(index) for operator in graph.operators for index in operator.outputs]
    tensors = [*map(int, graph.inputs), *written]
    clock = Clock(extract(model, range(len(graph.operators)), graph.inputs, tensors), kernel)
    found = clock.interpreter.predict(clock.inputs)
    return {index: np.array(value) for index, value in zip(tensors, found, strict=True)}


def _alone(kind: str, without: Clock, clock: Clock, turns: np.ndarray) -> float:
    """Return what an operation takes, in microseconds.

    Between the operations of a network it finds its caches neither as it left them nor as
    empty as between models, each of which has memory of its own: so, the middle of both. But
    what float convolutions rearrange their numbers in belongs to the interpreter: those of a
    network share it, and find it as they left it.
    """
    warm = clock.median(turns) - without.median(turns)
    if kind in _REARRANGING:
        return max(_LEAST, warm)
    cold = clock.median(turns, _FIRST) - without.median(turns, _FIRST)
    # What is shorter than the clock can tell comes out as anything around 0.
    return max(_LEAST, (cold + warm) / 2)


def _machine() -> str:
    machine = platform.machine()
    return "x86-64" if machine.lower() in _X86 else machine


def _warnings(machine: str, kernel: Kernel, spread: float) -> Iterator[str]:
    if machine == "x86-64":
        if kernel == "default":
            yield "the default kernel is the slowest on x86-64: time the indirect one here"
        yield "x86-64 timings say nothing about ARM, not even which network is faster"
    if spread > _NOISY:
        yield f"half of the timings lie {spread:.0%} apart: end other programs, and measure again"
