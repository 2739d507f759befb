"""Probabilities of expansion ratios, against the logistic distribution of SciPy."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import logistic

from larq_nas.searchers.dms.widths import log_probabilities


def of(ratios: np.ndarray, mean: float, scale: float, half_step: float) -> np.ndarray:
    found = log_probabilities(
        tf.constant(ratios, tf.float32),
        tf.constant(mean),
        tf.constant(scale),
        tf.constant(half_step),
    )
    return np.exp(found.numpy())


@pytest.mark.parametrize(("mean", "scale"), [(1.5, 1.0), (0.4, 0.3), (2.25, 0.05)])
def test_probabilities_are_those_of_equations_4_and_5(mean: float, scale: float) -> None:
    half_step = 0.5 / 16
    ratios = np.arange(4, 65) / 16
    distribution = logistic(mean, scale)
    share = distribution.cdf(ratios + half_step) - distribution.cdf(ratios - half_step)
    all_of_them = distribution.cdf(ratios[-1] + half_step) - distribution.cdf(ratios[0] - half_step)
    found = of(ratios, mean, scale, half_step)
    # Far above the mean the difference of two numbers next to 1 is itself inexact.
    np.testing.assert_allclose(found, share / all_of_them, rtol=2e-4, atol=1e-7)
    assert found.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_three_ratios_stand_for_the_whole_range(scale: float) -> None:
    ratios = 1.5 + np.array([-0.8, 0, 0.8]) * scale
    found = of(ratios, 1.5, scale, 0.4 * scale)
    middle = logistic.cdf(0.4) - logistic.cdf(-0.4)
    assert found[1] == pytest.approx(middle / (logistic.cdf(1.2) - logistic.cdf(-1.2)), rel=1e-5)
    assert found[0] == pytest.approx(found[2], rel=1e-5)
    assert found.sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("mean", [1.1, 1.5, 2.2])
def test_gradient_of_the_mean_is_that_of_finite_differences(mean: float) -> None:
    ratios, scale, half_step = np.array([0.7, 1.5, 2.3]), 1.0, 0.4
    weights = np.array([0.3, -1.2, 2.0])

    def value(at: float) -> float:
        distribution = logistic(at, scale)
        share = distribution.cdf(ratios + half_step) - distribution.cdf(ratios - half_step)
        return float(weights @ (share / share.sum()))

    variable = tf.Variable(mean, dtype=tf.float64)
    with tf.GradientTape() as tape:
        found = log_probabilities(
            tf.constant(ratios, tf.float64),
            variable,
            tf.constant(scale, tf.float64),
            tf.constant(half_step, tf.float64),
        )
        total = tf.reduce_sum(tf.exp(found) * weights)
    step = 1e-5
    expected = (value(mean + step) - value(mean - step)) / (2 * step)
    assert float(tape.gradient(total, variable)) == pytest.approx(expected, rel=1e-6)
    assert abs(expected) > 0.01


@pytest.mark.parametrize("mean", [-40.0, 60.0])
def test_far_from_the_mean_probabilities_stay_finite(mean: float) -> None:
    variable = tf.Variable(mean)
    with tf.GradientTape() as tape:
        found = log_probabilities(
            tf.constant([1.26, 1.5, 1.74]), variable, tf.constant(0.3), tf.constant(0.12)
        )
    assert np.isfinite(found.numpy()).all()
    assert np.exp(found.numpy()).sum() == pytest.approx(1, abs=1e-4)
    assert np.isfinite(tape.gradient(found, variable).numpy())
