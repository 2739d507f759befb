"""TensorFlow functions on Keras tensors, such as `x + y`: what their costs depend on."""

from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.cost.facts import Facts

__all__ = ["facts_of_function"]

_ARITHMETIC = (
    "add",
    "divide",
    "maximum",
    "minimum",
    "mul",
    "multiply",
    "sub",
    "subtract",
    "truediv",
)


def facts_of_function(layer: Any, node: Any) -> Facts:
    """Return what a TensorFlow operation does that is written on Keras tensors, as `x + y`."""
    symbol = str(getattr(layer, "symbol", "")).rsplit(".", maxsplit=1)[-1].strip("_")
    tensors = 2 if node is None else len(node.keras_inputs)
    constants = 0 if node is None else _numbers((node.call_args, node.call_kwargs))
    if symbol in _ARITHMETIC and tensors == 1 and symbol not in ("maximum", "minimum"):
        kind = "offset" if symbol in ("add", "sub", "subtract") else "scale"
        return Facts(kind, constants=max(1, constants))
    if symbol == "add":
        return Facts("add", constants=constants)
    if symbol in _ARITHMETIC:
        return Facts("arithmetic", constants=constants)
    kinds = {"concat": "concat", "reshape": "reshape", "relu": "relu", "relu6": "relu"}
    return Facts({**kinds, "pad": "pad"}.get(symbol, "unknown"), constants=constants)


def _numbers(arguments: Any) -> int:
    """Return how many numbers the constant tensors among `arguments` hold."""
    # Keras' own tensors are no `tf.Tensor`, and Keras refuses to tell that of an array.
    constants = [
        value for value in tf.nest.flatten(arguments) if isinstance(value, tf.Tensor | np.ndarray)
    ]
    return sum(int(np.size(value)) for value in constants)
