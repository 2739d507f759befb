"""Golden test: inputs with the outputs that a network must give on any device."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from larq_nas.deploy.conversion import Conversion
from larq_nas.deploy.flatbuffer import read_model
from larq_nas.deploy.quantization import IntegerTensor
from larq_nas.errors import ConversionError, InputError

_MAGIC, _VERSION = b"LQGOLDEN", 1
# Types of a flatbuffer, their numbers in TensorFlow Lite's C API, and their arrays.
_TYPES = {
    "FLOAT32": (1, "<f4"),
    "INT32": (2, "<i4"),
    "UINT8": (3, "u1"),
    "INT64": (4, "<i8"),
    "BOOL": (6, "?"),
    "INT8": (9, "i1"),
}
_NAMES = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}

SHARE = 8
"""One of so many inputs may differ: a device rounds differently, which can flip a sign."""
CLOSE = 1e-3
"""What an output may differ by, in standard deviations, where rounding turns no sign."""

_TIE = 1e-4


@dataclass(frozen=True)
class Tensor:
    """An input or output of a flatbuffer.

    # Arguments
        name: its name in the flatbuffer's signature, or of the tensor if there is none.
        shape: its shape, with the batch.
        type: its type, such as `"FLOAT32"` or `"UINT8"`.
        scale: what a step of a quantized tensor counts; 0 for others.
        zero_point: the value of a quantized tensor that stands for 0.
    """

    name: str
    shape: tuple[int, ...]
    type: str = "FLOAT32"
    scale: float = 0.0
    zero_point: int = 0

    @property
    def elements(self) -> int:
        """Numbers of one example."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> np.dtype:
        """Type of its array, little-endian."""
        return np.dtype(_TYPES[self.type][1])

    @property
    def bytes(self) -> int:
        """Bytes of one example."""
        return self.elements * self.dtype.itemsize

    @property
    def code(self) -> int:
        """Number of its type in TensorFlow Lite's C API."""
        return _TYPES[self.type][0]

    def stored(self, numbers: np.ndarray) -> np.ndarray:
        """Return what the tensor holds for `numbers`."""
        if not self.scale:
            return np.asarray(numbers).astype(self.dtype)
        least, greatest = np.iinfo(self.dtype).min, np.iinfo(self.dtype).max
        steps = np.rint(np.asarray(numbers) / self.scale) + self.zero_point
        return np.clip(steps, least, greatest).astype(self.dtype)

    def numbers(self, stored: np.ndarray) -> np.ndarray:
        """Return the numbers that the values of the tensor stand for."""
        if not self.scale:
            return np.asarray(stored)
        return ((stored.astype("float64") - self.zero_point) * self.scale).astype("float32")

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and greatest number that a quantized tensor can hold."""
        kind = np.iinfo(self.dtype)
        least, greatest = ((end - self.zero_point) * self.scale for end in (kind.min, kind.max))
        return float(least), float(greatest)


def tensors(flatbuffer: bytes) -> tuple[list[Tensor], list[Tensor]]:
    """Return the inputs and the outputs of `flatbuffer`, as an interpreter orders them.

    # Raises
        ConversionError: if one has a type that programs and golden test do not know.
    """
    model = read_model(flatbuffer)
    graph = model.subgraphs[0]
    signature = model.signatureDefs[0] if model.signatureDefs else None
    named = (signature.inputs, signature.outputs) if signature else ((), ())
    found = []
    for indices, entries in zip((graph.inputs, graph.outputs), named, strict=True):
        names = {entry.tensorIndex: entry.name.decode() for entry in entries}
        found.append([_tensor(graph.tensors[i], names.get(i, "")) for i in indices])
    return found[0], found[1]


def _tensor(tensor: schema.TensorT, name: str) -> Tensor:
    name = name or tensor.name.decode()
    kind = _NAMES[tensor.type]
    if kind not in _TYPES:
        raise ConversionError(
            f"Tensor `{name}` is of type {kind}, which no package can hold: give the model inputs "
            f"and outputs of {', '.join(sorted(_TYPES))}."
        )
    shape = () if tensor.shape is None else tuple(int(size) for size in tensor.shape)
    about = tensor.quantization
    if about is None or about.scale is None or len(about.scale) == 0 or not kind.endswith("INT8"):
        return Tensor(name, shape, kind)
    return Tensor(name, shape, kind, float(about.scale[0]), int(about.zeroPoint[0]))


def natural_order(ends: Sequence[Tensor]) -> list[int]:
    """Return for each tensor the place that its name has among all, numbers by their value."""
    # The signature numbers the model's tensors; an interpreter may take them in another order.
    digits = [int("".join(filter(str.isdigit, end.name)) or 0) for end in ends]
    ranked = sorted(range(len(ends)), key=lambda i: (digits[i], i))
    return [ranked.index(i) for i in range(len(ends))]


def integer_inputs(conversion: Conversion) -> dict[str, IntegerTensor]:
    """Return what the integer inputs stand for, by name.

    A network may scale and shift them further than their tensor's scale and zero point say.
    """
    given = conversion.integers.inputs if conversion.integers else ()
    return {tensor.name: tensor for tensor in given}


@dataclass(frozen=True)
class Expected:
    """What an output must be for each example, and how exactly.

    # Arguments
        tensor: the output.
        values: the expected numbers, first axis the examples.
        classes: whether its last axis are classes, of which the best is compared.
        step: what may be added to every difference: steps of a quantized tensor.
        spread: standard deviation of each channel over examples, the unit of differences.
        tolerance: for each example, the largest difference, in these units.
        least_same: number of positions, over all examples, whose best class must be the same.
    """

    tensor: Tensor
    values: np.ndarray = field(repr=False)
    classes: bool
    step: float
    spread: np.ndarray = field(repr=False)
    tolerance: np.ndarray = field(repr=False)
    least_same: int = 0

    @property
    def positions(self) -> int:
        """Number of classifications in all examples."""
        return len(self.values) * (self.tensor.elements // len(self.spread))


@dataclass(frozen=True)
class GoldenResult:
    """How one output compares with what is expected.

    # Arguments
        output: its name.
        examples: number of examples.
        agreeing: number of those within their tolerance.
        needed: number of those that must be.
        largest: largest difference of a number.
        same: number of positions of the same class; `None` if the output is not of classes.
        positions: number of positions that are classified.
        least_same: number of positions that must be of the same class.
    """

    output: str
    examples: int
    agreeing: int
    needed: int
    largest: float
    same: int | None = None
    positions: int = 0
    least_same: int = 0

    @property
    def passed(self) -> bool:
        """Whether it is as expected."""
        return self.agreeing >= self.needed and (self.same is None or self.same >= self.least_same)

    def __str__(self) -> str:
        top = f"same class on {self.same} of {self.positions}, " if self.same is not None else ""
        return (
            f"output `{self.output}`: {self.agreeing} of {self.examples} inputs as expected "
            f"(at least {self.needed} must be), {top}largest difference {self.largest:.3g}"
        )


@dataclass(frozen=True)
class Golden:
    """Inputs with their expected outputs, as `golden.bin` holds them.

    # Arguments
        inputs: the input tensors.
        stored: for each input what it holds, first axis the examples.
        outputs: what is expected of each output.
        origin: where inputs and outputs are from, for a reader.
    """

    inputs: Sequence[Tensor]
    stored: Sequence[np.ndarray] = field(repr=False)
    outputs: Sequence[Expected] = field(repr=False)
    origin: str = ""

    @property
    def examples(self) -> int:
        """Number of examples."""
        return len(self.stored[0])

    @property
    def needed(self) -> int:
        """Number of examples that must be as expected."""
        return self.examples - self.examples // SHARE

    @property
    def steady(self) -> int:
        """Number of examples that rounding does not change visibly."""
        worst = np.max([output.tolerance for output in self.outputs], axis=0)
        return int(np.sum(worst <= CLOSE * (1 + 1e-6)))

    @property
    def weak(self) -> bool:
        """Whether rounding alone changes outputs so much that most examples prove little."""
        worst = np.max([output.tolerance for output in self.outputs], axis=0)
        return bool(np.median(worst) > 1)

    def judge(self, raw: Sequence[np.ndarray]) -> list[GoldenResult]:
        """Compare with what the outputs hold for the examples, in the interpreter's order."""
        return [self._compare(*pair) for pair in zip(self.outputs, raw, strict=True)]

    def _compare(self, expected: Expected, raw: np.ndarray) -> GoldenResult:
        shape = (self.examples, -1, len(expected.spread))
        wanted = expected.values.reshape(shape).astype("float64")
        got = expected.tensor.numbers(raw.reshape(shape)).astype("float64")
        differences = np.nan_to_num(np.abs(got - wanted), nan=np.inf)
        beyond = np.maximum(differences - expected.step, 0) / expected.spread
        agreeing = beyond.reshape(self.examples, -1).max(axis=1) <= expected.tolerance
        figures = (int(agreeing.sum()), self.needed, float(differences.max()))
        if not expected.classes:
            return GoldenResult(expected.tensor.name, self.examples, *figures)
        same = same_class(wanted, got, expected.step, expected.spread)
        least, positions = expected.least_same, expected.positions
        return GoldenResult(expected.tensor.name, self.examples, *figures, same, positions, least)

    def to_bytes(self) -> bytes:
        """Return the file: little-endian, as `golden.bin` of a package is described."""
        head = [len(self.inputs), len(self.outputs), self.examples, self.needed]
        parts = [_MAGIC, _integers(_VERSION, *head), _text(self.origin)]
        for tensor in self.inputs:
            parts += [_text(tensor.name), _integers(tensor.elements, tensor.code)]
        for output in self.outputs:
            tensor = output.tensor
            shape = (tensor.elements, len(output.spread), tensor.code, tensor.zero_point)
            rules = (int(output.classes), output.least_same)
            parts += [_text(tensor.name), _integers(*shape, *rules)]
            parts += [_floats([tensor.scale, output.step])]
            parts += [_floats(output.spread), _floats(output.tolerance)]
        for i in range(self.examples):
            parts += [np.ascontiguousarray(stored[i]).tobytes() for stored in self.stored]
            parts += [_floats(output.values[i]) for output in self.outputs]
        return b"".join(parts)


def same_class(wanted: np.ndarray, got: np.ndarray, step: float, spread: np.ndarray) -> int:
    """Return at how many positions the best class of `got` is best in `wanted`, or as good."""
    best = got.argmax(axis=-1)
    chosen = np.take_along_axis(wanted, best[..., None], -1)[..., 0]
    room = step + _TIE * np.asarray(spread, "float64")[best]
    finite = np.isfinite(got).all(axis=-1)
    return int(np.sum(finite & (chosen + room >= wanted.max(axis=-1))))


def _integers(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


def _floats(values: Any) -> bytes:
    return np.asarray(values, "<f4").tobytes()


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return _integers(len(data)) + data


class _Reader:
    """The parts of a file, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> bytes:
        part = self._data[self._at : self._at + count]
        if count < 0 or len(part) != count:
            raise ValueError
        self._at += count
        return part

    def integers(self, count: int) -> list[int]:
        return list(struct.unpack(f"<{count}i", self.take(4 * count)))

    def floats(self, count: int) -> np.ndarray:
        return np.frombuffer(self.take(4 * count), "<f4")

    def text(self) -> str:
        return self.take(self.integers(1)[0]).decode("utf-8")

    @property
    def ended(self) -> bool:
        return self._at == len(self._data)


def read_golden(source: bytes | str | Path) -> Golden:
    """Return the golden test in a file `golden.bin`, or in its bytes.

    # Raises
        InputError: if it cannot be read, or is none.
    """
    name = "`golden`" if isinstance(source, bytes) else f"`{source}`"
    if isinstance(source, bytes):
        data = source
    else:
        try:
            data = Path(source).read_bytes()
        except OSError as error:
            raise InputError(f"Cannot read {name}: {error.strerror}.") from None
    try:
        return _parse(_Reader(data))
    except (ValueError, KeyError, struct.error, UnicodeDecodeError):
        raise InputError(
            f"{name} must be the `golden.bin` of a package, but is none, or one that is cut short: "
            "take it from the package of the model."
        ) from None


def _parse(reader: _Reader) -> Golden:
    if reader.take(len(_MAGIC)) != _MAGIC or reader.integers(1) != [_VERSION]:
        raise ValueError
    inputs, outputs, examples, _ = reader.integers(4)
    origin = reader.text()
    kinds = {code: name for name, (code, _) in _TYPES.items()}
    ins = []
    for _ in range(inputs):
        name, (elements, code) = reader.text(), reader.integers(2)
        ins.append(Tensor(name, (elements,), kinds[code]))
    outs: list[dict[str, Any]] = []
    for _ in range(outputs):
        name = reader.text()
        elements, channels, code, zero, classes, least = reader.integers(6)
        scale, step = (float(value) for value in reader.floats(2))
        outs.append(
            {
                "tensor": Tensor(name, (elements,), kinds[code], scale, zero),
                "classes": bool(classes),
                "step": step,
                "spread": reader.floats(channels),
                "tolerance": reader.floats(examples),
                "least_same": least,
            }
        )
    stored: list[list[np.ndarray]] = [[] for _ in ins]
    values: list[list[np.ndarray]] = [[] for _ in outs]
    for _ in range(examples):
        for rows, tensor in zip(stored, ins, strict=True):
            rows.append(np.frombuffer(reader.take(tensor.bytes), tensor.dtype))
        for rows, out in zip(values, outs, strict=True):
            rows.append(reader.floats(out["tensor"].elements))
    if not reader.ended or not examples or not ins or not outs:
        raise ValueError
    expected = [
        Expected(values=np.stack(rows), **out) for rows, out in zip(values, outs, strict=True)
    ]
    return Golden(ins, [np.stack(rows) for rows in stored], expected, origin)
