"""What an operation is made of, read from the layers that it builds."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from larq_nas.choosers.between import call_of, has_weights, layers_between
from larq_nas.choosers.chooser import Operation
from larq_nas.errors import InputError
from larq_nas.fused.known import is_convolution, is_norm, is_pool, is_prelu

__all__ = ["Description", "Parts", "describe"]

Parts: TypeAlias = dict[str, Any]
"""`kind` (`"convolution"`, `"pool"`, `"identity"`, `"zero"`, `"other"`), and its layers as JSON."""

Layers: TypeAlias = list[tf.keras.layers.Layer]

_OTHER: Parts = {"kind": "other"}
_count = itertools.count()


class Description(NamedTuple):
    """What an operation is made of, the shape it gives, and whether it has weights."""

    parts: Parts
    shape: tuple[int, ...] | None
    has_weights: bool

    @property
    def kind(self) -> str:
        return str(self.parts["kind"])


def describe(operation: Operation, shape: Sequence[int]) -> Description:
    """Return what `operation` is made of.

    Known are batch norm without scale and offset, a binary convolution, PReLU and an added
    input; a pool and such a batch norm; and the input itself. Anything else is `"other"`.

    # Arguments
        operation: a candidate of a cell.
        shape: `(height, width, channels)` of the tensor it reads.
    """
    if operation is None:
        return Description({"kind": "zero"}, None, False)
    x = tf.keras.Input(tuple(shape))
    y, again = (_call(operation, x) for _ in range(2))
    layers, others = layers_between(x, y), layers_between(x, again)
    parts = _parts(x, y)
    # A layer of both calls is one for all edges, and cannot be made anew; nor what depends on
    # the names of layers, such as an initializer's seed.
    shared = any(layer in others for layer in layers)
    if shared or parts != _parts(x, again) or not all(layer.trainable for layer in layers):
        parts = _OTHER
    return Description(parts, tuple(y.shape[1:]), has_weights(x, y))


def _call(operation: Callable[[tf.Tensor, str], tf.Tensor], x: tf.Tensor) -> tf.Tensor:
    # A prefix of the form that operations are given for an edge.
    y = operation(x, f"described{next(_count)}_node0_in0")
    if y is None:
        raise InputError("Each operation must return a tensor, but one returned None.")
    return y


def _parts(x: tf.Tensor, y: tf.Tensor) -> Parts:
    if y is x:
        return {"kind": "identity"}
    chain = _chain(x, y)
    known = chain and (_convolution(*chain) or _pool(*chain))
    return known or _OTHER


def _chain(x: tf.Tensor, y: tf.Tensor) -> tuple[Layers, bool] | None:
    """Return the layers between `x` and `y`, and whether `x` is added; `None` if they branch."""
    call = call_of(y)
    adds = isinstance(call.layer, tf.keras.layers.Add)
    if adds:
        summed = [tensor for tensor in call.keras_inputs if tensor is not x]
        if len(call.keras_inputs) != 2 or len(summed) != 1 or summed[0].shape != x.shape:
            return None
        y = summed[0]
    layers: Layers = []
    while y is not x:
        call = call_of(y)
        if len(call.keras_inputs) != 1:
            return None
        layers.insert(0, call.layer)
        y = call.keras_inputs[0]
    return layers, adds


def _convolution(layers: Layers, adds: bool) -> Parts | None:
    prelu = layers[2] if len(layers) == 3 else None
    if len(layers) not in (2, 3) or not is_norm(layers[0]) or not is_convolution(layers[1]):
        return None
    if prelu is not None and not is_prelu(prelu):
        return None
    config = layers[1].get_config()
    return {
        "kind": "convolution",
        "layer": {key: value for key, value in config.items() if key != "name"},
        "norm": _norm(layers[0]),
        "prelu": prelu and prelu.get_config()["alpha_initializer"],
        "adds": adds,
    }


def _pool(layers: Layers, adds: bool) -> Parts | None:
    if adds or len(layers) not in (1, 2) or not is_pool(layers[0]):
        return None
    if len(layers) == 2 and not is_norm(layers[1]):
        return None
    pool = layers[0]
    return {
        "kind": "pool",
        "pool": "max" if isinstance(pool, tf.keras.layers.MaxPooling2D) else "average",
        "size": list(pool.pool_size),
        "strides": list(pool.strides),
        "padding": pool.padding.upper(),
        "norm": _norm(layers[1]) if len(layers) == 2 else None,
    }


def _norm(layer: tf.keras.layers.BatchNormalization) -> dict[str, float]:
    return {"momentum": float(layer.momentum), "epsilon": float(layer.epsilon)}
