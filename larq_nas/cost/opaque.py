"""What the converter makes of a call whose operations are not known: found by converting it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from larq_nas.cost.graph import Call, call_layer
from larq_nas.cost.operators import TENSOR_BYTES

__all__ = ["Opaque", "converted_alone"]

_BUILTIN = {
    value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)
}
_known: WeakKeyDictionary[Any, dict[int, "Opaque | None"]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Opaque:
    """A call, converted alone.

    # Arguments
        kinds: the operations, in their order.
        bytes: what it adds to a flatbuffer.
    """

    kinds: tuple[str, ...]
    bytes: int


def converted_alone(call: Call, read: Sequence[Call]) -> Opaque | None:
    """Return what becomes of `call`; `None` if it does not convert.

    # Arguments
        call: a call of any layer.
        read: the calls it reads.
    """
    known = _known.setdefault(call.layer, {})
    if call.index not in known:
        types = [tensor.dtype for tensor in call.layer._inbound_nodes[call.index].keras_inputs]
        specs = [
            tf.TensorSpec((1, *source.shape), dtype)
            for source, dtype in zip(read, types, strict=True)
        ]
        known[call.index] = _convert(lambda *inputs: call_layer(call, inputs), specs)
    return known[call.index]


def _convert(function: Any, specs: Sequence[tf.TensorSpec]) -> Opaque | None:
    found = _flatbuffer(function, specs)
    if found is None:
        return None
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(found, 0))
    codes = [model.operatorCodes[op.opcodeIndex] for op in model.subgraphs[0].operators]
    kinds = [_BUILTIN.get(max(c.builtinCode, c.deprecatedBuiltinCode), "CUSTOM") for c in codes]
    return Opaque(tuple(kinds), len(found) - _empty())


@cache
def _empty() -> int:
    """Return the bytes of a flatbuffer of one operation without constants, but for that."""
    of_relu = _flatbuffer(lambda x: [tf.nn.relu(x)], [tf.TensorSpec((1, 4, 4, 4), tf.float32)])
    return len(of_relu or b"") - TENSOR_BYTES


def _flatbuffer(function: Any, specs: Sequence[tf.TensorSpec]) -> bytes | None:
    logger = tf.get_logger()
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        traced = tf.function(function, specs).get_concrete_function()
        converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], function)
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.TFLITE_BUILTINS,
            tf.lite.OpsSet.SELECT_TF_OPS,
        ]
        flatbuffer: bytes = converter.convert()
    except Exception:  # noqa: BLE001 - what the converter refuses is not known then
        return None
    finally:
        logger.setLevel(level)
    return flatbuffer
