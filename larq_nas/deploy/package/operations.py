"""Calls of TensorFlow's functions in a Keras model, as Python source."""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from larq_nas.errors import ConversionError

__all__ = ["is_operation", "operation_source"]

_OPERATORS = {"__operators__.add": "{} + {}"}
_SLICE = "__operators__.getitem"


def is_operation(layer: tf.keras.layers.Layer) -> bool:
    """Return whether `layer` stands for a call of a TensorFlow function."""
    return type(layer).__name__ in ("TFOpLambda", "SlicingOpLambda")


def operation_source(
    layer: tf.keras.layers.Layer,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    source: Callable[[Any], str],
) -> tuple[str, list[str]]:
    """Return what is called and with which arguments; no arguments for an operator.

    # Arguments
        layer: the layer that Keras made of the call.
        args: the call's arguments by place.
        kwargs: the call's arguments by name.
        source: returns the source of an argument.
    """
    symbol = str(layer.symbol)
    if layer.weights:
        raise ConversionError(
            f"`{symbol}` reads a variable that no layer holds: make it a weight of a layer."
        )
    given = {key: value for key, value in kwargs.items() if not (key == "name" and value is None)}
    if symbol == _SLICE and len(args) == 2 and not given:
        return f"{source(args[0])}[{_slices(args[1], source)}]", []
    if symbol in _OPERATORS and len(args) == 2 and not given:
        return _OPERATORS[symbol].format(*map(source, args)), []
    if not callable(_resolve(symbol)):
        raise ConversionError(
            f"`{layer.name}` calls `{symbol}`, which is not a public function of TensorFlow: "
            "network.py cannot call it."
        )
    return f"tf.{symbol}", [
        *map(source, args),
        *(f"{key}={source(value)}" for key, value in given.items()),
    ]


def _slices(key: Any, source: Callable[[Any], str]) -> str:
    parts = key if isinstance(key, tuple | list) else [key]
    return ", ".join(_slice(part, source) for part in parts)


def _slice(part: Any, source: Callable[[Any], str]) -> str:
    if isinstance(part, slice):
        part = {"start": part.start, "stop": part.stop, "step": part.step}
    if not isinstance(part, Mapping):
        return source(part)
    bounds = ["" if part[key] is None else source(part[key]) for key in ("start", "stop")]
    step = "" if part["step"] is None else f":{source(part['step'])}"
    return f"{':'.join(bounds)}{step}"


def _resolve(symbol: str) -> Any:
    found: Any = tf
    for name in symbol.split("."):
        if name.startswith("_"):
            return None
        found = getattr(found, name, None)
    return found
