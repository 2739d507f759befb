"""Widths as logistic distributions over expansion ratios (DMS, Eq. 4 to 6)."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from larq_nas.choices import Expansion, expand


def log_probabilities(
    ratios: tf.Tensor, mean: tf.Tensor, scale: tf.Tensor, half_step: tf.Tensor
) -> tf.Tensor:
    r"""Return the logarithm of the probability of each ratio (DMS, equations 4 and 5).

    \\[ \hat p_i = \frac{F(r_i + \Delta) - F(r_i - \Delta)}{F(r_m + \Delta) - F(r_0 - \Delta)},
    \quad F(r) = \frac{1}{1 + e^{-(r - \mu) / \sigma}} \\]

    The paper prints the distribution \\(F\\) with the other sign, and \\(r_i + \Delta\\) twice
    in the numerator of equation 5. Ratios rise in steps of \\(2 \Delta\\), shape `(..., ratios)`,
    as what is returned; the mean has shape `(...)`.
    """
    # At large distances from the mean, differences of F themselves would be 0.
    from_mean = ratios - mean[..., None]
    low, high = (from_mean - half_step) / scale, (from_mean + half_step) / scale
    inside = _log_interval(low, high)  # Eq. 4
    # Eq. 5: of what lies between the ends.
    return inside - _log_interval(low[..., :1], high[..., -1:])


def _log_interval(low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    """Return the logarithm of what a standard logistic distribution has between two numbers."""
    return (
        tf.math.log_sigmoid(high)
        + tf.math.log_sigmoid(-low)
        + tf.math.log(-tf.math.expm1(low - high))
    )


CLUSTERS = (-1, 0, 1)
"""The ratios that stand for all others, in steps from the mean (section 2.3)."""


_SEED = 2**31


class Dimensions(tf.Module):
    r"""A logistic distribution over the expansion ratio of each choice (DMS, section 2).

    Three ratios are tried: \\(\mu\\) and \\(\mu \pm 2 \Delta\\). Each stands for all ratios within
    \\(\Delta\\) of it; \\(\Delta = 0.4 \sigma\\) is the paper's. They stay where they are while an
    epoch trains \\(\mu\\), and `move` centres them on it again: if they moved with it, their
    probabilities would not depend on it. The arguments are those of `larq_nas.searchers.Dms`.

    # Attributes
        mean: \\(\mu\\), shape `(choices,)`.
        center: \\(\mu\\) when the ratios were last moved, shape `(choices,)`.
        scale: \\(\sigma\\).
        widths: numbers of filters, shape `(choices, 3)`.
    """

    def __init__(
        self,
        expansions: Mapping[str, Expansion],
        *,
        initial_ratio: float,
        scale: float,
        half_step: float,
        least_mean: float,
        least_ratio: float,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(name="dimensions")
        self.expansions = dict(expansions)
        self.names = list(self.expansions)
        self._least_mean, self._least_ratio = least_mean, least_ratio
        self._half_step = half_step
        self._temperature = temperature
        self._seed = seed % _SEED
        means = np.full(len(self.names), initial_ratio, np.float32)
        self.mean = tf.Variable(means, name="mean", constraint=self._at_least)
        self.center = tf.Variable(means, trainable=False, name="center")
        self.scale = tf.Variable(scale, trainable=False, dtype=tf.float32, name="scale")
        self.step = tf.Variable(0, trainable=False, dtype=tf.int64, name="step")
        self.widths = tf.Variable(self._widths(), trainable=False, name="widths")

    def move(self, scale: float) -> None:
        """Let the three ratios follow the mean, with a new sigma."""
        self.scale.assign(scale)
        self.center.assign(self.mean)
        self.widths.assign(self._widths())

    def log_probabilities(self) -> tf.Tensor:
        """Return the logarithm of the probability of each ratio, shape `(choices, 3)`."""
        half_step = self._half_step * self.scale
        ratios = self.center[:, None] + 2 * half_step * tf.constant(CLUSTERS, tf.float32)
        return log_probabilities(ratios, self.mean, self.scale, half_step)

    def sample(self) -> tf.Tensor:
        r"""Return the shares of the three ratios in what is computed, shape `(choices, 3)`.

        \\[ \pi_i = \frac{\exp((\log \hat p_i + g_i) / \tau)}{\sum_j \exp((\log \hat p_j + g_j) /
        \tau)}, \quad g_i \sim \operatorname{Gumbel}(0, 1) \\]

        Each call draws others, that follow from the seed and the count of calls (DMS, equation 6).
        """
        # From 0 down: the halves of the data are drawn by the same seed, from 0 up.
        key = tf.stack([tf.cast(self._seed, tf.int64), self.step.assign_sub(1)])
        uniform = tf.random.stateless_uniform(
            self.widths.shape, key, minval=np.finfo(np.float32).tiny
        )
        noise = -tf.math.log(-tf.math.log(uniform))
        return tf.nn.softmax((self.log_probabilities() + noise) / self._temperature)  # Eq. 6

    def widest(self) -> dict[str, int]:
        """Return the number of filters that each choice has while it is searched."""
        widths = self.widths.numpy().max(axis=1)
        return dict(zip(self.names, map(int, widths), strict=True))

    def ratios(self) -> dict[str, float]:
        """Return the ratio of the number of filters that is nearest to each mean.

        It is a whole number, and a multiple of what the choice asks for. While it is searched any
        whole number is tried: between multiples far apart, all three ratios would be one width.
        """
        return {
            name: self.expansions[name].width(mean) / self.expansions[name].filters
            for name, mean in zip(self.names, self.mean.numpy().tolist(), strict=True)
        }

    def mean_filters(self) -> dict[str, tf.Tensor]:
        """Return the mean number of filters of each choice, differentiable in the means."""
        return {
            name: self.mean[place] * float(self.expansions[name].filters)
            for place, name in enumerate(self.names)
        }

    def smallest(self) -> dict[str, int]:
        """Return the number of filters of each choice at the smallest mean."""
        least = self._least_mean
        return {name: asked.width(least) for name, asked in self.expansions.items()}

    def _at_least(self, mean: tf.Tensor) -> tf.Tensor:
        return tf.maximum(mean, self._least_mean)

    def _widths(self) -> np.ndarray:
        centers = self.center.numpy().tolist()
        step = 2 * self._half_step * float(self.scale.numpy())
        return np.array(
            [
                [
                    expand(
                        self.expansions[name].filters,
                        max(center + cluster * step, self._least_ratio),
                    )
                    for cluster in CLUSTERS
                ]
                for name, center in zip(self.names, centers, strict=True)
            ],
            np.int64,
        )


def channel_shares(shares: tf.Tensor, widths: tf.Tensor) -> tf.Tensor:
    r"""Return how much of each channel is computed, from 1 down: \\(\sum_i \pi_i [j < w_i]\\).

    The shares \\(\pi_i\\) and the widths \\(w_i\\), in channels, are both of shape `(widths,)`.
    """
    channels = tf.range(tf.reduce_max(widths))
    inside = tf.cast(channels[:, None] < widths, shares.dtype)
    return tf.linalg.matvec(inside, shares)
