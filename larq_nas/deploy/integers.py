"""Integer inputs and outputs in place of float32, and what their integers stand for.

The network itself is not changed. A DEQUANTIZE turns the integers of an input into those that
the network was trained on, and a QUANTIZE rounds its outputs. Where the network computes in int8 at
its ends, these take the place of its own.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from larq_nas.deploy.export import run
from larq_nas.deploy.flatbuffer import (
    TYPE_NAMES,
    end_names,
    extract,
    operation,
    operators,
    ordered,
    read_model,
    write_model,
)
from larq_nas.deploy.operations import KERNELS, Kernel
from larq_nas.errors import ConversionError, InputError

if TYPE_CHECKING:
    from larq_nas.deploy.conversion import Conversion

NumberType = Literal["float32", "uint8", "int8"]
"""Types of the numbers that a flatbuffer takes and gives."""

NUMBER_TYPES: tuple[NumberType, ...] = ("float32", "uint8", "int8")
"""All of these types."""

LEAST = {"uint8": 0, "int8": -128}
"""The least integer of each type."""

_TYPES = {"uint8": schema.TensorType.UINT8, "int8": schema.TensorType.INT8}
# What outputs of these operations lie within, as TensorFlow Lite rounds them.
_FIXED = {"SOFTMAX": (0.0, 255 / 256), "LOGISTIC": (0.0, 255 / 256), "TANH": (-1.0, 127 / 128)}
# Other images go further than those seen, and what is cut off ties for the largest output.
_MARGIN = 0.1
# Float32's rounding, of the largest number that an input stands for.
_ROUNDING = 1e-6
_FLOAT = b"_float"
# How far from the middle between two steps a number may be that two roundings tell apart.
_TIE = 1e-3
_STEPS = 255
# What 0 and 255 are turned into by the usual preprocessing of images.
_USUAL = ((0.0, 255.0), (0.0, 1.0), (-1.0, 1.0), (-0.5, 0.5), (0.0, 255 / 256), (-1.0, 127 / 128))
_SIGNED = (-128.0, 127.0)
# Resized images lie between the integers, but nearly fill their range.
_FILLED = 0.02
_ON_STEP = 0.01
# So many levels of a channel show its step.
_LEVELS = 64


@dataclass(frozen=True)
class IntegerTensor:
    """An integer input or output.

    `q` stands for `scale * (q - zero_point) * factor + offset`.

    # Arguments
        name: name in the flatbuffer's signature.
        type: `"uint8"` or `"int8"`.
        scale: scale of the tensor, as its quantization parameters have it.
        zero_point: the integer that stands for 0, before `offset`.
        factor: for each channel a further scale, which the network multiplies with; empty for none.
        offset: what the network adds, one number or one for each channel; empty for none.
        note: how this was found.
    """

    name: str
    type: str
    scale: float
    zero_point: int
    factor: Sequence[float] = ()
    offset: Sequence[float] = ()
    note: str = ""

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """Return the integers that stand for `x`, or are the nearest to it."""
        x = (x - self._offset) / self._factor / np.float32(self.scale)
        first = LEAST[self.type]
        whole = np.clip(np.round(x) + self.zero_point, first, first + _STEPS)
        return np.asarray(whole.astype(self.type))

    def dequantize(self, q: np.ndarray) -> np.ndarray:
        """Return what the integers `q` stand for, in the steps of the flatbuffer."""
        x = np.float32(self.scale) * (q.astype("float32") - np.float32(self.zero_point))
        x = x * self._factor if self.factor else x
        return np.asarray(x + self._offset if self.offset else x)

    def is_rounded(self, x: np.ndarray, q: np.ndarray, tie: float) -> bool:
        """Return whether `q` is `x` rounded; a number within `tie` of two steps may be either."""
        exact = x / np.float32(self.scale) + self.zero_point
        first = LEAST[self.type]
        difference = np.abs(np.clip(exact, first, first + _STEPS) - q.astype("float32"))
        return bool(np.all(difference <= 0.5 + tie))

    @property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """What the smallest and the largest integer stand for."""
        first = LEAST[self.type]
        low, high = self.dequantize(np.array([[first], [first + _STEPS]]))
        return low, high

    @property
    def _factor(self) -> np.ndarray:
        return np.array(self.factor or 1.0, "float32")

    @property
    def _offset(self) -> np.ndarray:
        return np.array(self.offset or 0.0, "float32")

    def __str__(self) -> str:
        first = LEAST[self.type]
        low, high = (_numbers(end) for end in self.ends)
        note = f" ({self.note})" if self.note else ""
        return (
            f"`{self.name}` is {self.type}: {first} is {low}, {first + _STEPS} is {high}, scale "
            f"{self.scale:.7g}, zero point {self.zero_point}{self._affine}{note}"
        )

    @property
    def _affine(self) -> str:
        factor = f", then times {_numbers(self._factor)}" if self.factor else ""
        return factor + (f", then plus {_numbers(self._offset)}" if self.offset else "")


@dataclass(frozen=True)
class Integers:
    """Integer inputs and outputs, and what they change.

    # Arguments
        inputs: the inputs that are integers.
        outputs: the outputs that are.
        examples: number of examples compared.
        mean: mean difference from the outputs of float inputs, in standard deviations; of the
            output that differs most.
        agreement: share of the largest numbers along the last axis that are the same ones; `None`
            where outputs are single numbers.
        notes: which tensors were asked for and stay as the model has them.
    """

    inputs: Sequence[IntegerTensor]
    outputs: Sequence[IntegerTensor]
    examples: int
    mean: float
    agreement: float | None
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        lines = [f"input {tensor}" for tensor in self.inputs]
        lines += [f"output {tensor}" for tensor in self.outputs]
        same = "" if self.agreement is None else f", same largest output in {self.agreement:.1%}"
        lines.append(
            f"integers: outputs differ by {self.mean:.2%} of a standard deviation from those of "
            f"float inputs and outputs{same}, on {self.examples} examples"
        )
        lines += self.notes
        return "\n".join(lines)


def of_range(name: str, kind: str, low: float, high: float) -> IntegerTensor:
    """Return an integer output from `low` to `high`, 0 among them."""
    low, high = min(low, 0.0), max(high, 0.0)
    high = high if high > low else 1.0
    zero = round(-low * _STEPS / (high - low))
    below = -low / zero if zero else 0.0
    above = high / (_STEPS - zero) if zero < _STEPS else 0.0
    return IntegerTensor(name, kind, max(below, above), zero + LEAST[kind])


def of_pixels(name: str, kind: str, images: np.ndarray, given: Any = None) -> IntegerTensor:
    """Return what the integers of an input stand for: in int8, -128 is what 0 is in uint8.

    What the smallest and the largest stand for is `given`, or else shown by the images.

    # Raises
        InputError: if that is not given and the images do not show it.
    """
    note = "as given"
    if given is not None:
        low, high = _given(name, given, images.shape[-1])
        outside = float(np.mean((images < low) | (images > high)))
        if outside > 0:
            note += f"; {outside:.1%} of the numbers compared lie outside and are cut off"
    else:
        low, high, note = _found(name, images)
    step, first = (high - low) / _STEPS, LEAST[kind]
    if step.size > 1 and (np.ptp(step) or np.ptp(low)):
        factor, offset = (
            tuple(map(float, np.broadcast_to(x, (images.shape[-1],)))) for x in (step, low)
        )
        return IntegerTensor(name, kind, 1.0, first, factor, offset, note)
    width, start = float(step.flat[0]), float(low.flat[0])
    zero = min(max(round(-start / width), 0), _STEPS)
    rest = start + zero * width
    offset = (rest,) if abs(rest) > 1e-4 * width else ()
    return IntegerTensor(name, kind, width, zero + first, (), offset, note)


def _given(name: str, given: Any, channels: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        low, high = (np.asarray(end, "float64") for end in given)
        fits = all(end.shape in ((), (1,), (channels,)) for end in (low, high))
        sound = fits and bool(np.all(np.isfinite(low) & np.isfinite(high) & (low < high)))
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise InputError(
            f"`input_range` of input `{name}` must be what the smallest and the largest whole "
            f"number stand for, as (-1.0, 1.0), each a number or one for each of {channels} "
            f"channels, but got {given!r}."
        )
    low, high = np.broadcast_arrays(low, high)
    return low, high


def _found(name: str, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Return what 0 and 255 stand for, and how that was found."""
    least, most = float(images.min()), float(images.max())
    usual = (*_USUAL, _SIGNED) if least < 0 else _USUAL
    exact = [ends for ends in usual if least < most and _on_steps(images, *ends)]
    if len(exact) == 1:
        return *map(np.asarray, exact[0]), "found from the images, which lie on its steps"  # type: ignore[return-value]
    if len(exact) > 1:
        raise InputError(
            f"Input `{name}` holds only {least:g} and {most:g} or little more, which may be "
            f"{' or '.join(f'0 to 255 as {ends}' for ends in exact)}: give input_range=(low, "
            "high), what the smallest and the largest integer stand for."
        )
    rows = images.reshape(-1, images.shape[-1]).astype("float64")
    lows, highs = rows.min(axis=0), rows.max(axis=0)
    if all(
        _spans(images[..., channel], low, high)
        for channel, (low, high) in enumerate(zip(lows, highs, strict=True))
    ):
        return lows, highs, "found from the images, channel by channel"
    for low, high in _USUAL[:3]:
        room = _FILLED * (high - low)
        if low <= least <= low + room and high - room <= most <= high:
            note = f"taken for {low:g} to {high:g}, which the images nearly fill"
            return np.asarray(low), np.asarray(high), note
    raise InputError(
        f"What integers input `{name}` reads is not known: the images hold {least:.4g} to "
        f"{most:.4g}, which is no usual scale of 0 to 255; give input_range=(low, high), what "
        "the smallest and the largest integer stand for, each a number or one for each "
        "channel."
    )


def _on_steps(values: np.ndarray, low: float, high: float) -> bool:
    """Return whether all numbers are on the 256 steps from `low` to `high`."""
    steps = (values.astype("float64") - low) * (_STEPS / (high - low))
    on = np.abs(steps - np.round(steps)) <= _ON_STEP
    return bool(np.all(on & (steps > -_ON_STEP) & (steps < _STEPS + _ON_STEP)))


def _spans(values: np.ndarray, low: float, high: float) -> bool:
    """Return whether a channel has its 256 steps from its smallest to its largest number."""
    if not low < high or not _on_steps(values, low, high):
        return False
    steps = np.unique(np.round((values.astype("float64") - low) * (_STEPS / (high - low))))
    return len(steps) >= _LEVELS and float(np.diff(steps).min()) == 1.0


def _numbers(values: np.ndarray) -> str:
    flat = np.unique(values) if np.ptp(values) == 0 else values.reshape(-1)
    return f"{flat[0]:.6g}" if len(flat) == 1 else str([float(f"{x:.6g}") for x in flat])


# What each input or output becomes, in the model's order; `None` for those that stay.
_Ends: TypeAlias = Sequence[IntegerTensor | None]


def in_integers(
    conversion: "Conversion",
    images: Sequence[np.ndarray],
    kernels: Sequence[Kernel],
    *,
    input_type: NumberType = "float32",
    output_type: NumberType = "float32",
    input_range: Any = None,
) -> "Conversion":
    """Return a conversion with integer inputs and outputs, as `larq_nas.convert` describes them.

    # Raises
        InputError: if the images do not show what 0 to 255 stand for.
        ConversionError: if a kernel computes something else than without.
    """
    before = conversion.flatbuffer
    model = read_model(before)
    graph, notes = model.subgraphs[0], list[str]()
    names = end_names(model, "inputs") | end_names(model, "outputs")

    def changed(index: int, kind: NumberType) -> bool:
        """Return whether a tensor of the model becomes one of integers, or note why not."""
        given = TYPE_NAMES[graph.tensors[index].type].lower()
        if kind != "float32" and given not in ("float32", kind):
            notes.append(f"`{names[index]}` is {given}, as the model has it, not {kind}")
        return kind != "float32" and given == "float32"

    ranges = _ranges(input_range, len(images))
    inputs = [
        of_pixels(names[index], input_type, values, ends) if changed(index, input_type) else None
        for index, values, ends in zip(ordered(model, "inputs"), images, ranges, strict=True)
    ]
    seen = run(before, images, kernels[0], **KERNELS[kernels[0]])
    outputs = [
        _output(model, index, names[index], output_type, values)
        if changed(index, output_type)
        else None
        for index, values in zip(ordered(model, "outputs"), seen, strict=True)
    ]
    flatbuffer = with_integers(before, inputs, outputs)
    for kernel in kernels:
        _require_same(before, flatbuffer, inputs, outputs, images, kernel)
    # What the images lose is measured on the first kernel.
    integers = Integers(
        inputs=[tensor for tensor in inputs if tensor],
        outputs=[tensor for tensor in outputs if tensor],
        examples=len(images[0]),
        notes=notes,
        **_changes(seen, flatbuffer, inputs, outputs, images, kernels[0]),
    )
    counts = dict(Counter(op.kind for op in operators(flatbuffer)))
    int8 = conversion.int8
    return dataclasses.replace(
        conversion,
        flatbuffer=flatbuffer,
        audit=dataclasses.replace(conversion.audit, operations=counts),
        int8=int8 and dataclasses.replace(int8, bytes_after=len(flatbuffer)),
        integers=integers,
    )


def with_integers(flatbuffer: bytes, inputs: _Ends, outputs: _Ends) -> bytes:
    """Return a flatbuffer with integer inputs and outputs; those that are `None` stay."""
    editor = _Editor(read_model(flatbuffer))
    for index, tensor in zip(ordered(editor.model, "inputs"), inputs, strict=True):
        if tensor:
            editor.set_input(index, tensor)
    for index, tensor in zip(ordered(editor.model, "outputs"), outputs, strict=True):
        if tensor:
            editor.set_output(index, tensor)
    return editor.flatbuffer()


class _Editor:
    """Puts operations before and behind those of a model."""

    def __init__(self, model: schema.ModelT) -> None:
        self.model = model
        self.graph = model.subgraphs[0]
        self.graph.inputs, self.graph.outputs = [*self.graph.inputs], [*self.graph.outputs]
        self._before: list[schema.OperatorT] = []
        self._behind: list[schema.OperatorT] = []

    def flatbuffer(self) -> bytes:
        self.graph.operators = [*self._before, *self.graph.operators, *self._behind]
        return write_model(self.model)

    def set_input(self, index: int, tensor: IntegerTensor) -> None:
        given = self._tensor(tensor, self.graph.tensors[index])
        self._replace_end("inputs", index, given)
        for op in self._readers(index):
            # A network in int8 that counts alike reads the integers themselves.
            if operation(self.model, op) == "QUANTIZE" and self._counts_alike(op, tensor):
                if tensor.type == "uint8":
                    op.inputs = [given]
                else:
                    self.graph.operators = [one for one in self.graph.operators if one is not op]
                    for one in self._readers(op.outputs[0]):
                        one.inputs = [given if i == op.outputs[0] else i for i in one.inputs]
        if self._readers(index):
            self._dequantize(given, index, tensor)

    def set_output(self, index: int, tensor: IntegerTensor) -> None:
        (maker,) = [op for op in self.graph.operators if index in op.outputs] or [None]
        source = index
        if maker and operation(self.model, maker) == "DEQUANTIZE":
            source = maker.inputs[0]
        if source != index and tensor.type == "int8":
            # The network counts in int8 already, and the tensor was read off it.
            given = source
        else:
            given = self._tensor(tensor, self.graph.tensors[index])
            self._behind.append(self._operator("QUANTIZE", [source], [given]))
        self._replace_end("outputs", index, given)
        if source != index and not self._readers(index) and index not in self.graph.outputs:
            self.graph.operators = [op for op in self.graph.operators if op is not maker]

    def _dequantize(self, given: int, index: int, tensor: IntegerTensor) -> None:
        """Compute the float tensor `index` of the integers `given`."""
        steps = [("MUL", tensor.factor), ("ADD", tensor.offset)]
        steps = [(kind, values) for kind, values in steps if values]
        source = given
        for kind, values in [("DEQUANTIZE", ()), *steps]:
            last = (kind, values) == (steps[-1] if steps else ("DEQUANTIZE", ()))
            target = index if last else self._float_like(index)
            read = [source, self._constant(values)] if values else [source]
            self._before.append(self._operator(kind, read, [target]))
            source = target

    def _counts_alike(self, op: schema.OperatorT, tensor: IntegerTensor) -> bool:
        written = self.graph.tensors[op.outputs[0]]
        if written.type != schema.TensorType.INT8 or tensor.factor or tensor.offset:
            return False
        scale, zero = written.quantization.scale[0], written.quantization.zeroPoint[0]
        same = np.isclose(scale, tensor.scale, rtol=1e-6, atol=0.0)
        return bool(same) and zero == tensor.zero_point - LEAST[tensor.type] - 128

    def _readers(self, index: int) -> list[schema.OperatorT]:
        return [op for op in self.graph.operators if index in op.inputs]

    def _replace_end(self, side: str, index: int, given: int) -> None:
        """Let a tensor take the place and the name of a float input or output."""
        before, after = self.graph.tensors[index], self.graph.tensors[given]
        after.name, before.name = before.name, before.name + _FLOAT
        ends = getattr(self.graph, side)
        ends[ends.index(index)] = given
        for signature in self.model.signatureDefs or []:
            for entry in getattr(signature, side) if signature.subgraphIndex == 0 else ():
                entry.tensorIndex = given if entry.tensorIndex == index else entry.tensorIndex

    def _tensor(self, tensor: IntegerTensor, like: schema.TensorT) -> int:
        new = schema.TensorT()
        new.shape, new.shapeSignature = like.shape, like.shapeSignature
        new.type, new.name, new.hasRank = _TYPES[tensor.type], like.name, like.hasRank
        new.quantization = schema.QuantizationParametersT()
        new.quantization.scale = np.array([tensor.scale], "float32")
        new.quantization.zeroPoint = np.array([tensor.zero_point], "int64")
        return self._add(new)

    def _float_like(self, index: int) -> int:
        like, new = self.graph.tensors[index], schema.TensorT()
        new.shape, new.shapeSignature, new.hasRank = like.shape, like.shapeSignature, like.hasRank
        new.type, new.name = schema.TensorType.FLOAT32, like.name + b"_scaled"
        return self._add(new)

    def _constant(self, values: Sequence[float]) -> int:
        buffer = schema.BufferT()
        array = np.array(values, "float32")
        buffer.data = np.frombuffer(array.tobytes(), "uint8")
        self.model.buffers.append(buffer)
        new = schema.TensorT()
        new.shape, new.type = np.array(array.shape, "int32"), schema.TensorType.FLOAT32
        new.name, new.buffer = b"scale_of_input", len(self.model.buffers) - 1
        return self._add(new)

    def _add(self, tensor: schema.TensorT) -> int:
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def _operator(
        self, kind: str, inputs: Sequence[int], outputs: Sequence[int]
    ) -> schema.OperatorT:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
        code.version = 2 if kind == "DEQUANTIZE" else 1
        self.model.operatorCodes.append(code)
        op = schema.OperatorT()
        op.opcodeIndex = len(self.model.operatorCodes) - 1
        op.inputs, op.outputs = list(inputs), list(outputs)
        name = kind.capitalize() + "Options"
        op.builtinOptionsType = getattr(schema.BuiltinOptions, name)
        op.builtinOptions = getattr(schema, name + "T")()
        return op


def _ranges(given: Any, inputs: int) -> list[Any]:
    """Return the range given for each input."""
    if given is None or inputs == 1:
        return [given] * inputs
    if not isinstance(given, list) or len(given) != inputs:
        raise InputError(
            f"`input_range` must be a list of a pair (or None) for each of {inputs} inputs, but "
            f"got {given!r}."
        )
    return given


def _output(
    model: schema.ModelT, index: int, name: str, kind: NumberType, seen: np.ndarray
) -> IntegerTensor:
    """Return what the integers of an output stand for."""
    graph = model.subgraphs[0]
    made = {out: op for op in graph.operators for out in op.outputs}
    maker = operation(model, made[index]) if index in made else ""
    if maker == "DEQUANTIZE":
        counted = graph.tensors[made[index].inputs[0]]
        if counted.type == schema.TensorType.INT8:
            zero = int(counted.quantization.zeroPoint[0]) + 128 + LEAST[kind]
            return IntegerTensor(name, kind, float(counted.quantization.scale[0]), zero)
    if maker in _FIXED:
        return of_range(name, kind, *_FIXED[maker])
    low, high = float(seen.min()), float(seen.max())
    margin = _MARGIN * (high - low)
    return of_range(name, kind, low - margin if low < 0 else low, high + margin)


def _through(
    tensors: _Ends,
    values: Sequence[np.ndarray],
    function: Callable[[IntegerTensor, np.ndarray], np.ndarray],
) -> list[np.ndarray]:
    return [
        function(tensor, value) if tensor else value
        for tensor, value in zip(tensors, values, strict=True)
    ]


def _require_same(
    before: bytes,
    flatbuffer: bytes,
    inputs: _Ends,
    outputs: _Ends,
    images: Sequence[np.ndarray],
    kernel: Kernel,
) -> None:
    """Refuse a flatbuffer that does not compute what the one before does of the same numbers."""
    whole = _through(inputs, images, IntegerTensor.quantize)
    read = _read(flatbuffer, inputs, whole, kernel)
    expected = run(before, read, kernel, **KERNELS[kernel])
    got = run(flatbuffer, whole, kernel, **KERNELS[kernel])
    for tensor, one, other in zip(outputs, expected, got, strict=True):
        same = tensor.is_rounded(one, other, _TIE) if tensor else np.array_equal(one, other)
        if not same:
            name = tensor.name if tensor else "an output"
            raise ConversionError(
                f"With integer inputs and outputs, the {kernel} kernel gives another `{name}` than "
                "with float: convert with input_type and output_type 'float32'."
            )


def _read(
    flatbuffer: bytes,
    inputs: _Ends,
    whole: Sequence[np.ndarray],
    kernel: Kernel,
) -> list[np.ndarray]:
    """Return the float numbers that a kernel makes of whole ones, after a look at them.

    Kernels differ by the rounding of a float, which may turn a sign further on.
    """
    model = read_model(flatbuffer)
    graph = model.subgraphs[0]
    made = {int(out): n for n, op in enumerate(graph.operators) for out in op.outputs}
    floats = {graph.tensors[out].name: out for out in made}
    found = _through(inputs, whole, IntegerTensor.dequantize)
    for number, (tensor, index) in enumerate(zip(inputs, ordered(model, "inputs"), strict=True)):
        target = floats.get(graph.tensors[index].name + _FLOAT)
        if not tensor or target is None:
            continue
        chain = [made[target]]
        while graph.operators[chain[0]].inputs[0] != index:
            chain.insert(0, made[int(graph.operators[chain[0]].inputs[0])])
        part = extract(model, chain, [index], [target])
        (values,) = run(part, whole[number], kernel, **KERNELS[kernel])
        limit = _ROUNDING * max(float(np.abs(end).max()) for end in tensor.ends)
        if not np.all(np.abs(values - found[number]) <= limit):
            raise ConversionError(
                f"The {kernel} kernel reads other numbers from the integers of "
                f"`{tensor.name}` than they stand for: convert with input_type='float32'."
            )
        found[number] = values
    return found


def _changes(
    expected: Sequence[np.ndarray],
    flatbuffer: bytes,
    inputs: _Ends,
    outputs: _Ends,
    images: Sequence[np.ndarray],
    kernel: Kernel,
) -> dict[str, Any]:
    """Return how the outputs differ from those that float inputs and outputs give."""
    whole = _through(inputs, images, IntegerTensor.quantize)
    got = run(flatbuffer, whole, kernel, **KERNELS[kernel])
    found = _through(outputs, got, IntegerTensor.dequantize)
    same, mean = [], []
    for one, other in zip(expected, found, strict=True):
        difference = np.abs(other.astype("float32") - one.astype("float32"))
        mean.append(float(difference.mean()) / max(float(one.std()), 1e-6))
        if one.shape[-1] > 1:
            # Numbers that round to one step tie, and an app takes the first of them.
            same.append(float(np.mean(one.argmax(axis=-1) == other.argmax(axis=-1))))
    return {"agreement": min(same, default=None), "mean": max(mean)}
