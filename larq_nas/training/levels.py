"""Two-level training: weights, and parameters of the architecture."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import tensorflow as tf

from larq_nas.training.distribution import is_distributed, replicas

__all__ = ["Term", "TwoLevels"]


class Term(Protocol):
    """Added to the loss of the architecture parameters."""

    def begin_epoch(self, epoch: int) -> None:
        """Prepare for the epoch, the first being 0."""

    def __call__(self) -> tf.Tensor:
        """Return what is added."""


class TwoLevels(tf.keras.Model):
    """Keeps apart what the two levels optimize and measure.

    # Arguments
        network: the network.
        parameters: the architecture parameters.
        terms: what is added to their loss, by the name of its metric.
        measured: names of further means to report.

    # Attributes
        searching: whether the architecture parameters learn.
        traced_searching: the same, where each phase is traced for itself.
        ordinary_weights: the trainable weights that are no architecture parameters.
    """

    def __init__(
        self,
        network: tf.keras.Model,
        parameters: Sequence[tf.Variable],
        terms: Mapping[str, Term],
        measured: Sequence[str] = (),
    ) -> None:
        super().__init__(network.inputs, network.outputs, name="supernet")
        self._save_network = network.save
        self._measured = tuple(measured)
        self.terms = dict(terms)
        self.searching = tf.Variable(False, trainable=False, name="searching")
        self.traced_searching = False
        self._is_distributed = is_distributed()
        upper = {id(parameter) for parameter in parameters}
        self.ordinary_weights = [w for w in network.trainable_weights if id(w) not in upper]

    @property
    def parameters(self) -> Sequence[tf.Variable]:
        """The architecture parameters."""
        raise NotImplementedError

    def compile(
        self,
        optimizer: tf.keras.optimizers.Optimizer,
        architecture_optimizer: tf.keras.optimizers.Optimizer,
    ) -> None:
        """Set the two optimizers.

        # Arguments
            optimizer: optimizes the weights.
            architecture_optimizer: optimizes the architecture parameters.
        """
        loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        super().compile(optimizer=optimizer, loss=loss)
        self.architecture_optimizer = architecture_optimizer
        optimizer.build(self.ordinary_weights)
        architecture_optimizer.build(list(self.parameters))
        names = ("loss", "search_loss", *self._measured, *self.terms)
        self._means = {name: tf.keras.metrics.Mean(name) for name in names}
        self._accuracies = {
            name: tf.keras.metrics.SparseCategoricalAccuracy(name)
            for name in ("accuracy", "search_accuracy")
        }

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        return [*self._means.values(), *self._accuracies.values()]

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save the network, as `tf.keras.Model.save` does, without how it is searched."""
        self._save_network(*args, **kwargs)

    def results(self) -> dict[str, tf.Tensor]:
        """Return what was measured."""
        return {metric.name: metric.result() for metric in self.metrics}

    def measure(
        self, loss: tf.Tensor, labels: tf.Tensor, logits: tf.Tensor, prefix: str = ""
    ) -> None:
        """Measure a batch of one of the levels, by the prefix of its metrics."""
        self._means[f"{prefix}loss"].update_state(loss)
        self._accuracies[f"{prefix}accuracy"].update_state(labels, logits)

    def batch_loss(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Return the mean loss of what a replica has of a batch."""
        loss = self.compiled_loss(labels, logits)
        # Keras has divided it by the replicas, since it adds their gradients up.
        return loss * replicas() if is_distributed() else loss

    def set_searching(self, searching: bool) -> None:
        """Let the architecture parameters learn from now on, or not."""
        self.searching.assign(searching)
        if self._is_distributed and searching != self.traced_searching:
            self.traced_searching = searching
            self.make_train_function(force=True)

    def added(self) -> list[tf.Tensor]:
        """Return what is added to the loss of the architecture parameters."""
        values = {name: term() for name, term in self.terms.items()}
        for name, value in values.items():
            self._means[name].update_state(value)
        return list(values.values())
