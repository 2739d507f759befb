"""Integer inputs and outputs in place of float32.

The network itself is not changed. A DEQUANTIZE turns the integers of an input into those that
the network was trained on, and a QUANTIZE rounds its outputs. Where the network computes in int8 at
its ends, these take the place of its own.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from larq_nas.deploy.conversion import Conversion
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
from larq_nas.deploy.quantization import (
    LEAST,
    Integers,
    IntegerTensor,
    NumberType,
    of_pixels,
    of_range,
)
from larq_nas.errors import ConversionError, InputError

# What each input or output becomes, in the model's order; `None` for those that stay.
_Ends: TypeAlias = Sequence[IntegerTensor | None]

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


def in_integers(
    conversion: Conversion,
    images: Sequence[np.ndarray],
    kernels: Sequence[Kernel],
    *,
    input_type: NumberType = "float32",
    output_type: NumberType = "float32",
    input_range: Any = None,
) -> Conversion:
    """Return a conversion with integer inputs and outputs, as `larq_nas.convert` describes them.

    # Raises
        InputError: if the images do not show what 0 to 255 stand for.
        ConversionError: if a kernel computes something else than without.
    """
    before = conversion.flatbuffer
    model = read_model(before)
    graph, names, notes = model.subgraphs[0], end_names(model), list[str]()

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
