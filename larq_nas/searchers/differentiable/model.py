"""Bilevel optimization of weights and architecture parameters."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from larq_nas.layers import ComputedIn, computing_in
from larq_nas.layers.mixture import Probabilities
from larq_nas.training.distribution import is_distributed
from larq_nas.training.loop import Term, TwoLevels
from larq_nas.training.recipe import descend

__all__ = ["BilevelModel", "Diversity", "entropies", "mean_entropy"]


class Diversity:
    r"""Reward undecided edges, less with each epoch (BNAS v2, equation 2).

    \\[ -\lambda H(p) e^{-t / \tau} \\]

    \\(H(p)\\) is the mean over all edges, of every kind of cell, of the entropy of the
    operations' probabilities in nats; \\(t\\) is the epoch, the first being 0. Without it
    what learns fast is chosen early: pools, which need no learning.

    # Arguments
        mixtures: the layers that hold the architecture parameters.
        weight: \\(\lambda\\).
        annealing: \\(\tau\\), in epochs.

    # References
        - [BNAS v2](https://arxiv.org/abs/2110.08562)
    """

    def __init__(self, mixtures: Sequence[Probabilities], weight: float, annealing: float) -> None:
        self._mixtures = list(mixtures)
        self._weight = weight
        self._annealing = annealing
        self._factor = tf.Variable(weight, trainable=False, name="diversity", dtype=tf.float32)

    def begin_epoch(self, epoch: int) -> None:
        """Anneal the weight to that of `epoch`."""
        self._factor.assign(self._weight * math.exp(-epoch / self._annealing))

    def __call__(self) -> tf.Tensor:
        """Return the term, a negative number."""
        return -self._factor * tf.reduce_mean(entropies(self._mixtures))


def entropies(mixtures: Sequence[Probabilities]) -> tf.Tensor:
    """Return the entropy of the operations' probabilities of each edge, in nats."""
    return tf.concat([_entropies(mixture) for mixture in mixtures], axis=0)


def _entropies(mixture: Probabilities) -> tf.Tensor:
    return -tf.reduce_sum(mixture.probabilities * tf.nn.log_softmax(mixture.logits), axis=-1)


class BilevelModel(TwoLevels):
    """First-order bilevel optimization (DARTS), one step of each level per batch.

    A batch is a pair `((images, labels), (images, labels))`: the first trains the weights,
    the second the architecture parameters. While `searching` is off, weights learn alone.

    # Arguments
        supernet: the network.
        mixtures: the layers that hold the architecture parameters.
        weight_decay: L2 coefficient added to the gradient of the weights.
        architecture_weight_decay: L2 coefficient added to that of the alphas.
        terms: what is added to the loss of the alphas, by the name of its metric.
        precision: of the operands of binary convolutions; see `larq_nas.layers.computing_in`.

    # References
        - [DARTS: Differentiable Architecture Search](https://arxiv.org/abs/1806.09055)
    """

    def __init__(
        self,
        supernet: tf.keras.Model,
        mixtures: Mapping[str, Probabilities],
        weight_decay: float,
        architecture_weight_decay: float,
        terms: Mapping[str, Term] | None = None,
        precision: ComputedIn = "float32",
    ) -> None:
        layers = list(mixtures.values())
        super().__init__(
            supernet,
            [mixture.alpha for mixture in layers],
            terms or {},
            ("entropy", "confidence"),
        )
        self.mixtures = layers
        self.weight_decay = weight_decay
        self.architecture_weight_decay = architecture_weight_decay
        self.precision = precision

    @property
    def alphas(self) -> list[tf.Variable]:
        """The architecture parameters, one matrix `(inputs, operations)` per choice."""
        return [mixture.alpha for mixture in self.mixtures]

    @property
    def parameters(self) -> list[tf.Variable]:
        return self.alphas

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        weight_batch, architecture_batch = data
        with computing_in(self.precision):
            self._if_searching(lambda: self._architecture_step(*architecture_batch))
            self._weight_step(*weight_batch)
        self._means["entropy"].update_state(mean_entropy(self.mixtures))
        self._means["confidence"].update_state(mean_confidence(self.mixtures))
        return self.results()

    def _if_searching(self, step: Callable[[], tf.Operation]) -> None:
        if not is_distributed():
            tf.cond(self.searching, step, tf.no_op)
        elif self.traced_searching:
            # Replicas cannot meet within a condition: each phase is traced for itself.
            step()

    def _weight_step(self, images: tf.Tensor, labels: tf.Tensor) -> None:
        variables = self.ordinary_weights
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            logits = self(images, training=True)
            loss = self.batch_loss(labels, logits)
        descend(
            self.optimizer,
            tape.gradient(loss, variables),
            variables,
            decay=self.weight_decay,
        )
        self.measure(loss, labels, logits)

    def _architecture_step(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Operation:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.alphas)
            logits = self(images, training=True)
            loss = self.batch_loss(labels, logits)
            total = tf.add_n([loss, *self.added()])
        descend(
            self.architecture_optimizer,
            tape.gradient(total, self.alphas),
            self.alphas,
            decay=self.architecture_weight_decay,
        )
        self.measure(loss, labels, logits, "search_")
        return tf.no_op()


def mean_entropy(mixtures: list[Probabilities]) -> tf.Tensor:
    """Return the mean entropy of the operations' probabilities over all edges, in nats."""
    return tf.reduce_mean(entropies(mixtures))


def mean_confidence(mixtures: list[Probabilities]) -> tf.Tensor:
    """Return the mean over all edges of the largest probability."""
    largest = [tf.reduce_max(mixture.probabilities, axis=-1) for mixture in mixtures]
    return tf.reduce_mean(tf.concat(largest, axis=0))
