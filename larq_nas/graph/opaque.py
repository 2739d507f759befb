"""Convert a call alone to learn which operations it becomes."""

import functools
import logging
import tempfile
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from larq_nas.layers.conv import exporting
from larq_nas.process_state import restoring_root_log

# What the tables of a file take, fitted to flatbuffers of all spaces.
TENSOR_BYTES = 138
"""Bytes for a tensor and the operation that writes it."""

CONSTANT_BYTES = 91
"""Bytes for a constant, beside what it holds."""

KIND_BYTES = 30
"""Bytes for each kind of operation."""

_BUILTIN = {
    value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)
}


@dataclass(frozen=True)
class Opaque:
    """A call, converted alone.

    # Arguments
        kinds: the operations, in their order.
        bytes: what its constants add to a flatbuffer.
        affine: how many operations it begins with that only multiply by a number, or add one.
    """

    kinds: tuple[str, ...]
    bytes: int
    affine: int = 0

    def behind_convolution(self) -> "Opaque":
        """Return what is left of it behind a convolution, which takes in factors and offsets."""
        taken = self.affine * (CONSTANT_BYTES + 4)
        return Opaque(self.kinds[self.affine :], self.bytes - taken)


_known: WeakKeyDictionary[Any, dict[Hashable, Opaque | None]] = WeakKeyDictionary()


def convert_alone(
    function: Any, specs: Sequence[tf.TensorSpec], layer: Any, part: Hashable
) -> Opaque | None:
    """Return what becomes of a function; `None` if it does not convert.

    # Arguments
        function: from tensors to a list of tensors.
        specs: shapes and types of what it takes, of one image.
        layer: the layer whose variables it reads.
        part: which part of the layer it is; each is converted once.
    """
    known = _known.setdefault(layer, {})
    if part not in known:
        flatbuffer = _flatbuffer(function, specs, layer)
        known[part] = _read(flatbuffer, len(specs)) if flatbuffer is not None else None
    return known[part]


def _read(flatbuffer: bytes, inputs: int) -> Opaque:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(flatbuffer, 0))
    codes = [model.operatorCodes[op.opcodeIndex] for op in model.subgraphs[0].operators]
    kinds = tuple(
        str(code.customCode.decode())
        if code.customCode
        else _BUILTIN[max(code.builtinCode, code.deprecatedBuiltinCode)]
        for code in codes
    )
    size = _without_operations(flatbuffer) - _empty(inputs)
    return Opaque(kinds, size, _leading_affine(model, kinds))


def _without_operations(flatbuffer: bytes) -> int:
    """Return the bytes of a flatbuffer without its operations and one tensor for each."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(flatbuffer, 0))
    operations = len(model.subgraphs[0].operators)
    tables = KIND_BYTES * len(model.operatorCodes) + TENSOR_BYTES * operations
    return len(flatbuffer) - tables


def _leading_affine(model: schema.ModelT, kinds: Sequence[str]) -> int:
    """Return how many operations lead from the input, one by one, that are affine."""
    graph = model.subgraphs[0]
    count, tensor = 0, graph.inputs[0]
    for op, kind in zip(graph.operators, kinds, strict=True):
        readers = sum(tensor in other.inputs for other in graph.operators)
        constants = [
            i for i in op.inputs if model.buffers[graph.tensors[i].buffer].data is not None
        ]
        plain = not getattr(op.builtinOptions, "fusedActivationFunction", 0)
        if readers > 1 or kind not in ("MUL", "ADD", "SUB") or len(constants) != 1 or not plain:
            break
        count, tensor = count + 1, op.outputs[0]
    return count


@cache
def _empty(inputs: int) -> int:
    """Return the bytes of a flatbuffer with so many inputs, but for its operations."""
    specs = [tf.TensorSpec((1, 4, 4, 4), tf.float32)] * inputs
    added = _flatbuffer(lambda *x: [tf.nn.relu(functools.reduce(tf.add, x))], specs, None)
    return _without_operations(added) if added else 0


def _flatbuffer(function: Any, specs: Sequence[tf.TensorSpec], layer: Any) -> bytes | None:
    """Return a function as a flatbuffer: the engine's if it is here, else TensorFlow Lite's."""
    logger = tf.get_logger()
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        with restoring_root_log(), exporting(), tempfile.TemporaryDirectory() as folder:
            traced = tf.function(function, specs).get_concrete_function()
            module = tf.Module()
            module.variables_of_layer = [*getattr(layer, "variables", ()), *traced.variables]
            tf.saved_model.save(module, folder, signatures=traced)
            flatbuffer: bytes = _convert(folder)
    except Exception:  # noqa: BLE001 - what the converter refuses is not known then
        return None
    finally:
        logger.setLevel(level)
    return flatbuffer


def _convert(folder: str) -> Any:
    try:
        import larq_compute_engine
    except ImportError:
        return tf.lite.TFLiteConverter.from_saved_model(folder).convert()
    return larq_compute_engine.convert_saved_model(folder)
