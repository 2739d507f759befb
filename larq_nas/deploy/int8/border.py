"""Borders between int8 and float that the converter does not cross.

Left alone, the converter spreads steps from a rounded tensor to its neighbours: it gives a float
tensor the steps of what it is concatenated with, and cuts off what does not fit; and it lets binary
convolutions that pad with zeros give int8, which no kernel can. It does not reach through an
operation that has no int8 form, so one stands at each border, and is taken out of the flatbuffer.
"""

import numpy as np
import tensorflow as tf

from larq_nas.deploy.flatbuffer import operation, read_model, values, write_model
from larq_nas.layers.conv import is_exporting

__all__ = ["border", "without_borders"]

# No network computes with it by chance.
_MARK = np.float32(3.0718e37)
_FIXED = ("SOFTMAX", "LOGISTIC", "TANH")


def border(x: tf.Tensor) -> tf.Tensor:
    """Return `x`; traced for the converter, behind an operation that marks a border."""
    return tf.math.floormod(x, _MARK) if is_exporting() else x


def without_borders(flatbuffer: bytes) -> bytes:
    """Return a flatbuffer without the operations that mark borders.

    So goes what the converter rounds by itself within a layer in float, as in an attention: the
    output of a softmax, sigmoid or tanh, of which it knows the range.
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
        behind = readers.get(int(op.outputs[0]), [])
        if kinds[number] == "FLOOR_MOD":
            if _is_mark(values(model, graph.tensors[op.inputs[1]])):
                replaced[int(op.outputs[0])] = source
                dropped.add(number)
            continue
        rounds = kinds[number] == "QUANTIZE" and kinds[made.get(source, number)] in _FIXED
        if rounds and behind and all(kinds[reader] == "DEQUANTIZE" for reader in behind):
            replaced |= {int(graph.operators[reader].outputs[0]): source for reader in behind}
            dropped |= {number, *behind}
    graph.operators = [op for number, op in enumerate(graph.operators) if number not in dropped]
    for op in graph.operators:
        op.inputs = [_first(replaced, int(index)) for index in op.inputs]
    graph.outputs = [_first(replaced, int(index)) for index in graph.outputs]
    for signature in model.signatureDefs or []:
        for entry in signature.outputs:
            entry.tensorIndex = _first(replaced, entry.tensorIndex)
    return write_model(model)


def _first(replaced: dict[int, int], index: int) -> int:
    while index in replaced:
        index = replaced[index]
    return index


def _is_mark(constant: np.ndarray | None) -> bool:
    return constant is not None and constant.size == 1 and constant.reshape(-1)[0] == _MARK
