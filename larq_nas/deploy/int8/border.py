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


def border(x: tf.Tensor) -> tf.Tensor:
    """Return `x`; traced for the converter, behind an operation that marks a border."""
    return tf.math.floormod(x, _MARK) if is_exporting() else x


def without_borders(flatbuffer: bytes) -> bytes:
    """Return a flatbuffer without the operations that mark borders."""
    model = read_model(flatbuffer)
    graph = model.subgraphs[0]
    replaced: dict[int, int] = {}
    kept = []
    for op in graph.operators:
        op.inputs = [replaced.get(index, index) for index in op.inputs]
        marks = operation(model, op) == "FLOOR_MOD" and _is_mark(
            values(model, graph.tensors[op.inputs[1]])
        )
        if marks:
            replaced[op.outputs[0]] = op.inputs[0]
        else:
            kept.append(op)
    graph.operators = kept
    return write_model(model)


def _is_mark(constant: np.ndarray | None) -> bool:
    return constant is not None and constant.size == 1 and constant.reshape(-1)[0] == _MARK
