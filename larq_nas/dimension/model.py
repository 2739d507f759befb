"""A network that learns its weights and the widths it would have in turns of epochs."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from larq_nas.dimension.dimensions import Dimensions
from larq_nas.dimension.supernet import Supernet
from larq_nas.training.levels import Term, TwoLevels
from larq_nas.training.optimizers import descend

__all__ = ["DimensionModel"]


class DimensionModel(TwoLevels):
    r"""The bilevel optimization of DMS (equations 7 and 8), a level at a time.

    \\[ \min_\mu L_{valid}(w^*(\mu, \sigma), \mu) + \ldots, \quad w^*(\mu, \sigma) =
    \arg \min_w L_{train}(w, \mu) \\]

    A batch is a pair `((images, labels), (images, labels))`. While `searching` is off, the first
    trains the weights; while it is on, the second trains the means.

    # Arguments
        supernet: the network.
        dimensions: its widths.
        weight_decay: L2 coefficient of the weights.
        terms: what is added to the loss of the means, by the name of its metric.
    """

    def __init__(
        self,
        supernet: Supernet,
        dimensions: Dimensions,
        weight_decay: float,
        terms: Mapping[str, Term],
    ) -> None:
        super().__init__(supernet.network, [dimensions.mean], terms)
        self.masks = supernet.masks
        self.dimensions = dimensions
        self.weight_decay = weight_decay

    @property
    def parameters(self) -> list[tf.Variable]:
        return [self.dimensions.mean]

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        weight_batch, mean_batch = data
        tf.cond(
            self.searching,
            lambda: self._mean_step(*mean_batch),
            lambda: self._weight_step(*weight_batch),
        )
        return self.results()

    def _weight_step(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Operation:
        variables = self.ordinary_weights
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            logits, loss = self._loss(images, labels)
        gradients = tape.gradient(loss, variables)
        descend(self.optimizer, gradients, variables, decay=self.weight_decay)
        self.measure(loss, labels, logits)
        return tf.no_op()

    def _mean_step(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Operation:
        mean = self.dimensions.mean
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(mean)
            logits, loss = self._loss(images, labels)
            total = tf.add_n([loss, *self.added()])
        descend(self.architecture_optimizer, tape.gradient(total, [mean]), [mean])
        self.measure(loss, labels, logits, "search_")
        return tf.no_op()

    def _loss(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with self.masks.using(self.dimensions.sample()):
            logits = self(images, training=True)
        return logits, self.compiled_loss(labels, logits)
