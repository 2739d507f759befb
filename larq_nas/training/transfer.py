"""Transfer weights between networks of one space."""

import numpy as np
import tensorflow as tf

from larq_nas.errors import InputError
from larq_nas.graph.channels import latent
from larq_nas.layers import Scale

_PASSING = (tf.keras.layers.Concatenate, tf.keras.layers.ReLU, tf.keras.layers.Activation)


def transfer_weights(source: tf.keras.Model, target: tf.keras.Model) -> None:
    """Copy the weights of `source` into `target`, layer by layer.

    Layers are paired by name; layers that Keras named itself, by the order they were made
    in. What a layer of `target` has beyond its pair (learned scale and offset of a batch
    norm) stays as it is, and so does a `Scale` that `source` does not have.

    # Raises
        InputError: if a layer of `target` has no pair in `source`.
    """
    for layer, origin in _paired(source, target):
        if _shapes(layer) == _shapes(origin):
            pairs = list(zip(layer.weights, origin.weights, strict=True))
        else:
            named = {_name(weight): weight for weight in origin.weights}
            pairs = [(w, named[_name(w)]) for w in layer.weights if _name(w) in named]
        for weight, value in pairs:
            weight.assign(value)


def constrain(model: tf.keras.Model) -> None:
    """Hold weights to their constraints, as every training step does after the first."""
    for weight in model.trainable_weights:
        constraint = getattr(weight, "constraint", None)
        if constraint is not None:
            weight.assign(constraint(tf.convert_to_tensor(weight)))


def initialize_scales(model: tf.keras.Model) -> None:
    """Set each learned scale to the mean magnitude of the weights it scales.

    It is where XNOR-Net fixes its scale, `alpha = mean |W|` per filter, and a good place for
    XNOR-Net++ to start learning from. A scale behind anything but convolutions stays.
    """
    for layer in model.layers:
        if isinstance(layer, Scale):
            kernels = [latent(source.kernel).numpy() for source in _convolutions(layer)]
            means = [np.abs(kernel).mean(axis=(0, 1, 2)) for kernel in kernels]
            if sum(map(len, means)) == layer.scale.shape[0]:
                layer.scale.assign(np.maximum(np.concatenate(means), 1e-6))


def _paired(
    source: tf.keras.Model, target: tf.keras.Model
) -> list[tuple[tf.keras.layers.Layer, tf.keras.layers.Layer]]:
    origins = {layer.name: layer for layer in source.layers if layer.weights}
    wanted = [layer for layer in target.layers if layer.weights]
    pairs = [(layer, origins.pop(layer.name)) for layer in wanted if layer.name in origins]
    unnamed = [layer for layer in wanted if layer.name not in {pair[0].name for pair in pairs}]
    for layer in sorted(unnamed, key=_made):
        if isinstance(layer, Scale):
            continue
        kind = type(layer), _shapes(layer)
        alike = [one for one in origins.values() if (type(one), _shapes(one)) == kind]
        if not alike:
            raise InputError(
                f"Layer `{layer.name}` has no pair to take its weights from: name it by the "
                "prefix its operation is given."
            )
        pairs.append((layer, origins.pop(min(alike, key=_made).name)))
    return pairs


def _made(layer: tf.keras.layers.Layer) -> int:
    """Return the number Keras counts layers of a kind by."""
    digits = layer.name.rpartition("_")[2]
    return int(digits) if digits.isdigit() else 0


def _shapes(layer: tf.keras.layers.Layer) -> list[tf.TensorShape]:
    return [weight.shape for weight in layer.weights]


def _convolutions(layer: tf.keras.layers.Layer) -> list[tf.keras.layers.Layer]:
    """Return the convolutions whose channels `layer` scales, in order; none if unclear."""
    found: list[tf.keras.layers.Layer] = []
    for tensor in tf.nest.flatten(layer.input):
        producer = tensor._keras_history.layer
        if isinstance(producer, tf.keras.layers.Conv2D):
            found.append(producer)
        elif isinstance(producer, _PASSING):
            found += _convolutions(producer)
        else:
            return []
    return found


def _name(weight: tf.Variable) -> str:
    return str(weight.name).rsplit("/", maxsplit=1)[-1]
