"""Preprocessing layers of Keras, which become the first layers of the network."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from larq_nas.errors import InputError, first_line

PreprocessingLike: TypeAlias = tf.keras.layers.Layer | Sequence[tf.keras.layers.Layer]
"""A layer, several, or a `tf.keras.Sequential` of them."""


@dataclass(frozen=True)
class Preprocessing:
    """Layers that images pass before those of the network.

    # Arguments
        layers: the layers, built.
        shape: shape of the images that they read.
        validation: the validation data, as they read it.
    """

    layers: tuple[tf.keras.layers.Layer, ...]
    shape: tuple[int, int, int]
    validation: tf.data.Dataset

    def settings(self) -> list[str]:
        """Return what a run keeps of them: what they compute, and a digest of their weights."""
        return [_described(layer) for layer in self.layers]

    def before(self, network: tf.keras.Model) -> tf.keras.Model:
        """Return a plain functional model of these layers and those of a network."""
        images = tf.keras.Input(self.shape)
        joined = tf.keras.Model(
            images, network.call(_applied(self.layers, images)), name=network.name
        )
        # Made anew, each layer is called once, as in any other network.
        model = tf.keras.Model.from_config(joined.get_config())
        model.set_weights(joined.get_weights())
        return model


def read_layers(given: PreprocessingLike) -> tuple[tf.keras.layers.Layer, ...]:
    """Return the layers, or raise `InputError` for what is none."""
    if isinstance(given, tf.keras.Sequential):
        given = given.layers
    layers = tuple(given) if isinstance(given, list | tuple) else (given,)
    for layer in layers:
        if not isinstance(layer, tf.keras.layers.Layer) or isinstance(layer, tf.keras.Model):
            raise InputError(
                "`preprocessing` must be a layer, a list of layers or a tf.keras.Sequential of "
                f"them, such as tf.keras.layers.Rescaling(1 / 127.5, -1), but got {layer!r}."
            )
        if hasattr(layer, "_random_generator"):
            raise InputError(
                f"`preprocessing` must do the same to every image, but `{layer.name}` "
                f"({type(layer).__name__}) is random: give `augment` what is for training alone."
            )
    return layers


def preprocess(
    layers: Sequence[tf.keras.layers.Layer], data: tf.data.Dataset
) -> tuple[tf.data.Dataset, tuple[float, float]]:
    """Return data whose images have passed the layers, and their least and greatest number.

    # Raises
        InputError: if a layer cannot read them, has weights to train, or gives no images.
    """

    def through(images: tf.Tensor, *rest: tf.Tensor) -> Any:
        return _applied(layers, tf.cast(images, tf.float32)), *rest

    shape = data.element_spec[0].shape[1:]
    try:
        given = _applied(layers, tf.zeros((1, *shape))).shape
    except Exception as error:
        raise InputError(f"`preprocessing` cannot read images: {first_line(error)}.") from error
    if len(given) != 4:
        raise InputError(f"`preprocessing` must give images, but gives {tuple(given)} for one.")
    for layer in layers:
        if layer.trainable_weights:
            raise InputError(f"`preprocessing` must have nothing to train, but has `{layer.name}`.")
        if isinstance(layer, tf.keras.layers.Normalization) and _is_unadapted(layer):
            raise InputError(
                f"`preprocessing` has a `{layer.name}` without mean and variance: call its "
                ".adapt(images) before."
            )
    passed = data.map(through, num_parallel_calls=tf.data.AUTOTUNE)
    lowest, highest = np.inf, -np.inf
    for images, *_ in passed.as_numpy_iterator():
        if not np.isfinite(images).all():
            raise InputError("`preprocessing` must give finite images, but gives NaN or Inf.")
        lowest, highest = min(lowest, images.min()), max(highest, images.max())
    return passed, (float(lowest), float(highest))


def _applied(layers: Sequence[tf.keras.layers.Layer], images: tf.Tensor) -> tf.Tensor:
    for layer in layers:
        images = layer(images)
    return images


def _is_unadapted(layer: tf.keras.layers.Layer) -> bool:
    """Return whether a normalization has the weights that it is made with, and no others."""
    weights = layer.get_weights()
    return bool(weights) and not weights[0].any() and bool((weights[1] == 1).all())


def _described(layer: tf.keras.layers.Layer) -> str:
    config = {key: value for key, value in layer.get_config().items() if key != "name"}
    text = f"{type(layer).__name__} {json.dumps(config, default=str, sort_keys=True)}"
    weights = b"".join(np.ascontiguousarray(weight).tobytes() for weight in layer.get_weights())
    return f"{text} {hashlib.sha256(weights).hexdigest()[:16]}" if weights else text
