"""Reads the operations of a flatbuffer, and the filters of its convolutions."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from larq_nas.errors import InputError

__all__ = ["Operator", "input_names", "operators", "output_names", "pack_signs", "read_model"]

_BUILTIN = {
    value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)
}
_TYPES = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
_FILTERED = {"LceBconv2d", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"}


@dataclass(frozen=True)
class Operator:
    """One operation of a flatbuffer.

    # Arguments
        kind: the operation, such as `"LceBconv2d"` or `"CONV_2D"`.
        output: name of its first output tensor.
        filters: the filters of a convolution or dense layer, first axis the filters: 32
            signs to an int32 for `LceBconv2d` (a set bit is -1), numbers otherwise.
        type: type of its output, such as `"FLOAT32"` or `"INT8"`.
        step: what an int8 output counts in; 0 for others.
        steps: what int8 filters count in, one for each or one for all; `None` for others.
    """

    kind: str
    output: str
    filters: np.ndarray | None = field(default=None, repr=False, compare=False)
    type: str = "FLOAT32"
    step: float = 0.0
    steps: np.ndarray | None = field(default=None, repr=False, compare=False)


def read_model(flatbuffer: bytes) -> schema.ModelT:
    """Return the tables of `flatbuffer`.

    # Raises
        InputError: if it is none, or cut short: the interpreter would end the whole process.
    """
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(flatbuffer, 0))
        whole = flatbuffer[4:8] == b"TFL3" and all(map(_is_whole, model.subgraphs))
    except Exception:  # noqa: BLE001 - reading anything but a flatbuffer fails in many ways
        whole = False
    if not whole:
        raise InputError(
            "This is no .tflite file, or one that is cut short or damaged: take what "
            "larq_nas.convert wrote."
        )
    return model


def _is_whole(graph: schema.SubGraphT) -> bool:
    """Return whether the operations of `graph` refer to tensors that it has."""
    used = [i for op in graph.operators for i in (*op.inputs, *op.outputs)]
    return all(-1 <= index < len(graph.tensors) for index in used)


def input_names(flatbuffer: bytes) -> list[str]:
    """Return the names of the inputs in the order an interpreter takes them."""
    model = read_model(flatbuffer)
    names = {entry.tensorIndex: entry.name.decode() for entry in model.signatureDefs[0].inputs}
    return [names[index] for index in model.subgraphs[0].inputs]


def operators(flatbuffer: bytes) -> list[Operator]:
    """Return the operations of `flatbuffer` in the order they run."""
    model = read_model(flatbuffer)
    return list(_operators(model))


def output_names(flatbuffer: bytes) -> list[str]:
    """Return the names of the outputs in the order an interpreter gives them."""
    model = read_model(flatbuffer)
    names = {entry.tensorIndex: entry.name.decode() for entry in model.signatureDefs[0].outputs}
    return [names[index] for index in model.subgraphs[0].outputs]


def pack_signs(kernel: np.ndarray) -> np.ndarray:
    """Return a kernel's signs as `LceBconv2d` holds them.

    # Arguments
        kernel: shape `(height, width, inputs, filters)`.

    # Returns
        Shape `(filters, height, width, ceil(inputs / 32))`, int32; a set bit is -1.
    """
    bits = np.moveaxis(kernel < 0, -1, 0)
    spare = -bits.shape[-1] % 32
    bits = np.pad(bits, [(0, 0)] * 3 + [(0, spare)])
    packed = np.ascontiguousarray(np.packbits(bits, axis=-1, bitorder="little"))
    words: np.ndarray = packed.view("<i4")
    return words


def _operators(model: schema.ModelT) -> Iterator[Operator]:
    graph = model.subgraphs[0]
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
        kind = code.customCode.decode() if code.customCode else _BUILTIN[builtin]
        filters = steps = None
        if kind in _FILTERED:
            filters = _values(model, graph.tensors[operator.inputs[1]])
            steps = _steps(graph.tensors[operator.inputs[1]])
        output = graph.tensors[operator.outputs[0]]
        written = _steps(output)
        step = 0.0 if written is None else float(written[0])
        yield Operator(kind, output.name.decode(), filters, _TYPES[output.type], step, steps)


def _steps(tensor: schema.TensorT) -> np.ndarray | None:
    """Return what the numbers of an int8 tensor count in."""
    scale = None if tensor.quantization is None else tensor.quantization.scale
    if tensor.type != schema.TensorType.INT8 or scale is None:
        return None
    return np.asarray(scale, "float32")


def _values(model: schema.ModelT, tensor: schema.TensorT) -> np.ndarray | None:
    data = model.buffers[tensor.buffer].data
    dtypes = {
        schema.TensorType.FLOAT32: "<f4",
        schema.TensorType.INT32: "<i4",
        schema.TensorType.INT8: "i1",
    }
    if data is None or tensor.type not in dtypes:
        return None
    values: np.ndarray = np.frombuffer(bytes(data), dtypes[tensor.type]).reshape(tensor.shape)
    return values
