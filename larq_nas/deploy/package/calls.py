"""The calls of layers in a Keras model, which Keras names nodes."""

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

__all__ = ["all_calls", "calls_as_written", "calls_in_depth"]


def all_calls(model: tf.keras.Model) -> Iterator[Any]:
    """Yield the calls in `model` and in the models within, each once."""
    waiting, seen = [model], {id(model)}
    while waiting:
        for node in _nodes(waiting.pop()):
            yield node
            if isinstance(node.layer, tf.keras.Model) and id(node.layer) not in seen:
                seen.add(id(node.layer))
                waiting.append(node.layer)


def calls_in_depth(model: tf.keras.Model) -> list[Any]:
    """Return the calls of layers in an order that depends on the network alone."""
    return [
        node for node in _nodes(model) if not isinstance(node.layer, tf.keras.layers.InputLayer)
    ]


def calls_as_written(model: tf.keras.Model) -> list[Any]:
    """Return the calls of `model` as one would write them: what takes longest to reach first."""
    nodes = _nodes(model)
    makers = {id(tensor): node for node in nodes for tensor in tf.nest.flatten(node.outputs)}
    read = {
        id(node): [makers[id(tensor)] for tensor in node.keras_inputs if id(tensor) in makers]
        for node in nodes
    }
    heights: dict[int, int] = {}
    for node in nodes:
        below = [heights[id(maker)] for maker in read[id(node)]]
        heights[id(node)] = 1 + max(below, default=0)
    inputs = [makers[id(tensor)] for tensor in model.inputs]
    ordered: dict[int, Any] = {id(node): node for node in inputs}
    waiting = [makers[id(tensor)] for tensor in reversed(model.outputs)]
    while waiting:
        node = waiting[-1]
        missing = [maker for maker in read[id(node)] if id(maker) not in ordered]
        if missing and id(node) not in ordered:
            waiting.append(max(missing, key=lambda maker: heights[id(maker)]))
        else:
            ordered.setdefault(id(waiting.pop()), node)
    return list(ordered.values())


def _nodes(model: tf.keras.Model) -> list[Any]:
    """Return the calls of layers, each after those it reads."""
    by_depth = getattr(model, "_nodes_by_depth", {})
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
