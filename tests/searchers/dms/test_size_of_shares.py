"""Layers without a norm behind them read channels in shares whose size says nothing."""

from collections.abc import Mapping
from typing import Any

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from conftest import quick
from supernets import images, supernet

from larq_nas.graph.channels import latent
from larq_nas.searchers.dms.supernet import Supernet
from larq_nas.spaces import ModelWidths, resolve
from larq_nas.spaces.chooser import Chooser

layers = tf.keras.layers
SIGNS = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
SHAPE = (32, 32, 3)
SHARES = np.array([[1, 0, 0], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8], [0, 0, 1]], np.float32)


def of_my_own() -> ModelWidths:
    """Signs, and behind the last a 1x1 convolution with a bias, by which classes are told."""
    x = inputs = tf.keras.Input(SHAPE)
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, strides=4)(x))
    x = lq.layers.QuantConv2D(6, 3, **SIGNS, name="last")(x)
    x = layers.Conv2D(10, 1, name="classes")(layers.BatchNormalization()(x))
    return ModelWidths(tf.keras.Model(inputs, layers.GlobalAveragePooling2D()(x)))


def joined(choose: Chooser, shape: Any, classes: int) -> tf.keras.Model:
    """A dense layer that reads a searched width beside a fixed one, at each of four places."""
    x = inputs = tf.keras.Input(shape)
    x = layers.MaxPool2D(16)(x)
    searched = layers.Conv2D(choose.filters("last", 6, (1,)), 1, name="last")(x)
    x = layers.Concatenate()([searched, layers.Conv2D(3, 1)(x)])
    return tf.keras.Model(inputs, layers.Dense(classes, name="dense")(layers.Flatten()(x)))


# What is searched, and the choice of the width that the last layer reads.
CASES = {
    "vgg11": (resolve("vgg11", {"binarization": "dms"}), "conv8"),
    "resnet18_cifar": (resolve("resnet18_cifar", {"binarization": "dms"}), "stage4"),
    "of_my_own": (of_my_own(), "last"),
    "joined": (joined, "last"),
}


@pytest.mark.parametrize("name", quick(CASES, 0, 2, 3))
def test_of_channels_that_are_alike_it_does_not_matter_how_many_are_read(name: str) -> None:
    space, choice = CASES[name]
    made, dimensions = supernet(space, ratio=0.6, shape=SHAPE)
    place = dimensions.names.index(choice)
    _duplicate(made, choice, dimensions.widest())
    labels = tf.constant([1, 2, 3, 4])

    @tf.function
    def loss_and_gradient(shares: tf.Tensor) -> Any:
        every = tf.one_hot(tf.fill([len(dimensions.names)], 2), 3)
        every = tf.tensor_scatter_nd_update(every, [[place]], shares[None])
        with tf.GradientTape() as tape, made.masks.using(every):
            tape.watch(every)
            logits = made.network(images(SHAPE), training=True)
            loss = tf.keras.losses.sparse_categorical_crossentropy(labels, logits, True)
        return loss, tape.gradient(loss, every)[place]

    found = [loss_and_gradient(tf.constant(shares)) for shares in SHARES]
    for loss, gradient in found:
        np.testing.assert_allclose(loss, found[0][0], rtol=1e-4)
        # Of shares that add up to 1, what is alike for all has no gradient.
        np.testing.assert_allclose(gradient, tf.fill([3], gradient[0]), atol=1e-4)


def _duplicate(made: Supernet, choice: str, widths: Mapping[str, int]) -> None:
    """Make all channels of a choice the same, and what reads them too."""
    for part in made.parts:
        for axis, channels in part.axes.items():
            first = channels.taken({**widths, choice: 1}, widths)
            source = first[np.searchsorted(first, np.arange(channels.count), "right") - 1]
            weight = latent(part.weight)
            weight.assign(np.take(weight.numpy(), source, axis))
