"""How likely each expansion ratio is: a logistic distribution, cut into intervals."""

import tensorflow as tf

__all__ = ["log_probabilities"]


def log_probabilities(
    ratios: tf.Tensor, mean: tf.Tensor, scale: tf.Tensor, half_step: tf.Tensor
) -> tf.Tensor:
    r"""Return the logarithm of the probability of each ratio (DMS, equations 4 and 5).

    \\[ \hat p_i = \frac{F(r_i + \Delta) - F(r_i - \Delta)}{F(r_m + \Delta) - F(r_0 - \Delta)},
    \quad F(r) = \frac{1}{1 + e^{-(r - \mu) / \sigma}} \\]

    The paper prints the distribution \\(F\\) with the other sign, and \\(r_i + \Delta\\) twice
    in the numerator of equation 5.

    # Arguments
        ratios: \\(r_i\\), rising in steps of \\(2 \Delta\\), shape `(..., ratios)`.
        mean: \\(\mu\\), shape `(...)`.
        scale: \\(\sigma\\), a number above 0.
        half_step: \\(\Delta\\), a number above 0.

    # Returns
        Shape `(..., ratios)`; the exponentials are 1 in sum.
    """
    # At large distances from the mean, differences of F themselves would be 0.
    from_mean = ratios - mean[..., None]
    low, high = (from_mean - half_step) / scale, (from_mean + half_step) / scale
    inside = _log_interval(low, high)
    return inside - _log_interval(low[..., :1], high[..., -1:])


def _log_interval(low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    """Return the logarithm of what a standard logistic distribution has between two numbers."""
    return (
        tf.math.log_sigmoid(high)
        + tf.math.log_sigmoid(-low)
        + tf.math.log(-tf.math.expm1(low - high))
    )
