"""The network that another one learns from."""

import hashlib
import re
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.data.data import Data
from larq_nas.data.labels import whole_labels
from larq_nas.data.streams import validation_stream
from larq_nas.errors import InputError, first_line, warn

_SMALLEST = 1e-7
_NUMBER = re.compile(r"_\d+$")


class Teacher:
    """A network that another one learns from: any Keras model, of Larq's zoo or one's own.

    # Arguments
        model: from images, as the data has them, to logits or probabilities.
        data: the data that the other network is trained on.

    # Attributes
        digest: tells it from other teachers, in a run's settings.

    # Raises
        InputError: if it reads other images, tells other classes, or does not give numbers.
    """

    def __init__(self, model: tf.keras.Model, data: Data) -> None:
        self.model = model
        _require_reading(model, data)
        images = next(iter(validation_stream(data.validation)))[0]
        try:
            outputs = model(images, training=False)
        except Exception as error:
            raise InputError(f"`teacher` cannot read the images: {first_line(error)}.") from error
        outputs = _classified(outputs, data)
        sums = outputs.sum(axis=-1)
        between = bool(((outputs >= 0) & (outputs <= 1)).all())
        self._gives_probabilities = between and np.allclose(sums, 1, atol=1e-3)
        if between and not self._gives_probabilities:
            warn(
                "`teacher` gives numbers from 0 to 1 that do not sum to 1: they are taken for "
                "logits; if it ends in sigmoids, leave them out."
            )
        digest = hashlib.sha256()
        for weight in model.get_weights():
            digest.update(np.ascontiguousarray(weight).data)
        # Keras numbers models without a name anew, in each process and at each call.
        self.digest = f"{_NUMBER.sub('', model.name)} {digest.hexdigest()[:16]}"

    def logits(self, images: tf.Tensor) -> tf.Tensor:
        """Return the logits of images, shape `(batch, classes)`."""
        outputs = tf.stop_gradient(tf.cast(self.model(images, training=False), tf.float32))
        if self._gives_probabilities:
            outputs = tf.math.log(tf.maximum(outputs, _SMALLEST))
        return outputs

    def describe(self, data: Data) -> str:
        """Return a line on how well it does, and warn if that is hardly better than chance."""
        right = seen = 0
        for images, labels, *_ in validation_stream(data.validation):
            known = whole_labels(labels).numpy()
            right += int(np.sum(np.argmax(self.logits(images), axis=-1) == known))
            seen += len(labels)
        accuracy, chance = right / seen, 1 / data.facts.classes
        if accuracy < chance + min(chance / 2, (1 - chance) / 10):
            warn(
                f"`teacher` is right on {accuracy:.2%} of the validation data, hardly more than "
                "chance: was it trained on images of another range, or other classes?"
            )
        return f"Teacher `{self.model.name}`: {accuracy:.2%} of the validation data"


def _require_reading(model: tf.keras.Model, data: Data) -> None:
    """Raise `InputError` unless it reads images of the data's shape, as far as it says."""
    if not isinstance(model, tf.keras.Model):
        raise InputError(f"`teacher` must be a tf.keras.Model, but got {type(model).__name__}.")
    inputs, shape = model.inputs or [], data.facts.input_shape
    if len(inputs) > 1:
        raise InputError(f"`teacher` must have one input, but has {len(inputs)}.")
    for reads in (tuple(tensor.shape[1:]) for tensor in inputs):
        same = [r in (None, s) for r, s in zip(reads, shape, strict=False)]
        if len(reads) != len(shape) or not all(same):
            raise InputError(
                f"`teacher` must read images of shape {shape}, as the data has, but reads {reads}."
            )


def _classified(outputs: Any, data: Data) -> np.ndarray:
    """Return its outputs, or raise `InputError` if they are not a number for each class."""
    if not tf.is_tensor(outputs):
        raise InputError(
            f"`teacher` must give one tensor, but gives a {type(outputs).__name__} of "
            f"{len(tf.nest.flatten(outputs))}: wrap it in a model that gives its logits."
        )
    gives, classes = tuple(outputs.shape[1:]), data.facts.classes
    if gives != (classes,):
        raise InputError(
            f"`teacher` must tell {classes} classes, as the data has, but gives outputs of shape "
            f"{gives}."
        )
    values: np.ndarray = tf.cast(outputs, tf.float32).numpy()
    if not np.isfinite(values).all():
        raise InputError("`teacher` must give finite numbers, but gives NaN or Inf.")
    return values
