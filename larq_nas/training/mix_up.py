"""Trains on mixtures of two images and of their labels."""

import tensorflow as tf

__all__ = ["Mixed", "mix_up"]

_TINY = 1e-12

Mixed = tuple[tf.Tensor, tf.Tensor]
"""Mixed images, and probabilities of the classes."""


def mix_up(images: tf.Tensor, targets: tf.Tensor, alpha: float, seed: tf.Tensor) -> Mixed:
    r"""Mix each image with another of its batch, and their labels alike.

    \\[ \lambda x_i + (1 - \lambda) x_j, \quad \lambda \sim \operatorname{Beta}(\alpha, \alpha) \\]

    One \\(\lambda\\) serves a batch, whose images are in no order: the other one is that as far
    from its end as the first from its start.

    # Arguments
        images: shape `(batch, height, width, channels)`.
        targets: probabilities of the classes, shape `(batch, classes)`.
        alpha: \\(\alpha\\); the smaller, the more of one of the two.
        seed: two integers, shape `(2,)`.

    # References
        - [mixup: Beyond Empirical Risk Minimization](https://arxiv.org/abs/1710.09412)
    """
    # The share of one of two gamma variables in their sum is beta distributed.
    both = tf.random.stateless_gamma((2,), seed, alpha) + _TINY
    share = both[0] / tf.reduce_sum(both)
    return tuple(share * x + (1 - share) * tf.reverse(x, [0]) for x in (images, targets))
