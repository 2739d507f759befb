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
from larq_nas.errors import InputError

__all__ = ["Piece", "cut", "hollow", "values"]

_NO_NUMBERS = (
    schema.TensorType.RESOURCE,
    schema.TensorType.STRING,
    schema.TensorType.VARIANT,
)


@dataclass(frozen=True)
class Piece:
    """One operation of a flatbuffer as a model of its own.

    # Arguments
        kind: the operation, such as `"LceBconv2d"`.
        name: name of its first output tensor.
        model: is given what the operation reads and what it will write over, and runs it.
        hollow: is given the same, and runs nothing.
        given: indices of those tensors in the flatbuffer. Both models have one more input, a
            number that they pass to their output.
    """

    kind: str
    name: str
    model: bytes
    hollow: bytes
    given: tuple[int, ...]


def cut(flatbuffer: bytes) -> list[Piece]:
    """Return a model for each operation of `flatbuffer`, in the order they run.

    An operation that runs subgraphs, such as the loop of a recurrent layer, is one.

    # Raises
        InputError: if operations share a variable, or pass on what is no array of numbers.
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


def values(flatbuffer: bytes) -> tuple[bytes, list[int]]:
    """Return a model of all operations that gives each tensor, and the tensors' indices."""
    model = read_model(flatbuffer)
    graph = model.subgraphs[0]
    written = [int(index) for operator in graph.operators for index in operator.outputs]
    tensors = [*map(int, graph.inputs), *written]
    return extract(model, range(len(graph.operators)), graph.inputs, tensors), tensors


def _require_numbers(model: schema.ModelT, flatbuffer: bytes) -> None:
    tensors = model.subgraphs[0].tensors
    pairs = zip(operators(flatbuffer), model.subgraphs[0].operators, strict=True)
    refused = [
        found.kind
        for found, operator in pairs
        if any(
            tensors[index].type in _NO_NUMBERS
            for index in (*operator.inputs, *operator.outputs)
            if index >= 0
        )
    ]
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
    extended = copy.copy(model)
    extended.subgraphs = [copy.copy(model.subgraphs[0]), *model.subgraphs[1:]]
    tensors = model.subgraphs[0].tensors
    extended.subgraphs[0].tensors = [*tensors, _number()]
    return extract(extended, kept, [*inputs, len(tensors)], [len(tensors)])


def _number() -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type = b"passed_through", [1], schema.TensorType.FLOAT32
    return tensor
