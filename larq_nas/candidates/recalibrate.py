"""Batch-norm statistics of weights that were taken from another network."""

from collections.abc import Callable
from contextlib import ExitStack

import larq as lq
import tensorflow as tf

__all__ = ["Recalibration"]


class Recalibration:
    """Sets the moving statistics of batch norms to the mean over some batches.

    Inherited statistics are of other inputs, and those of a short training lag behind the
    weights; a mean over batches is of the weights as they are.

    # Arguments
        model: the network.
    """

    def __init__(self, model: tf.keras.Model) -> None:
        self._norms = [
            layer
            for layer in model._flatten_layers(include_self=False)
            if isinstance(layer, tf.keras.layers.BatchNormalization)
        ]
        self._model = model
        self._momentum = tf.Variable(0.0, trainable=False)
        self._step: Callable[[tf.Tensor], None] = tf.function(self._forward, reduce_retracing=True)

    def run(self, images: tf.data.Dataset) -> None:
        """Set the statistics to the mean of those of each batch.

        # Arguments
            images: batches of images.
        """
        for number, batch in enumerate(images):
            self._momentum.assign(number / (number + 1))
            self._step(batch)

    def _forward(self, images: tf.Tensor) -> None:
        with ExitStack() as stack:
            for layer in self._norms:
                stack.enter_context(lq.utils.patch_object(layer, "momentum", self._momentum))
            self._model(images, training=True)
