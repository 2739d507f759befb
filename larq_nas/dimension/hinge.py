"""What widths are charged for a target they are expected to exceed."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from larq_nas.cost import Budget
from larq_nas.cost.structure import Structure
from larq_nas.dimension.dimensions import Dimensions

__all__ = ["BudgetHinge", "MemoryHinge", "megabytes"]

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
