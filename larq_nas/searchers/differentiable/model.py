"""Bilevel model of weights and architecture parameters, and the terms of its loss."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import tensorflow as tf

from larq_nas.cost import Expected, Limits
from larq_nas.layers import ComputedIn, computing_in
from larq_nas.layers.mixture import Probabilities
from larq_nas.searchers.differentiable.derivation import weakening
from larq_nas.training.distribution import is_distributed
from larq_nas.training.loop import TwoLevels
from larq_nas.training.recipe import descend


class EpochTerm(Protocol):
    """A term of the loss of the architecture parameters that is set anew before each epoch."""

    def begin_epoch(self, epoch: int) -> None:
        """Prepare for an epoch, the first being 0."""

    def __call__(self) -> tf.Tensor:
        """Return the term."""


class Diversity:
    r"""Reward undecided edges, less with each epoch (BNAS v2, equation 2).

    \\[ -\lambda H(p) e^{-t / \tau} \\]

    \\(H(p)\\) is the mean over all edges, of every kind of cell, of the entropy of the
    operations' probabilities in nats; \\(t\\) is the epoch, the first being 0; \\(\lambda\\) is
    the weight and \\(\tau\\) the annealing, in epochs. Without it what learns fast is chosen
    early: pools, which need no learning.
    """

    def __init__(self, mixtures: Sequence[Probabilities], weight: float, annealing: float) -> None:
        self._mixtures = mixtures
        self._weight = weight
        self._annealing = annealing
        self._factor = tf.Variable(weight, trainable=False, name="diversity", dtype=tf.float32)

    def begin_epoch(self, epoch: int) -> None:
        """Anneal the weight to that of `epoch`."""
        self._factor.assign(self._weight * math.exp(-epoch / self._annealing))

    def __call__(self) -> tf.Tensor:
        """Return the term, a negative number."""
        # BNAS v2, Eq. 2: - lambda H(p) exp(-t / tau), the factor being lambda exp(-t / tau).
        return -self._factor * mean_entropy(self._mixtures)


class BilevelModel(TwoLevels):
    """First-order bilevel optimization (DARTS), one step of each level per batch.

    A batch is a pair `((images, labels), (images, labels))`: the first trains the weights,
    the second the architecture parameters, to whose loss the `terms` are added, by the name of
    their metrics. While `searching` is off, weights learn alone.
    """

    def __init__(
        self,
        supernet: tf.keras.Model,
        mixtures: Mapping[str, Probabilities],
        weight_decay: float,
        architecture_weight_decay: float,
        terms: Mapping[str, EpochTerm] | None = None,
        precision: ComputedIn = "float32",
        clip_norm: float = 0.0,
        architecture_clip_norm: float = 0.0,
    ) -> None:
        layers = list(mixtures.values())
        super().__init__(supernet, [one.alpha for one in layers], terms or {}, tuple(MEASURED))
        self.mixtures = layers
        self.weight_decay = weight_decay
        self.architecture_weight_decay = architecture_weight_decay
        self.precision = precision
        self.clip_norm, self.architecture_clip_norm = clip_norm, architecture_clip_norm

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
        for name, measure in MEASURED.items():
            self._means[name].update_state(measure(self.mixtures))
        return self.results()

    def _if_searching(self, step: Callable[[], tf.Operation]) -> None:
        if not is_distributed():
            tf.cond(self.searching, step, tf.no_op)
        elif self.traced_searching:
            # Replicas cannot meet within a condition: each phase is traced for itself.
            step()

    def _weight_step(self, images: tf.Tensor, labels: tf.Tensor, *weights: tf.Tensor) -> None:
        variables = self.ordinary_weights
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            logits = self(images, training=True)
            loss = self.batch_loss(labels, logits, *weights)
        descend(
            self.optimizer,
            tape.gradient(loss, variables),
            variables,
            decay=self.weight_decay,
            clip_norm=self.clip_norm,
        )
        self.measure(loss, labels, logits)

    def _architecture_step(
        self, images: tf.Tensor, labels: tf.Tensor, *weights: tf.Tensor
    ) -> tf.Operation:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.alphas)
            logits = self(images, training=True)
            loss = self.batch_loss(labels, logits, *weights)
            total = tf.add_n([loss, *self.added()])
        descend(
            self.architecture_optimizer,
            tape.gradient(total, self.alphas),
            self.alphas,
            decay=self.architecture_weight_decay,
            clip_norm=self.architecture_clip_norm,
        )
        self.measure(loss, labels, logits, "search_")
        return tf.no_op()


def mean_entropy(mixtures: Sequence[Probabilities]) -> tf.Tensor:
    """Return the mean entropy of the operations' probabilities over all edges, in nats."""
    entropies = [
        -tf.reduce_sum(mixture.probabilities * tf.nn.log_softmax(mixture.logits), axis=-1)
        for mixture in mixtures
    ]
    return tf.reduce_mean(tf.concat(entropies, axis=0))


def mean_max_probability(mixtures: Sequence[Probabilities]) -> tf.Tensor:
    """Return the mean over all edges of the largest probability."""
    largest = [tf.reduce_max(mixture.probabilities, axis=-1) for mixture in mixtures]
    return tf.reduce_mean(tf.concat(largest, axis=0))


# What each epoch measures of all edges, by the name of its metric.
MEASURED = {"entropy": mean_entropy, "max_probability": mean_max_probability}
DIVERSITY = "diversity"


class BudgetPenalty:
    """Added to the loss of the architecture parameters: `weight * sum_b max(0, E[c_b] / b - 1)`.

    `E[c_b]` is what the network that is searched for is expected to use of the limit `b`, in
    which the zero operation is weakened by `transfer_factor`. `seconds` is how long an update
    took.
    """

    def __init__(
        self,
        limits: Limits,
        mixtures: Mapping[str, Probabilities],
        weight: float,
        transfer_factor: float = 1.0,
    ) -> None:
        self._budget = limits.budget
        self._expected = Expected(limits.costs)
        self._mixtures = mixtures
        self._weight = weight
        self._weakening = {
            name: tf.constant(weakening(choice, transfer_factor), tf.float32)
            for name, choice in limits.costs.choices.items()
        }
        start = time.perf_counter()
        self.begin_epoch(0)
        self.seconds = time.perf_counter() - start

    def begin_epoch(self, epoch: int) -> None:
        """Compute the costs around what would be derived now."""
        self._expected.update({name: score.numpy() for name, score in self._scores().items()})

    def __call__(self) -> tf.Tensor:
        """Return the penalty."""
        return self._weight * self._budget.hinge(self._expected(self._scores()))

    def _scores(self) -> dict[str, tf.Tensor]:
        return {
            name: mixture.probabilities / self._weakening[name]
            for name, mixture in self._mixtures.items()
        }
