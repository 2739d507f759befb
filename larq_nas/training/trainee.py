"""A network in training: its loss, and what regularizes it."""

from typing import Any

import tensorflow as tf

from larq_nas.layers import DropPath, computing_in
from larq_nas.training.mix_up import Mixed, mix_up
from larq_nas.training.optimizers import amplifications, descend
from larq_nas.training.recipe import Recipe
from larq_nas.training.teacher import Teacher

__all__ = ["DropPathSchedule", "Trainee"]


class Trainee(tf.keras.Model):
    r"""A network in training by a recipe.

    Its loss is the cross-entropy with smoothed labels; with a teacher,

    \\[ (1 - w) L_{CE} + w T^2 D_{KL}(\operatorname{softmax}(z_t / T) \,\|\,
    \operatorname{softmax}(z / T)) \\]

    Weight decay is added to the gradients, as PyTorch does, and is no part of the loss. On
    validation data the loss is the cross-entropy alone.

    # Arguments
        network: the network; its layers are shared.
        recipe: how it is trained.
        teacher: what it learns from, besides the labels.
        seed: of what is random.
    """

    def __init__(
        self,
        network: tf.keras.Model,
        recipe: Recipe,
        teacher: Teacher | None = None,
        seed: int = 0,
    ) -> None:
        # The second output is that of the auxiliary classifier.
        super().__init__(network.inputs, network.outputs, name=network.name)
        self._recipe = recipe
        self._seed = seed
        self._classes = network.outputs[0].shape[-1]
        self._amplified = amplifications(network, self.trainable_variables)
        # As members, their weights would be a part of this model's.
        self._teacher_logits = teacher.logits if teacher else None
        self._save_network = network.save
        self._mean = tf.keras.metrics.Mean("loss")
        self._accuracy = tf.keras.metrics.SparseCategoricalAccuracy("accuracy")

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        return [self._mean, self._accuracy]

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save the network, as `tf.keras.Model.save` does, without how it is trained."""
        self._save_network(*args, **kwargs)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        images, labels = data
        images, targets = self._mixed(images, labels)
        with tf.GradientTape() as tape:
            with computing_in(self._recipe.precision):
                logits, *auxiliary = tf.nest.flatten(self(images, training=True))
            loss = self._loss(images, targets, logits)
            further = [self._recipe.auxiliary * self._entropy(targets, y) for y in auxiliary]
            total = tf.add_n([loss, *further, *self.losses])
        descend(
            self.optimizer,
            tape.gradient(total, self.trainable_variables),
            self.trainable_variables,
            decay=self._recipe.weight_decay,
            clip_norm=self._recipe.clip_norm,
            amplified=self._amplified,
        )
        self._mean.update_state(loss, tf.shape(labels)[0])
        self._accuracy.update_state(labels, logits)
        return self._measured()

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        # Weights, 0 for what fills a batch up, come where replicas share it.
        images, labels, *weights = data
        logits = tf.nest.flatten(self(images, training=False))[0]
        losses = tf.keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        self._mean.update_state(losses, *weights)
        self._accuracy.update_state(labels, logits, *weights)
        return self._measured()

    def _measured(self) -> dict[str, tf.Tensor]:
        return {metric.name: metric.result() for metric in self.metrics}

    def _mixed(self, images: tf.Tensor, labels: tf.Tensor) -> Mixed:
        """Return images and the probabilities of their classes, mixed if the recipe says so."""
        targets = tf.one_hot(tf.cast(labels, tf.int64), self._classes)
        if not self._recipe.mix_up:
            return images, targets
        # By the step, so that a training that is resumed goes on as it would have.
        key = tf.stack([tf.constant(self._seed, tf.int64), self.optimizer.iterations])
        return mix_up(images, targets, self._recipe.mix_up, key)

    def _entropy(self, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(
            tf.keras.losses.categorical_crossentropy(
                targets, logits, from_logits=True, label_smoothing=self._recipe.label_smoothing
            )
        )

    def _loss(self, images: tf.Tensor, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        loss = self._entropy(targets, logits)
        if self._teacher_logits is None:
            return loss
        share, temperature = self._recipe.distillation, self._recipe.distillation_temperature
        known = tf.nn.log_softmax(self._teacher_logits(images) / temperature)
        distances = tf.exp(known) * (known - tf.nn.log_softmax(logits / temperature))
        distance = tf.reduce_mean(tf.reduce_sum(distances, axis=-1))
        return (1 - share) * loss + share * temperature**2 * distance


class DropPathSchedule(tf.keras.callbacks.Callback):
    """Raises the probability to drop an operation evenly over the epochs, from 0.

    # Arguments
        last: the probability it would have after the last epoch.
        epochs: number of epochs.
    """

    def __init__(self, last: float, epochs: int) -> None:
        super().__init__()
        self._last = last
        self._epochs = epochs

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        for layer in self.model.layers:
            if isinstance(layer, DropPath):
                layer.rate.assign(self._last * epoch / self._epochs)
