"""Random weights for networks that are only timed."""

import numpy as np
import tensorflow as tf

__all__ = ["randomize"]

_BATCH = 4


def randomize(model: tf.keras.Model, seed: int = 0) -> tf.keras.Model:
    """Give `model` random weights that leave no operation out, and return it.

    The converter drops a scale of 1 and an offset of 0, as fresh layers have them. Batch norms
    get the statistics of random images, so that the numbers stay as large as in a trained
    network.

    # Arguments
        model: a functional model, freshly built.
        seed: seed of the weights and the images.
    """
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(_values(generator, weight))
    norms = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, tf.keras.layers.BatchNormalization)
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    images = generator.standard_normal((_BATCH, *model.input_shape[1:]))
    model(tf.constant(images, tf.float32), training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model


def _values(generator: np.random.Generator, weight: tf.Variable) -> np.ndarray:
    shape = tuple(weight.shape)
    if len(shape) > 1:
        return generator.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[:-1])))
    return generator.uniform(0.5, 1.5, shape)
