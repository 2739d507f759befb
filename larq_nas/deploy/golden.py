"""Golden test: inputs with the outputs that a network must give on any device."""

import io
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from larq_nas.deploy.conversion import Conversion
from larq_nas.deploy.export import run
from larq_nas.deploy.flatbuffer import TYPE_NAMES, end_names, read_model
from larq_nas.deploy.integers import IntegerTensor
from larq_nas.deploy.meaning import Meaning
from larq_nas.deploy.operations import KERNELS, Kernel
from larq_nas.deploy.parity import InKeras, same_class
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
# One of so many inputs may differ: a device rounds differently, which can flip a sign.
_SHARE = 8
# What an output may differ by, in standard deviations, where rounding turns no sign.
_CLOSE = 1e-3
_EXAMPLES, _CANDIDATES = 16, 32
# By how much more than rounding did here it may change an output on a device.
_MARGIN = 3.0


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
    ins, outs = (end_names(model, side) for side in ("inputs", "outputs"))
    return (
        [_tensor(graph.tensors[index], ins[index]) for index in graph.inputs],
        [_tensor(graph.tensors[index], outs[index]) for index in graph.outputs],
    )


def _tensor(tensor: schema.TensorT, name: str) -> Tensor:
    kind = TYPE_NAMES[tensor.type]
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
    """Return for each tensor its place in the model, whose order is that of the names."""
    return np.argsort(np.argsort([end.name for end in ends], kind="stable")).tolist()


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


@dataclass(frozen=True)
class GoldenResult:
    """How one output compares with what is expected.

    # Arguments
        expected: what is expected.
        agreeing: number of examples within their tolerance.
        needed: number of those that must be.
        largest: largest difference of a number.
        same: number of positions of the same class; `None` if the output is not of classes.
    """

    expected: Expected
    agreeing: int
    needed: int
    largest: float
    same: int | None = None

    @property
    def passed(self) -> bool:
        """Whether it is as expected."""
        least = self.expected.least_same
        return self.agreeing >= self.needed and (self.same is None or self.same >= least)

    def __str__(self) -> str:
        values, channels = self.expected.values, len(self.expected.spread)
        top = f"same class on {self.same} of {values.size // channels}, "
        return (
            f"output `{self.expected.tensor.name}`: {self.agreeing} of {len(values)} inputs as "
            f"expected (at least {self.needed} must be), {'' if self.same is None else top}largest "
            f"difference {self.largest:.3g}"
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
        return self.examples - self.examples // _SHARE

    @property
    def steady(self) -> int:
        """Number of examples that rounding does not change visibly."""
        worst = np.max([output.tolerance for output in self.outputs], axis=0)
        return int(np.sum(worst <= _CLOSE * (1 + 1e-6)))

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
        agreeing = _worst(wanted, got, expected.step, expected.spread) <= expected.tolerance
        largest = float(np.nan_to_num(np.abs(got - wanted), nan=np.inf).max())
        same = same_class(wanted, got, expected.step, expected.spread)
        return GoldenResult(
            expected,
            int(agreeing.sum()),
            self.needed,
            largest,
            same if expected.classes else None,
        )

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
        rows = np.zeros(self.examples, _row(self.inputs, [out.tensor for out in self.outputs]))
        for i, stored in enumerate(self.stored):
            rows[f"input{i}"] = stored.reshape(self.examples, -1)
        for o, output in enumerate(self.outputs):
            rows["outputs"][f"{o}"] = output.values.reshape(self.examples, -1)
        return b"".join([*parts, rows.tobytes()])


def _integers(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


def _floats(values: Any) -> bytes:
    return np.asarray(values, "<f4").tobytes()


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return _integers(len(data)) + data


class _Reader(io.BytesIO):
    """The parts of a file, one after the other."""

    def take(self, count: int) -> bytes:
        part = self.read(max(count, 0))
        if len(part) != count:
            raise ValueError
        return part

    def integers(self, count: int) -> list[int]:
        return list(struct.unpack(f"<{count}i", self.take(4 * count)))

    def floats(self, count: int) -> np.ndarray:
        return np.frombuffer(self.take(4 * count), "<f4")

    def text(self) -> str:
        return self.take(self.integers(1)[0]).decode("utf-8")


def read_golden(source: bytes | str | Path) -> Golden:
    """Return the golden test in a file `golden.bin`, or in its bytes.

    # Raises
        InputError: if it cannot be read, or is none.
    """
    name = "`golden`" if isinstance(source, bytes) else f"`{source}`"
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        return _parse(_Reader(data))
    except OSError as error:
        raise InputError(f"Cannot read {name}: {error.strerror}.") from None
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
    heads = []
    for _ in range(outputs):
        name = reader.text()
        elements, channels, code, zero, classes, least = reader.integers(6)
        scale, step = (float(value) for value in reader.floats(2))
        tensor = Tensor(name, (elements,), kinds[code], scale, zero)
        rules = bool(classes), step, reader.floats(channels), reader.floats(examples), least
        heads.append((tensor, rules))
    rows = np.frombuffer(reader.read(), _row(ins, [tensor for tensor, _ in heads]))
    if len(rows) != examples or not examples or not ins or not heads:
        raise ValueError
    stored, values = [rows[f"input{i}"] for i in range(inputs)], rows["outputs"]
    outs = [Expected(tensor, values[f"{o}"], *rules) for o, (tensor, rules) in enumerate(heads)]
    return Golden(ins, stored, outs, origin)


def _row(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> np.dtype:
    """Return how an example stands in the file."""
    expected = [(f"{o}", "<f4", (tensor.elements,)) for o, tensor in enumerate(outputs)]
    given = [(f"input{i}", tensor.dtype, (tensor.elements,)) for i, tensor in enumerate(inputs)]
    return np.dtype([*given, ("outputs", expected)])


def make_golden(
    model: tf.keras.Model,
    conversion: Conversion,
    kernel: Kernel,
    images: Sequence[np.ndarray] | None,
    meanings: Sequence[Meaning],
) -> Golden:
    """Return a golden test of a converted model.

    What is expected is what Keras gives, whose outputs are the truth; of a network in int8 it
    is what the engine gives here, as Keras does not round. Rounding differs between devices and
    can turn a sign that is almost 0. So those inputs are taken that it changes least: in
    Keras with weights changed by 1e-6 of their value, and in every kernel that was compared.
    Where too few of the given images are steady, random ones are taken as well.

    `images` are in the order of the model's inputs, `meanings` in that of its outputs.

    # Raises
        ConversionError: if Keras's own outputs are not finite.
    """
    inputs, outputs = tensors(conversion.flatbuffer)
    places = natural_order(inputs)
    given = [images[place][:_CANDIDATES] for place in places] if images else []
    discrete = [not model.inputs[place].dtype.is_floating for place in places]
    first = given or _random_inputs(inputs, discrete, conversion)
    stored = _stored_inputs(inputs, first, conversion)
    trial = _try(model, conversion, kernel, stored)
    if given and trial.steady < _EXAMPLES:
        drawn = _stored_inputs(
            inputs, _random_inputs(inputs, discrete, conversion, given), conversion
        )
        stored = [np.concatenate(pair) for pair in zip(stored, drawn, strict=True)]
        trial = _try(model, conversion, kernel, stored)
    chosen = trial.steadiest()
    real = int(np.sum(chosen < len(given[0]))) if given else 0
    parts = [f"{real} of the given images"] if real else []
    parts += [f"{len(chosen) - real} inputs of random numbers"] if real < len(chosen) else []
    source = f"Larq Compute Engine's {kernel} kernel" if conversion.int8 else "Keras"
    return Golden(
        inputs,
        [x[chosen] for x in stored],
        [trial.expected(o, chosen, meanings[i]) for o, i in enumerate(natural_order(outputs))],
        f"{' and '.join(parts)}, outputs of {source}",
    )


def _stored_inputs(
    inputs: Sequence[Tensor], examples: Sequence[np.ndarray], conversion: Conversion
) -> list[np.ndarray]:
    """Return what the inputs hold for examples as the model reads them."""
    integers = integer_inputs(conversion)
    return [
        integers[end.name].quantize(x) if end.name in integers else end.stored(x)
        for end, x in zip(inputs, examples, strict=True)
    ]


def _random_inputs(
    inputs: Sequence[Tensor],
    discrete: Sequence[bool],
    conversion: Conversion,
    given: Sequence[np.ndarray] = (),
) -> list[np.ndarray]:
    """Return random inputs, within the range of those given; integers where it must be."""
    generator = np.random.default_rng(0)
    drawn: list[np.ndarray] = []
    for index, end in enumerate(inputs):
        shape = (_CANDIDATES, *end.shape[1:])
        # An integer may be an index: the least ones are the likeliest to be valid.
        least, greatest = end.bounds if end.scale else (0.0, 1.0)
        if integer := integer_inputs(conversion).get(end.name):
            low, high = integer.ends
            least, greatest = float(np.min(low)), float(np.max(high))
        if given:
            least, greatest = float(given[index].min()), float(given[index].max())
        if discrete[index] and not end.scale:
            drawn.append(generator.integers(int(least), int(greatest), shape, endpoint=True))
        elif given or end.scale:
            drawn.append(generator.uniform(least, greatest, shape))
        else:
            drawn.append(generator.standard_normal(shape))
    return drawn


@dataclass(frozen=True)
class _Trial:
    """What candidates give: the outputs, and what rounding makes of them.

    For each output, `truth` is what is expected, shape `(examples, positions, channels)`, `others`
    the same of other roundings, and `steps` what is no difference: steps of int8.
    """

    outputs: Sequence[Tensor]
    truth: Sequence[np.ndarray]
    others: Sequence[Sequence[np.ndarray]]
    steps: Sequence[float]

    @cached_property
    def spreads(self) -> list[np.ndarray]:
        """By how much each channel varies over examples and positions."""
        return [_spread(values) for values in self.truth]

    @cached_property
    def rounding(self) -> list[np.ndarray]:
        """For each output, what rounding does to each example, in standard deviations."""
        found: list[np.ndarray] = []
        for o, values in enumerate(self.truth):
            about = self.steps[o], self.spreads[o]
            rows = [_worst(values, other[o], *about) for other in self.others]
            found.append(np.max(rows, axis=0))
        return found

    @property
    def steady(self) -> int:
        """Number of examples that rounding does not change visibly."""
        return int(np.sum(np.max(self.rounding, axis=0) <= _CLOSE))

    def steadiest(self) -> np.ndarray:
        """Return the examples that rounding changes least, the first where it changes none."""
        worst = np.max(self.rounding, axis=0)
        order = np.argsort(np.where(worst <= _CLOSE, 0, worst), kind="stable")
        return np.sort(order[:_EXAMPLES])

    def expected(self, o: int, chosen: np.ndarray, meaning: Meaning) -> Expected:
        """Return what is expected of an output for the chosen examples."""
        end, spread, step = self.outputs[o], self.spreads[o], self.steps[o]
        values = self.truth[o][chosen]
        rows = self.rounding[o]
        unsteady = rows[rows > _CLOSE]
        usual = float(unsteady.mean()) if unsteady.size else 0.0
        tolerance = np.where(rows > _CLOSE, _MARGIN * np.maximum(rows, usual), _CLOSE)[chosen]
        classes = meaning.kind in ("classes", "scores") and len(spread) > 1
        least = 0
        if classes:
            same = [same_class(values, other[o][chosen], step, spread) for other in self.others]
            positions = values.size // len(spread)
            least = max(0, min(same, default=positions) - positions // _SHARE)
        return Expected(
            Tensor(meaning.name, end.shape, end.type, end.scale, end.zero_point),
            values.astype("float32"),
            classes,
            step,
            spread.astype("float32"),
            tolerance.astype("float32"),
            least,
        )


def _try(
    model: tf.keras.Model, conversion: Conversion, kernel: Kernel, stored: Sequence[np.ndarray]
) -> _Trial:
    """Return what the inputs that are `stored` give in Keras and in the engine."""
    inputs, outputs = tensors(conversion.flatbuffer)
    places, back = natural_order(inputs), natural_order(outputs)
    integers = integer_inputs(conversion)
    read = [
        integers[end.name].dequantize(x) if end.name in integers else end.numbers(x)
        for end, x in zip(inputs, stored, strict=True)
    ]
    feed = [
        read[places.index(place)].astype(tensor.dtype.as_numpy_dtype)
        for place, tensor in enumerate(model.inputs)
    ]
    reference = InKeras(model, absolute=False)

    def ordered(found: Sequence[np.ndarray]) -> list[np.ndarray]:
        # Numbers as far as a quantized tensor can hold them.
        return [
            np.clip(found[place], *end.bounds) if end.scale else found[place]
            for place, end in zip(back, outputs, strict=True)
        ]

    truth = ordered(_by_channel(reference.predict(feed)))
    if not all(np.isfinite(values).all() for values in truth):
        raise ConversionError(f"`{model.name}` gives NaN or Inf in Keras already; train it anew.")
    given = [stored[places.index(place)] for place in range(len(stored))]
    results = {}
    for name in [name for name in KERNELS if name in conversion.kernels]:
        raw = run(conversion.flatbuffer, given, name, **KERNELS[name])
        results[name] = [
            end.numbers(raw[place]).reshape(one.shape)
            for place, end, one in zip(back, outputs, truth, strict=True)
        ]
    others, step = list(results.values()), 0.0
    if conversion.int8:
        step = 2 * max(parity.step for parity in conversion.parity)
        truth = results[kernel]
    else:
        for found in reference.jittered(feed):
            # A network that is not finite a rounding away says nothing of rounding.
            if all(np.isfinite(values).all() for values in found):
                others.append(ordered(_by_channel(found)))
    return _Trial(outputs, truth, others, [max(step, end.scale) for end in outputs])


def _by_channel(outputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return outputs in the shape `(examples, positions, channels)`."""
    return [y.reshape(len(y), -1, y.shape[-1] if y.ndim > 1 else 1) for y in outputs]


def _spread(values: np.ndarray) -> np.ndarray:
    """Return by how much each channel varies over examples and positions."""
    rows = values.reshape(-1, values.shape[-1]).astype("float64")
    # Of a channel that hardly varies no more is asked than float32 keeps of its size.
    return np.maximum(np.maximum(rows.std(axis=0), 0.01 * np.abs(rows).max(axis=0)), 1e-6)


def _worst(wanted: np.ndarray, got: np.ndarray, step: float, spread: np.ndarray) -> np.ndarray:
    got = got.reshape(wanted.shape)
    differences = np.nan_to_num(np.abs(wanted.astype("float64") - got), nan=np.inf)
    beyond = np.maximum(differences - step, 0) / spread
    return beyond.reshape(len(wanted), -1).max(axis=1)
