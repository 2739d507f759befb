"""What the converter makes of a call whose operations are not known: found by converting it."""

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from larq_nas.cost.graph import Call, call_layer
from larq_nas.cost.operators import TENSOR_BYTES
from larq_nas.layers.conv import exporting

__all__ = ["Opaque", "converted_alone", "quantizer_alone"]

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
        known[call.index] = _convert(lambda *inputs: call_layer(call, inputs), specs, call.layer)
    return known[call.index]


def quantizer_alone(quantizer: Any, shape: Sequence[int]) -> Opaque | None:
    """Return what becomes of a quantizer of inputs of such a shape, that of its batch left out."""
    spec = tf.TensorSpec((1, *shape), tf.float32)
    return _convert(lambda x: [quantizer(x)], [spec], quantizer)


def _convert(function: Any, specs: Sequence[tf.TensorSpec], layer: Any) -> Opaque | None:
    found = _flatbuffer(function, specs, layer)
    if found is None:
        return None
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(found, 0))
    codes = [model.operatorCodes[op.opcodeIndex] for op in model.subgraphs[0].operators]
    return Opaque(tuple(map(_kind, codes)), len(found) - _empty())


def _kind(code: schema.OperatorCodeT) -> str:
    if code.customCode:
        return str(code.customCode.decode())
    return _BUILTIN[max(code.builtinCode, code.deprecatedBuiltinCode)]


@cache
def _empty() -> int:
    """Return the bytes of a flatbuffer of one operation without constants, but for that."""
    spec = tf.TensorSpec((1, 4, 4, 4), tf.float32)
    return len(_flatbuffer(lambda x: [tf.nn.relu(x)], [spec], None) or b"") - TENSOR_BYTES


def _flatbuffer(function: Any, specs: Sequence[tf.TensorSpec], layer: Any) -> bytes | None:
    """Return a function as a flatbuffer: the engine's if it is here, else TensorFlow Lite's."""
    logger = tf.get_logger()
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        with exporting(), tempfile.TemporaryDirectory() as folder:
            traced = tf.function(function, specs).get_concrete_function()
            module = tf.Module()
            module.variables_of_layer = [*getattr(layer, "variables", ()), *traced.variables]
            tf.saved_model.save(module, folder, signatures=traced)
            flatbuffer: bytes = _converter()(folder)
    except Exception:  # noqa: BLE001 - what the converter refuses is not known then
        return None
    finally:
        logger.setLevel(level)
    return flatbuffer


def _converter() -> Callable[[str], bytes]:
    try:
        import larq_compute_engine
    except ImportError:
        return lambda folder: tf.lite.TFLiteConverter.from_saved_model(folder).convert()
    convert: Callable[[str], bytes] = larq_compute_engine.convert_saved_model
    return convert
