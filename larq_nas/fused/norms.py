"""Batch norms without scale and offset, their statistics side by side."""

import tensorflow as tf

__all__ = ["Norms"]


class Norms:
    """Normalizes tensors, and collects the statistics of all of them.

    # Arguments
        momentum: share of the moving statistics that a step keeps.
        epsilon: added to variances.
        mean: moving means, a row for each tensor.
        variance: moving variances.
        training: whether to normalize by the batch.
    """

    def __init__(
        self,
        momentum: float,
        epsilon: float,
        mean: tf.Tensor,
        variance: tf.Tensor,
        training: bool,
    ) -> None:
        self._momentum, self._epsilon = momentum, epsilon
        self._mean, self._variance = mean, variance
        self._training = training
        self._seen: dict[int, tuple[tf.Tensor, tf.Tensor]] = {}
        channels = mean.shape[-1]
        self._ones, self._zeros = tf.ones(channels), tf.zeros(channels)

    def __call__(self, x: tf.Tensor, row: int) -> tf.Tensor:
        """Normalize `x`, whose statistics are in that row."""
        if not self._training:
            scale = tf.math.rsqrt(self._variance[row] + self._epsilon)
            return (x - self._mean[row]) * scale
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=self._ones,
            offset=self._zeros,
            mean=tf.zeros(0),
            variance=tf.zeros(0),
            epsilon=self._epsilon,
            is_training=True,
        )
        self._seen[row] = mean, variance
        return y

    def moved(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Return means and variances, moved towards those of the batch."""
        if not self._seen:
            return self._mean, self._variance
        rows = sorted(self._seen)
        mean, variance = (
            moving - (moving - tf.stack([self._seen[row][index] for row in rows])) * self._share
            for index, moving in enumerate((self._mean, self._variance))
        )
        return mean, variance

    @property
    def _share(self) -> float:
        return 1 - self._momentum
