"""Gives networks weights as training leaves them, without training."""

import numpy as np
import tensorflow as tf

__all__ = ["calibrate", "center", "randomize"]


def randomize(model: tf.keras.Model, seed: int) -> None:
    """Give every weight a random value: scales of batch norms are negative now and then."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        name = weight.name.rsplit("/", maxsplit=1)[-1].partition(":")[0]
        values = generator.normal(size=weight.shape)
        if name.endswith("kernel"):
            values /= np.sqrt(np.prod(weight.shape[:-1]))
        elif name == "gamma":
            values = generator.uniform(0.5, 1.5, weight.shape)
            values *= generator.choice([-1, 1, 1, 1], weight.shape)
        elif name == "scale":
            values = generator.uniform(0.05, 0.15, weight.shape)
        elif name == "alpha":
            values = 0.25 + 0.1 * values
        elif name == "moving_variance":
            values = np.ones(weight.shape)
        weight.assign(values)


def calibrate(model: tf.keras.Model, images: np.ndarray) -> None:
    """Give every batch norm the statistics of `images`.

    At their initial values whole sums of signs tie with the threshold, and rounding decides.
    Their momentum is 0 from then on, so the model is not to be trained further.
    """
    for layer in model._flatten_layers():
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(images, training=True)


def center(model: tf.keras.Model, images: np.ndarray) -> None:
    """Make the classes of a random network equally likely.

    What all images have in common would decide otherwise, and each would be of one class.
    """
    dense = model.layers[-1]
    features = tf.keras.Model(model.input, dense.input)(images, training=False)
    mean = np.mean(features, axis=0)
    kernel = dense.kernel.numpy()
    dense.kernel.assign(kernel - np.outer(mean, mean @ kernel) / (mean @ mean))
    if dense.use_bias:
        dense.bias.assign(np.zeros(dense.bias.shape))
