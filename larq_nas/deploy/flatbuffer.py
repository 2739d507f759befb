"""Read the operations of a flatbuffer, and cut some of them out."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import flatbuffers
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from larq_nas.errors import InputError

_IDENTIFIER = b"TFL3"
# How the options of WHILE, IF, CALL_ONCE and the like name the subgraphs that they run.
_SUBGRAPH = "ubgraphIndex"

_BUILTIN = {
    value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)
}
TYPE_NAMES = {
    value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)
}
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
        index: its number, in the order the operations run.
        reads: indices of the tensors it reads that are no constants.
        writes: indices of the tensors it writes.
    """

    kind: str
    output: str
    filters: np.ndarray | None = field(default=None, repr=False, compare=False)
    type: str = "FLOAT32"
    step: float = 0.0
    steps: np.ndarray | None = field(default=None, repr=False, compare=False)
    index: int = field(default=-1, compare=False)
    reads: tuple[int, ...] = field(default=(), repr=False, compare=False)
    writes: tuple[int, ...] = field(default=(), repr=False, compare=False)


def read_model(flatbuffer: bytes) -> schema.ModelT:
    """Return the tables of `flatbuffer`.

    # Raises
        InputError: if it is none, or cut short: the interpreter would end the whole process.
    """
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(flatbuffer, 0))
        whole = flatbuffer[4:8] == _IDENTIFIER and _is_whole(model)
    except Exception:  # noqa: BLE001 - reading anything but a flatbuffer fails in many ways
        whole = False
    if not whole:
        raise InputError(
            "This is no .tflite file, or one that is cut short or damaged: take what "
            "larq_nas.convert wrote."
        )
    return model


def write_model(model: schema.ModelT) -> bytes:
    """Return the bytes of tables, which are changed: they lose what no operation uses."""
    for graph in model.subgraphs:
        _drop_tensors(model, graph)
    codes = sorted({op.opcodeIndex for graph in model.subgraphs for op in graph.operators})
    model.operatorCodes = [model.operatorCodes[index] for index in codes]
    for op in (op for graph in model.subgraphs for op in graph.operators):
        op.opcodeIndex = codes.index(op.opcodeIndex)
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    notes = model.metadata or []
    # The first buffer is that of all tensors that are not constant.
    used = sorted({0, *(tensor.buffer for tensor in tensors), *(note.buffer for note in notes)})
    model.buffers = [model.buffers[index] for index in used]
    for holder in (*tensors, *notes):
        holder.buffer = used.index(holder.buffer)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def _drop_tensors(model: schema.ModelT, graph: schema.SubGraphT) -> None:
    """Drop the tensors of `graph` that nothing refers to, and number the others anew."""
    lists = [[*graph.inputs], [*graph.outputs]]
    lists += [list(numbers) for op in graph.operators for numbers in (op.inputs, op.outputs)]
    lists += [list(op.intermediates) for op in graph.operators if op.intermediates is not None]
    used = sorted({index for numbers in lists for index in numbers if index >= 0})
    number = {-1: -1, **{old: new for new, old in enumerate(used)}}
    graph.tensors = [graph.tensors[index] for index in used]
    graph.inputs = [number[index] for index in graph.inputs]
    graph.outputs = [number[index] for index in graph.outputs]
    for op in graph.operators:
        op.inputs = [number[index] for index in op.inputs]
        op.outputs = [number[index] for index in op.outputs]
        if op.intermediates is not None:
            op.intermediates = [number[index] for index in op.intermediates]
    for signature in model.signatureDefs or []:
        if model.subgraphs[signature.subgraphIndex] is graph:
            for entry in (*signature.inputs, *signature.outputs):
                entry.tensorIndex = number[entry.tensorIndex]


def operation(model: schema.ModelT, operator: schema.OperatorT) -> str:
    """Return the kind of an operation, such as `"CONV_2D"` or `"LceBconv2d"`."""
    code = model.operatorCodes[operator.opcodeIndex]
    builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
    return code.customCode.decode() if code.customCode else _BUILTIN[builtin]


def _is_whole(model: schema.ModelT) -> bool:
    """Return whether operations refer to tensors and subgraphs that `model` has."""
    for graph in model.subgraphs:
        used = [i for op in graph.operators for i in (*op.inputs, *op.outputs)]
        called = [i for op in graph.operators for i in called_subgraphs(op).values()]
        if not all(-1 <= index < len(graph.tensors) for index in used):
            return False
        if not all(index < len(model.subgraphs) for index in called):
            return False
    return True


def is_constant(model: schema.ModelT, index: int) -> bool:
    """Return whether tensor `index` of the main subgraph holds numbers of its own.

    Those are constants, and the states that an operation keeps from one image to the next.
    """
    graph = model.subgraphs[0]
    if graph.tensors[index].isVariable:
        return not any(index in operator.outputs for operator in graph.operators)
    return model.buffers[graph.tensors[index].buffer].data is not None


def called_subgraphs(operator: schema.OperatorT) -> dict[str, int]:
    """Return the subgraphs that an operation such as WHILE runs, by the name of its option."""
    options = vars(operator.builtinOptions) if operator.builtinOptions else {}
    found = {name: index for name, index in options.items() if name.endswith(_SUBGRAPH)}
    return {name: index for name, index in found.items() if index >= 0}


def extract(
    model: schema.ModelT, operators: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]
) -> bytes:
    """Return a flatbuffer of some operations of a model.

    Constants and states are kept, and the subgraphs that the operations run. It has no
    signatures: an interpreter takes inputs and gives outputs in the order given here. Larq
    Compute Engine's takes a first axis for that of images: run what has none by its
    `interpreter.predict`, the wrapped one.

    # Arguments
        model: the tables of the whole, as `read_model` gives them; they are not changed.
        operators: indices of operations of the main subgraph, in the order they are to run.
        inputs: indices of tensors of the main subgraph that are given; others may be among them
            than the operations read, and constants may not.
        outputs: indices of tensors of the main subgraph that are read.
    """
    main = model.subgraphs[0]
    part = schema.ModelT()
    part.version, part.operatorCodes = model.version, model.operatorCodes
    part.buffers = model.buffers
    part.subgraphs = [_part(main, operators)]
    part.subgraphs[0].inputs, part.subgraphs[0].outputs = inputs, outputs
    if any(called_subgraphs(main.operators[index]) for index in operators):
        others = model.subgraphs[1:]
        part.subgraphs += [_part(graph, range(len(graph.operators))) for graph in others]
    return write_model(part)


def _part(graph: schema.SubGraphT, operators: Sequence[int]) -> schema.SubGraphT:
    """Return some operations of a graph, which can be changed."""
    part = copy.copy(graph)
    part.operators = [copy.copy(graph.operators[index]) for index in operators]
    part.tensors = [copy.copy(tensor) for tensor in graph.tensors]
    return part


def ordered(model: schema.ModelT, side: str) -> list[int]:
    """Return the tensors that are `"inputs"` or `"outputs"`, in the model's order: by name."""
    names = end_names(model, side)
    return sorted(map(int, getattr(model.subgraphs[0], side)), key=lambda index: names[index])


def end_names(model: schema.ModelT, side: str) -> dict[int, str]:
    """Return the names of `"inputs"` or `"outputs"` by tensor; one may be several outputs."""
    graph = model.subgraphs[0]
    names = {int(index): graph.tensors[index].name.decode() for index in getattr(graph, side)}
    for signature in model.signatureDefs or []:
        names |= {entry.tensorIndex: entry.name.decode() for entry in getattr(signature, side)}
    return names


def input_names(flatbuffer: bytes) -> list[str]:
    """Return the names of the inputs in the order an interpreter takes them."""
    model = read_model(flatbuffer)
    names = end_names(model, "inputs")
    return [names[index] for index in model.subgraphs[0].inputs]


def operators(flatbuffer: bytes) -> list[Operator]:
    """Return the operations of `flatbuffer` in the order they run."""
    model = read_model(flatbuffer)
    return [_operator(model, index) for index in range(len(model.subgraphs[0].operators))]


def output_names(flatbuffer: bytes) -> list[str]:
    """Return the names of the outputs in the order an interpreter gives them."""
    model = read_model(flatbuffer)
    names = end_names(model, "outputs")
    return [names[index] for index in model.subgraphs[0].outputs]


def pack_signs(kernel: np.ndarray) -> np.ndarray:
    """Return a kernel's signs as `LceBconv2d` holds them, filters first; a set bit is -1."""
    return pack(np.moveaxis(kernel < 0, -1, 0))


def pack(negative: np.ndarray) -> np.ndarray:
    """Return bits, the last axis the channels, as LceQuantize writes them: 32 to an int32."""
    spare = -negative.shape[-1] % 32
    padded = np.pad(negative, [(0, 0)] * (negative.ndim - 1) + [(0, spare)])
    packed = np.ascontiguousarray(np.packbits(padded, axis=-1, bitorder="little"))
    return packed.view("<i4")


def _operator(model: schema.ModelT, index: int) -> Operator:
    graph = model.subgraphs[0]
    operator = graph.operators[index]
    kind = operation(model, operator)
    filters = steps = None
    if kind in _FILTERED:
        filters = values(model, graph.tensors[operator.inputs[1]])
        steps = _steps(graph.tensors[operator.inputs[1]])
    output = graph.tensors[operator.outputs[0]]
    written = _steps(output)
    read = [int(read) for read in dict.fromkeys(operator.inputs) if read >= 0]
    return Operator(
        kind,
        output.name.decode(),
        filters,
        TYPE_NAMES[output.type],
        0.0 if written is None else float(written[0]),
        steps,
        index,
        reads=tuple(number for number in read if not is_constant(model, number)),
        writes=tuple(int(number) for number in operator.outputs),
    )


def _steps(tensor: schema.TensorT) -> np.ndarray | None:
    """Return what the numbers of an int8 tensor count in."""
    scale = None if tensor.quantization is None else tensor.quantization.scale
    if tensor.type != schema.TensorType.INT8 or scale is None:
        return None
    return np.asarray(scale, "float32")


def values(model: schema.ModelT, tensor: schema.TensorT) -> np.ndarray | None:
    """Return the numbers of a constant tensor; `None` for others, and other types."""
    data = model.buffers[tensor.buffer].data
    dtypes = {
        schema.TensorType.FLOAT32: "<f4",
        schema.TensorType.INT32: "<i4",
        schema.TensorType.INT8: "i1",
    }
    if data is None or tensor.type not in dtypes:
        return None
    shape = () if tensor.shape is None else tuple(tensor.shape)
    return np.frombuffer(bytes(data), dtypes[tensor.type]).reshape(shape)
