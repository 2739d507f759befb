"""A network that learns weights and widths in turns of epochs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from larq_nas.cost import Budget
from larq_nas.cost.structure import Structure
from larq_nas.searchers.dms.supernet import Supernet
from larq_nas.searchers.dms.widths import Dimensions
from larq_nas.training.loop import Term, TwoLevels
from larq_nas.training.recipe import descend

__all__ = [
    "BudgetHinge",
    "DimensionModel",
    "MemoryHinge",
    "Turns",
    "megabytes",
]


@dataclass(frozen=True)
class Turns:
    """Epochs in turns: some that train the weights, then one that trains the means.

    # Arguments
        count: number of turns.
        weight_epochs: epochs of each that train the weights.
        scale: sigma in the first turn.
        final_scale: sigma in the last one; between them it falls by the same factor each turn.
    """

    count: int
    weight_epochs: int
    scale: float
    final_scale: float

    @property
    def epochs(self) -> int:
        """Number of all epochs."""
        return self.count * (self.weight_epochs + 1)

    def trains_means(self, epoch: int) -> bool:
        """Return whether an epoch, the first being 0, trains the means."""
        return epoch % (self.weight_epochs + 1) == self.weight_epochs

    def next(self, epoch: int) -> int:
        """Return the number of the turn that comes after an epoch, the first being 0."""
        return (epoch + 1) // (self.weight_epochs + 1)

    def scale_of(self, turn: int) -> float:
        """Return sigma in a turn, the first being 0."""
        if self.count == 1:
            return self.scale
        factor: float = (self.final_scale / self.scale) ** (1 / (self.count - 1))
        return self.scale * factor**turn


_MERGES = ("add", "arithmetic", "average")
_MIB = 2**20


class MemoryHinge:
    r"""Added to the loss of the means: \\(\lambda \max(0, M - M_{target})\\) (DMS, equation 7).

    \\(M\\) is the memory of the network at the means, in MiB as the paper counts it; see
    `megabytes`.

    # Arguments
        structure: the network.
        dimensions: its widths.
        target: \\(M_{target}\\), in MiB.
        weight: \\(\lambda\\), in loss for each MiB.
    """

    def __init__(
        self, structure: Structure, dimensions: Dimensions, target: float, weight: float
    ) -> None:
        self._structure = structure
        self._dimensions = dimensions
        self._target = target
        self._weight = weight

    def begin_epoch(self, epoch: int) -> None:
        """Do nothing: it is the same in each epoch."""

    def __call__(self) -> tf.Tensor:
        """Return the penalty."""
        memory = megabytes(self._structure, self._dimensions.mean_filters())
        return self._weight * tf.maximum(memory - self._target, 0.0)


class BudgetHinge:
    """Added to the loss of the means: `weight * sum_b max(0, c_b / b - 1)`.

    `c_b` is what the network at the means uses of the limit `b`.

    # Arguments
        budget: the limits; none of them of latency, which has no gradient.
        structure: the network.
        dimensions: the widths.
        weight: loss for each limit that is exceeded by its own size.
    """

    def __init__(
        self, budget: Budget, structure: Structure, dimensions: Dimensions, weight: float
    ) -> None:
        self._budget = budget
        self._structure = structure
        self._dimensions = dimensions
        self._weight = weight

    def begin_epoch(self, epoch: int) -> None:
        """Do nothing: it is the same in each epoch."""

    def __call__(self) -> tf.Tensor:
        """Return the penalty."""
        costs = self._structure.costs(self._dimensions.mean_filters())
        used = self._budget.use(costs).values()
        over = tf.add_n([tf.maximum(tf.cast(share, tf.float32) - 1, 0.0) for share in used])
        return self._weight * over


def megabytes(structure: Structure, widths: Mapping[str, Any]) -> Any:
    """Return the memory of a network as DMS counts it, in MiB.

    Bits of the kernels, and in a chain 32 for each binary output channel; see
    `larq_nas.cost.by_convention`, which counts a network that is built.

    # Arguments
        structure: the network.
        widths: numbers of filters by name of the choice: numbers or tensors.
    """
    network, counted = structure.network, structure.count(widths)
    chain = not any(call.facts.kind in _MERGES for call in network.calls)
    bits = 0
    for index, call in enumerate(counted):
        facts = network.facts[index]
        if facts.kind in ("conv", "dense"):
            bits += call.kernel_weights * facts.kernel_bits[0]
            bits += 32 * call.channels * (chain and network.binary(index))
    return bits / 8 / _MIB


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
