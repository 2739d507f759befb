"""A network that learns its weights and the widths it would have in turns of epochs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from larq_nas.dimension.dimensions import Dimensions
from larq_nas.dimension.supernet import Supernet
from larq_nas.training.optimizers import descend

if TYPE_CHECKING:
    from larq_nas.searchers.objective import Term

__all__ = ["DimensionModel"]


class DimensionModel(tf.keras.Model):
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
        terms: "Mapping[str, Term]",
    ) -> None:
        network = supernet.network
        super().__init__(network.inputs, network.outputs, name="supernet")
        self._save_network = network.save
        self.masks = supernet.masks
        self.ordinary_weights = list(network.trainable_weights)
        self.dimensions = dimensions
        self.weight_decay = weight_decay
        self.terms = dict(terms)
        self.searching = tf.Variable(False, trainable=False, name="searching")

    def compile(
        self,
        optimizer: tf.keras.optimizers.Optimizer,
        mean_optimizer: tf.keras.optimizers.Optimizer,
    ) -> None:
        """Set the two optimizers.

        # Arguments
            optimizer: optimizes the weights.
            mean_optimizer: optimizes the means.
        """
        loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        super().compile(optimizer=optimizer, loss=loss)
        self.mean_optimizer = mean_optimizer
        optimizer.build(self.ordinary_weights)
        mean_optimizer.build([self.dimensions.mean])
        names = ("loss", "search_loss", *self.terms)
        self._means = {name: tf.keras.metrics.Mean(name) for name in names}
        self._accuracies = {
            name: tf.keras.metrics.SparseCategoricalAccuracy(name)
            for name in ("accuracy", "search_accuracy")
        }

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        return [*self._means.values(), *self._accuracies.values()]

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save the network as wide as it is, without how it is searched."""
        self._save_network(*args, **kwargs)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        weight_batch, mean_batch = data
        tf.cond(
            self.searching,
            lambda: self._mean_step(*mean_batch),
            lambda: self._weight_step(*weight_batch),
        )
        return {metric.name: metric.result() for metric in self.metrics}

    def _weight_step(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Operation:
        variables = self.ordinary_weights
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            logits, loss = self._loss(images, labels)
        gradients = tape.gradient(loss, variables)
        descend(self.optimizer, gradients, variables, decay=self.weight_decay)
        self._record("loss", "accuracy", loss, labels, logits)
        return tf.no_op()

    def _mean_step(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Operation:
        mean = self.dimensions.mean
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(mean)
            logits, loss = self._loss(images, labels)
            total = tf.add_n([loss, *self._added()])
        descend(self.mean_optimizer, tape.gradient(total, [mean]), [mean])
        self._record("search_loss", "search_accuracy", loss, labels, logits)
        return tf.no_op()

    def _loss(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with self.masks.using(self.dimensions.sample()):
            logits = self(images, training=True)
        return logits, self.compiled_loss(labels, logits)

    def _record(
        self, loss_name: str, name: str, loss: tf.Tensor, labels: tf.Tensor, logits: tf.Tensor
    ) -> None:
        self._means[loss_name].update_state(loss)
        self._accuracies[name].update_state(labels, logits)

    def _added(self) -> Sequence[tf.Tensor]:
        values = {name: term() for name, term in self.terms.items()}
        for name, value in values.items():
            self._means[name].update_state(value)
        return list(values.values())
