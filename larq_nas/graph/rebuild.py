"""Rebuild a network call by call, with some settings of its layers changed."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from larq_nas.errors import InputError, first_line
from larq_nas.graph.calls import Call, arguments_of, prune

_SOFTMAX = (tf.keras.activations.softmax, tf.nn.softmax)


def rebuild(
    calls: Sequence[Call], changes: Mapping[int, Mapping[str, Any]], name: str
) -> tf.keras.Model:
    """Return the network in layers of its own, freshly initialized, models within it flat.

    `changes` are new values of settings, by the identity of the layer.

    # Raises
        InputError: if a layer cannot be made again from its settings.
    """
    layers: dict[int, tf.keras.layers.Layer] = {}
    made: dict[Any, list[tf.Tensor]] = {}
    values: list[tf.Tensor] = []
    for call in calls:
        # A model that is called twice has the same calls within, on other inputs.
        key = id(call.layer), call.index, call.inputs
        if key not in made:
            try:
                if id(call.layer) not in layers:
                    layers[id(call.layer)] = copy(call, changes.get(id(call.layer), {}))
                made[key] = call_again(
                    layers[id(call.layer)], call, [values[i] for i in call.inputs]
                )
            except Exception as error:
                raise InputError(
                    f"Layer `{call.name}` cannot be built again: {first_line(error)}. Its "
                    "`get_config()` must be complete, go for other widths too, and name nothing "
                    "that is not registered with Keras."
                ) from error
        values.append(made[key][call.position])
    pairs = list(zip(calls, values, strict=True))
    images = next(value for call, value in pairs if call.facts.kind == "input")
    logits = next(value for call, value in pairs if call.output)
    return tf.keras.Model(images, logits, name=name)


def without_softmax(calls: Sequence[Call]) -> tuple[list[Call], dict[int, dict[str, Any]]]:
    """Return a network that ends in logits: its calls, and what to change of its layers."""
    (last,) = (index for index, call in enumerate(calls) if call.output)
    layer = calls[last].layer
    symbol = str(getattr(layer, "symbol", "")).rsplit(".", maxsplit=1)[-1]
    activation = getattr(layer, "activation", None)
    is_activation = isinstance(layer, tf.keras.layers.Activation) and activation in _SOFTMAX
    if is_activation or isinstance(layer, tf.keras.layers.Softmax) or symbol.startswith("softmax"):
        return prune(list(calls), list(calls[last].inputs)), {}
    if activation in _SOFTMAX:
        return list(calls), {id(layer): {"activation": "linear"}}
    return list(calls), {}


def copy(call: Call, changes: Mapping[str, Any]) -> tf.keras.layers.Layer:
    """Return a layer of the settings of a call's, but for `changes`."""
    layer = call.layer
    settings = {**layer.get_config(), "name": call.name.replace("/", "_"), **changes}
    if isinstance(layer, tf.keras.layers.Reshape):
        settings["target_shape"] = (*call.shape[:-1], -1)
    return type(layer).from_config(settings)


def call_again(
    layer: tf.keras.layers.Layer, call: Call, inputs: Sequence[tf.Tensor]
) -> list[tf.Tensor]:
    """Call `layer` as the one it is a copy of, with the arguments that are no tensors too."""
    if isinstance(layer, tf.keras.layers.InputLayer):
        return [layer.output]
    args, kwargs = arguments_of(call.layer._inbound_nodes[call.index], inputs)
    outputs: list[tf.Tensor] = tf.nest.flatten(layer(*args, **kwargs))
    return outputs


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
