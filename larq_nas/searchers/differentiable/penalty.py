"""Penalty of a supernet for exceeding a budget."""

import time
from collections.abc import Mapping

import tensorflow as tf

from larq_nas.cost import Expected, Limits
from larq_nas.layers.mixture import Probabilities
from larq_nas.searchers.differentiable.derivation import weakening

__all__ = ["BudgetPenalty"]


class BudgetPenalty:
    """Added to the loss of the architecture parameters: `weight * sum_b max(0, E[c_b] / b - 1)`.

    `E[c_b]` is what the network that is searched for is expected to use of the limit `b`.

    # Arguments
        limits: the budget, and the costs of the space.
        mixtures: the layers that hold the architecture parameters, by name of the choice.
        weight: loss for each limit that is exceeded by its own size.
        transfer_factor: by how much the zero operation is weakened in what is searched for.

    # Attributes
        seconds: how long an update took.
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
        used = self._budget.use(self._expected(self._scores())).values()
        over = tf.add_n([tf.maximum(tf.cast(share, tf.float32) - 1, 0) for share in used])
        return self._weight * over

    def _scores(self) -> dict[str, tf.Tensor]:
        return {
            name: mixture.probabilities / self._weakening[name]
            for name, mixture in self._mixtures.items()
        }
