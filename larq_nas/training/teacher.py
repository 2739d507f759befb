"""A network that another one learns from."""

import hashlib
import warnings

import numpy as np
import tensorflow as tf

from larq_nas.errors import InputError, first_line
from larq_nas.pipeline.streams import validation_stream
from larq_nas.task import Task

__all__ = ["Teacher"]

_SMALLEST = 1e-7
_CHANCE = 1.5


class Teacher:
    """A network that another one learns from: any Keras model, of Larq's zoo or one's own.

    # Arguments
        model: from images, as the data has them, to logits or probabilities.
        task: the data that the other network is trained on.

    # Attributes
        digest: tells it from other teachers, in a run's settings.

    # Raises
        InputError: if it reads other images, tells other classes, or does not give numbers.
    """

    def __init__(self, model: tf.keras.Model, task: Task) -> None:
        self.model = model
        _require_fit(model, task)
        images = next(iter(validation_stream(task.validation)))[0]
        try:
            outputs = model(images, training=False).numpy()
        except Exception as error:
            raise InputError(f"`teacher` cannot read the images: {first_line(error)}.") from error
        if not np.isfinite(outputs).all():
            raise InputError("`teacher` must give finite numbers, but gives NaN or Inf.")
        sums = outputs.sum(axis=-1)
        self._gives_probabilities = bool((outputs >= 0).all() and np.allclose(sums, 1, atol=1e-3))
        model.trainable = False
        digest = hashlib.sha256()
        for weight in model.get_weights():
            digest.update(np.ascontiguousarray(weight).data)
        self.digest = f"{model.name} {digest.hexdigest()[:16]}"

    def logits(self, images: tf.Tensor) -> tf.Tensor:
        """Return the logits of images, shape `(batch, classes)`."""
        outputs = tf.stop_gradient(self.model(images, training=False))
        if self._gives_probabilities:
            outputs = tf.math.log(tf.maximum(outputs, _SMALLEST))
        return outputs

    def describe(self, task: Task) -> str:
        """Return a line on how well it does, and warn if that is hardly better than chance."""
        right = seen = 0
        for images, labels in validation_stream(task.validation):
            right += int(np.sum(np.argmax(self.logits(images), axis=-1) == labels.numpy()))
            seen += len(labels)
        accuracy = right / seen
        if accuracy < _CHANCE / task.facts.classes:
            warnings.warn(
                f"`teacher` is right on {accuracy:.2%} of the validation data, hardly more than "
                "chance: was it trained on images of another range, or other classes?",
                stacklevel=4,
            )
        return f"Teacher `{self.model.name}`: {accuracy:.2%} of the validation data"


def _require_fit(model: tf.keras.Model, task: Task) -> None:
    if not isinstance(model, tf.keras.Model):
        raise InputError(f"`teacher` must be a tf.keras.Model, but got {type(model).__name__}.")
    shape, classes = task.facts.input_shape, task.facts.classes
    if isinstance(model.input_shape, list) or isinstance(model.output_shape, list):
        raise InputError("`teacher` must have one input and one output, but has several.")
    reads, gives = tuple(model.input_shape[1:]), tuple(model.output_shape[1:])
    fits = len(reads) == 3 and all(r in (None, s) for r, s in zip(reads, shape, strict=True))
    if not fits:
        raise InputError(
            f"`teacher` must read images of shape {shape}, as the data has, but reads {reads}."
        )
    if gives != (classes,):
        raise InputError(
            f"`teacher` must tell {classes} classes, as the data has, but gives outputs of shape "
            f"{gives}."
        )
