"""Read the operations of a flatbuffer, and cut some of them out."""

import copy
from collections.abc import Iterator, Sequence
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
    """Return the bytes of a flatbuffer, without what none of its operations uses.

    # Arguments
        model: its tables, which are changed.
    """
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
    part = _Part(model)
    part.add(model.subgraphs[0], operators, inputs, outputs)
    whole = schema.ModelT()
    whole.version, whole.operatorCodes = model.version, model.operatorCodes
    whole.buffers, whole.subgraphs = part.buffers, part.subgraphs
    builder = flatbuffers.Builder(1024)
    builder.Finish(whole.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


class _Part:
    """The subgraphs and constants that some operations of a model need, numbered anew."""

    def __init__(self, model: schema.ModelT) -> None:
        self._model = model
        # The first buffer is that of all tensors that are not constant.
        self.buffers: list[schema.BufferT] = [schema.BufferT()]
        self.subgraphs: list[schema.SubGraphT] = []
        self._numbers: dict[int, int] = {}

    def add(
        self,
        whole: schema.SubGraphT,
        operators: Sequence[int],
        inputs: Sequence[int],
        outputs: Sequence[int],
    ) -> int:
        """Add these operations of the subgraph `whole`, and return their subgraph's number."""
        graph = schema.SubGraphT()
        number = len(self.subgraphs)
        self.subgraphs.append(graph)
        # An optional tensor that is absent is -1.
        numbers = {-1: -1}
        graph.name, graph.tensors = whole.name, []

        def renumber(indices: Sequence[int] | None) -> list[int]:
            # Arrays of NumPy, lists and None alike stand for indices.
            for index in map(int, () if indices is None else indices):
                if index not in numbers:
                    numbers[index] = len(graph.tensors)
                    graph.tensors.append(self._tensor(whole.tensors[index]))
            return [numbers[int(index)] for index in (() if indices is None else indices)]

        graph.inputs = renumber(inputs)
        graph.operators = []
        for index in operators:
            operator = copy.copy(whole.operators[index])
            operator.inputs = renumber(operator.inputs)
            operator.outputs = renumber(operator.outputs)
            operator.intermediates = renumber(operator.intermediates)
            operator.builtinOptions = copy.copy(operator.builtinOptions)
            for name, called in called_subgraphs(operator).items():
                setattr(operator.builtinOptions, name, self._called(called))
            graph.operators.append(operator)
        graph.outputs = renumber(outputs)
        return number

    def _called(self, index: int) -> int:
        """Return the new number of a subgraph that an operation runs."""
        if index not in self._numbers:
            graph = self._model.subgraphs[index]
            self._numbers[index] = self.add(
                graph, range(len(graph.operators)), graph.inputs, graph.outputs
            )
        return self._numbers[index]

    def _tensor(self, tensor: schema.TensorT) -> schema.TensorT:
        tensor = copy.copy(tensor)
        buffer = self._model.buffers[tensor.buffer]
        tensor.buffer = 0
        if buffer.data is not None:
            tensor.buffer = len(self.buffers)
            self.buffers.append(buffer)
        return tensor


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
        kind = operation(model, operator)
        filters = steps = None
        if kind in _FILTERED:
            filters = values(model, graph.tensors[operator.inputs[1]])
            steps = _steps(graph.tensors[operator.inputs[1]])
        output = graph.tensors[operator.outputs[0]]
        written = _steps(output)
        step = 0.0 if written is None else float(written[0])
        yield Operator(kind, output.name.decode(), filters, TYPE_NAMES[output.type], step, steps)


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
    constant: np.ndarray = np.frombuffer(bytes(data), dtypes[tensor.type]).reshape(shape)
    return constant
