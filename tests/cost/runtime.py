"""What a real flatbuffer holds and needs, read from its own tables."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from larq_nas.deploy.export import export
from larq_nas.deploy.flatbuffer import operators

_SIZES = {schema.TensorType.FLOAT32: 4, schema.TensorType.INT32: 4, schema.TensorType.BOOL: 1}


@dataclass(frozen=True)
class Flatbuffer:
    """The figures of a converted model."""

    bytes: int
    kinds: list[str]
    peak: int


def convert(model: tf.keras.Model) -> Flatbuffer:
    data = export(model)
    kinds = [operator.kind for operator in operators(data)]
    return Flatbuffer(len(data), kinds, _peak(data))


def _peak(data: bytes) -> int:
    """Most bytes of tensors alive at once: from what writes them to the last that reads."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
    graph = model.subgraphs[0]
    steps: dict[int, list[int]] = {}
    for step, operator in enumerate(graph.operators):
        for index in (*operator.inputs, *operator.outputs):
            # An optional input that is not given has index -1; constants are no activations.
            if index >= 0 and model.buffers[graph.tensors[index].buffer].data is None:
                steps.setdefault(index, []).append(step)
    alive = np.zeros(len(graph.operators), dtype=np.int64)
    for index, used in steps.items():
        tensor = graph.tensors[index]
        size = int(np.prod(tensor.shape)) * _SIZES[tensor.type]
        alive[min(used) : max(used) + 1] += size
    return int(alive.max())
