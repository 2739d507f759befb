"""Carries weights between networks that were built by the same space."""

import numpy as np
import tensorflow as tf

from larq_nas.layers import Scale

__all__ = ["initialize_scales", "transfer_weights"]


def transfer_weights(source: tf.keras.Model, target: tf.keras.Model) -> None:
    """Copy every weight of `source` that `target` has too, by layer and weight name.

    # Arguments
        source: such as a supernet, or a network with real weights.
        target: such as the network derived from it, or its binary form.
    """
    layers = {layer.name: layer for layer in source.layers}
    for layer in target.layers:
        if layer.name not in layers:
            continue
        weights = {_name(weight): weight for weight in layers[layer.name].weights}
        for weight in layer.weights:
            if _name(weight) in weights:
                weight.assign(weights[_name(weight)])


def initialize_scales(model: tf.keras.Model) -> None:
    """Set each learned scale to the mean magnitude of the weights it scales.

    It is where XNOR-Net fixes its scale, `alpha = mean |W|` per filter, and a good place for
    XNOR-Net++ to start learning from.

    # Arguments
        model: a network with binary convolutions, each followed by a `Scale`.
    """
    for layer in model.layers:
        if isinstance(layer, Scale):
            kernels = [source.kernel for source in _sources(model, layer)]
            means = [np.abs(_latent(kernel)).mean(axis=(0, 1, 2)) for kernel in kernels]
            layer.scale.assign(np.maximum(np.concatenate(means), 1e-6))


def _sources(model: tf.keras.Model, layer: tf.keras.layers.Layer) -> list[tf.keras.layers.Layer]:
    """Return the convolutions whose outputs reach `layer`, in order of their channels."""
    tensors = tf.nest.flatten(layer.input)
    found = []
    for tensor in tensors:
        producer = tensor._keras_history.layer
        found += [producer] if hasattr(producer, "kernel") else _sources(model, producer)
    return found


def _latent(kernel: tf.Variable) -> np.ndarray:
    values: np.ndarray = getattr(kernel, "latent_variable", kernel).numpy()
    return values


def _name(weight: tf.Variable) -> str:
    return str(weight.name).rsplit("/", maxsplit=1)[-1]
