"""Borders between int8 and float that the converter does not cross.

By itself the converter gives the steps of a rounded tensor to its neighbours. A float tensor then
has the steps of the tensor it is concatenated with, and larger numbers are cut off; a binary
convolution that pads with zeros gives int8, which no kernel can. The converter stops at an
operation that has no int8 form. So one marks each border while it converts, and is removed from
the flatbuffer afterwards.
"""

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from larq_nas.deploy.flatbuffer import operation, read_model, values, write_model
from larq_nas.layers.conv import is_exporting

__all__ = ["border", "without_borders"]

# No network computes with it by chance.
_MARK = np.float32(3.0718e37)
_FIXED = ("SOFTMAX", "LOGISTIC", "TANH")
# Operations that give numbers as they are, of one input.
_MOVES = ("RESHAPE", "SPLIT", "TRANSPOSE", "STRIDED_SLICE", "UNPACK", "SQUEEZE", "EXPAND_DIMS")


def border(x: tf.Tensor) -> tf.Tensor:
    """Return `x`; traced for the converter, behind an operation that marks a border."""
    return tf.math.floormod(x, _MARK) if is_exporting() else x


def without_borders(flatbuffer: bytes) -> bytes:
    """Return a flatbuffer without the operations that mark borders.

    The converter also rounds the output of a softmax, sigmoid or tanh by itself, as it knows their
    range. Within a layer in float, such as an attention, that rounding is removed.
    """
    model = read_model(flatbuffer)
    graph = model.subgraphs[0]
    kinds = [operation(model, op) for op in graph.operators]
    made = {int(out): n for n, op in enumerate(graph.operators) for out in op.outputs}
    readers: dict[int, list[int]] = {}
    for number, op in enumerate(graph.operators):
        for index in op.inputs:
            readers.setdefault(int(index), []).append(number)
    replaced: dict[int, int] = {}
    dropped: set[int] = set()
    for number, op in enumerate(graph.operators):
        source = int(op.inputs[0]) if len(op.inputs) else -1
        if kinds[number] == "FLOOR_MOD":
            if _is_mark(values(model, graph.tensors[op.inputs[1]])):
                replaced[int(op.outputs[0])] = source
                dropped.add(number)
            continue
        rounds = kinds[number] == "QUANTIZE" and kinds[made.get(source, number)] in _FIXED
        moved, ends = _moved(graph, kinds, readers, int(op.outputs[0])) if rounds else ([], [])
        if ends:
            replaced[int(op.outputs[0])] = source
            for index in moved:
                graph.tensors[index].type = schema.TensorType.FLOAT32
                graph.tensors[index].quantization = None
            for end in ends:
                replaced[int(graph.operators[end].outputs[0])] = int(graph.operators[end].inputs[0])
            dropped |= {number, *ends}
    graph.operators = [op for number, op in enumerate(graph.operators) if number not in dropped]
    for op in graph.operators:
        op.inputs = [_first(replaced, int(index)) for index in op.inputs]
    graph.outputs = [_first(replaced, int(index)) for index in graph.outputs]
    for signature in model.signatureDefs or []:
        for entry in signature.outputs:
            entry.tensorIndex = _first(replaced, entry.tensorIndex)
    return write_model(model)


def _moved(
    graph: schema.SubGraphT, kinds: list[str], readers: dict[int, list[int]], start: int
) -> tuple[list[int], list[int]]:
    """Return the tensors that numbers of `start` are moved to, and the DEQUANTIZEs behind them.

    Nothing, if something computes with them in int8.
    """
    moved, ends = [start], set[int]()
    for index in moved:
        for reader in readers.get(index, []):
            if kinds[reader] == "DEQUANTIZE":
                ends.add(reader)
            elif kinds[reader] in _MOVES and index not in graph.outputs:
                outputs = map(int, graph.operators[reader].outputs)
                moved += [output for output in outputs if output not in moved]
            else:
                return [], []
    return moved, sorted(ends)


def _first(replaced: dict[int, int], index: int) -> int:
    while index in replaced:
        index = replaced[index]
    return index


def _is_mark(constant: np.ndarray | None) -> bool:
    return constant is not None and constant.size == 1 and constant.reshape(-1)[0] == _MARK
