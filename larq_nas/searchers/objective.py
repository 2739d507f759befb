"""What is added to the loss of the architecture parameters."""

import math
from collections.abc import Sequence

import tensorflow as tf

from larq_nas.layers import Probabilities

__all__ = ["Diversity", "entropies"]


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
