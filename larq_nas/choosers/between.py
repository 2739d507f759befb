"""The layers between two tensors of a Keras network."""

from typing import Any

import tensorflow as tf

__all__ = ["call_of", "has_weights", "layers_between"]


def call_of(tensor: tf.Tensor) -> Any:
    """Return the Keras node that gave `tensor`: a call of a layer, and what it read."""
    history = tensor._keras_history
    return history.layer._inbound_nodes[history.node_index]


def layers_between(x: tf.Tensor, y: tf.Tensor) -> list[tf.keras.layers.Layer]:
    """Return the layers that `y` was computed by, each once, back to `x` or another input."""
    found: dict[int, tf.keras.layers.Layer] = {}
    waiting, seen = [y], set()
    while waiting:
        tensor = waiting.pop()
        call = call_of(tensor)
        if tensor is x or id(call) in seen:
            continue
        seen.add(id(call))
        found[id(call.layer)] = call.layer
        waiting += [read for read in tf.nest.flatten(call.keras_inputs) if read is not tensor]
    return list(found.values())


def has_weights(x: tf.Tensor, y: tf.Tensor) -> bool:
    """Return whether a layer between `x` and `y` has trainable weights."""
    return any(layer.trainable_weights for layer in layers_between(x, y))
