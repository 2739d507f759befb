"""Cuts a flatbuffer into one model per operation."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from tensorflow.lite.python import schema_py_generated as schema

from larq_nas.deploy.flatbuffer import (
    called_subgraphs,
    extract,
    is_constant,
    operators,
    read_model,
)

__all__ = ["Piece", "cut", "hollow"]


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
    """Return a model for each operation of `flatbuffer`, in the order they run.

    An operation that runs subgraphs, such as the loop of a recurrent layer, is one.
    """
    model = read_model(flatbuffer)
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
        pieces.append(Piece(found.kind, found.output, alone, nothing))
    return pieces


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
