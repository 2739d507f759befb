"""TensorFlow functions on Keras tensors, such as `x + y`: what their costs depend on."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.cost.facts import Facts
from larq_nas.cost.quantizers import scale_of
from larq_nas.quantizers import quantized_scope

__all__ = ["facts_of_function", "is_convolution_function"]

_WEIGHTED = {
    "conv2d": ("conv", 4),
    "convolution": ("conv", 4),
    "conv1d": ("conv", 3),
    "depthwise_conv2d": ("depthwise", 4),
    "matmul": ("dense", 2),
}
_STATIC = ("shape", "shape_v2", "ones_like", "ones_like_v2", "zeros_like", "zeros_like_v2")
_PASSING = ("identity", "stop_gradient")
_ONE_OPERATION = (
    "abs",
    "cast",
    "exp",
    "floor",
    "neg",
    "negative",
    "round",
    "rsqrt",
    "sigmoid",
    "sign",
    "softmax",
    "sqrt",
    "square",
    "tanh",
)
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
    values = [] if node is None else _constants((node.call_args, node.call_kwargs))
    constants = sum(int(np.size(value)) for value in values)
    if symbol in _WEIGHTED and tensors == 1 and len(values) == 1:
        with quantized_scope():
            kernel = tf.convert_to_tensor(values[0]).numpy()
        return _weighted(symbol, kernel, node)
    if symbol in _PASSING or (symbol == "cast" and node and _keeps_type(node)):
        return Facts("pass")
    if symbol in _ONE_OPERATION:
        return Facts("activation")
    if symbol in _STATIC:
        return Facts("static")
    if symbol == "bias_add":
        return Facts("offset", constants=constants)
    of_channels = all(np.size(value) == np.max(np.shape(value)[-1:], initial=1) for value in values)
    affine = of_channels and symbol not in ("maximum", "minimum")
    if symbol in _ARITHMETIC and tensors == 1 and affine:
        kind = "offset" if symbol in ("add", "sub", "subtract") else "scale"
        return Facts(kind, constants=max(1, constants))
    if symbol == "add":
        return Facts("add", constants=constants)
    if symbol in _ARITHMETIC:
        return Facts("arithmetic", constants=constants)
    kinds = {"concat": "concat", "reshape": "reshape", "relu": "relu", "relu6": "relu"}
    return Facts({**kinds, "pad": "pad"}.get(symbol, "unknown"), constants=constants)


def is_convolution_function(layer: Any) -> bool:
    """Return whether a call is `tf.nn.conv2d`, which runs in binary between signs."""
    symbol = str(getattr(layer, "symbol", ""))
    return symbol.endswith(("nn.conv2d", "nn.convolution"))


def _weighted(symbol: str, kernel: np.ndarray, node: Any) -> Facts:
    """Return what a convolution or a product with a constant does."""
    read, written = node.keras_inputs[0].shape, node.outputs.shape
    kind, rank = _WEIGHTED[symbol]
    if kernel.ndim != rank or written[-1] is None:
        return Facts("unknown", constants=kernel.size)
    scale = scale_of(kernel)
    facts = Facts(
        kind,
        filters=int(written[-1]),
        taps=int(np.prod(kernel.shape[:-2])),
        kernel_bits=(32 if scale == "other" else 1,),
        kernel_scale=scale,
        constants=kernel.size,
    )
    if kind == "depthwise":
        return dataclasses.replace(facts, multiplier=kernel.shape[-1])
    return dataclasses.replace(facts, groups=int(read[-1]) // kernel.shape[-2])


def _keeps_type(node: Any) -> bool:
    (read, *_), written = node.keras_inputs, node.outputs
    return bool(read.dtype == written.dtype)


def _constants(arguments: Any) -> list[Any]:
    """Return the constant tensors and the variables among `arguments`."""
    # Keras' own tensors are no `tf.Tensor`, and Keras refuses to tell that of an array.
    kinds = tf.Tensor | tf.Variable | np.ndarray
    return [value for value in tf.nest.flatten(arguments) if isinstance(value, kinds)]
