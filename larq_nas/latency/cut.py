"""Cuts a flatbuffer into one model per operation."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import flatbuffers
from tensorflow.lite.python import schema_py_generated as schema

from larq_nas.deploy.flatbuffer import operators, read_model

__all__ = ["Piece", "cut", "hollow"]

_IDENTIFIER = b"TFL3"


@dataclass(frozen=True)
class Piece:
    """One operation of a flatbuffer as a model of its own.

    # Arguments
        kind: the operation, such as `"LceBconv2d"`.
        name: name of its first output tensor.
        model: is given what the operation reads and what it will write over, and runs it.
        hollow: is given the same, and runs nothing.
    """

    kind: str
    name: str
    model: bytes
    hollow: bytes


def cut(flatbuffer: bytes) -> list[Piece]:
    """Return a model for each operation of `flatbuffer`, in the order they run."""
    model = _read(flatbuffer)
    pieces = []
    graph = model.subgraphs[0]
    for found, operator in zip(operators(flatbuffer), graph.operators, strict=True):
        # A tensor that is read twice is one input; an optional one that is absent is -1.
        inputs = [i for i in dict.fromkeys(operator.inputs) if i >= 0 and not _holds(model, i)]
        # In the whole, memory that an operation writes was used shortly before. Here, giving it
        # numbers brings it into the caches.
        given = [*inputs, *operator.outputs]
        alone, nothing = _part(model, [operator], given), _part(model, [], given)
        pieces.append(Piece(found.kind, found.output, alone, nothing))
    return pieces


def hollow(flatbuffer: bytes) -> bytes:
    """Return a model that reads the inputs of `flatbuffer` and runs nothing."""
    model = _read(flatbuffer)
    return _part(model, [], model.subgraphs[0].inputs)


def _read(flatbuffer: bytes) -> schema.ModelT:
    return read_model(flatbuffer)


def _holds(model: schema.ModelT, index: int) -> bool:
    """Return whether tensor `index` is a constant."""
    return model.buffers[model.subgraphs[0].tensors[index].buffer].data is not None


def _part(model: schema.ModelT, kept: Sequence[schema.OperatorT], inputs: Sequence[int]) -> bytes:
    """Return a model of the operations `kept`.

    Its output is a number that it is given: what the operations write is not copied out, so
    that a model with an operation and one without differ in nothing else.
    """
    part = _Part(model)
    graph = schema.SubGraphT()
    graph.operators = [part.operator(operator) for operator in kept]
    passed = part.add(_number())
    graph.inputs = [*(part.tensor(index) for index in inputs), passed]
    graph.outputs = [passed]
    graph.tensors = part.tensors
    whole = schema.ModelT()
    whole.version, whole.operatorCodes = model.version, model.operatorCodes
    whole.buffers, whole.subgraphs = part.buffers, [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(whole.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def _number() -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type = b"passed_through", [1], schema.TensorType.FLOAT32
    return tensor


class _Part:
    """The tensors and constants that a part of a model needs, numbered anew."""

    def __init__(self, model: schema.ModelT) -> None:
        self._model = model
        # The first buffer is that of all tensors that are not constant.
        self.buffers: list[schema.BufferT] = [schema.BufferT()]
        self.tensors: list[schema.TensorT] = []
        self._numbers: dict[int, int] = {-1: -1}

    def add(self, tensor: schema.TensorT) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def tensor(self, index: int) -> int:
        """Return the new number of tensor `index`."""
        if index not in self._numbers:
            tensor = copy.copy(self._model.subgraphs[0].tensors[index])
            buffer = self._model.buffers[tensor.buffer]
            tensor.buffer = 0
            if buffer.data is not None:
                tensor.buffer = len(self.buffers)
                self.buffers.append(buffer)
            self._numbers[index] = self.add(tensor)
        return self._numbers[index]

    def operator(self, operator: schema.OperatorT) -> schema.OperatorT:
        renumbered = copy.copy(operator)
        renumbered.inputs = [self.tensor(index) for index in operator.inputs]
        renumbered.outputs = [self.tensor(index) for index in operator.outputs]
        return renumbered
