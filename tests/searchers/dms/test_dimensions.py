"""The widths that stand for a distribution, and what is sampled of them."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import dimensions_of

from larq_nas.choices import Expansion
from larq_nas.searchers.dms.widths import Dimensions, channel_shares


def dimensions(ratio: float = 1.5, scale: float = 1.0, seed: int = 0, **filters: int) -> Dimensions:
    filters = filters or {"conv1": 16, "conv2": 100}
    expansions = {name: Expansion(name, count, (1,)) for name, count in filters.items()}
    return dimensions_of(expansions, initial_ratio=ratio, scale=scale, seed=seed)


def test_widths_are_those_of_the_three_ratios() -> None:
    made = dimensions()
    assert made.widths.numpy().tolist() == [[11, 24, 37], [70, 150, 230]]
    assert made.widest() == {"conv1": 37, "conv2": 230}


def test_no_ratio_is_below_the_least() -> None:
    assert dimensions(0.3, 0.3).widths.numpy()[1].tolist() == [25, 30, 54]


def test_ratios_follow_the_mean_only_when_they_are_moved() -> None:
    made = dimensions()
    before = made.log_probabilities().numpy()
    made.mean.assign([1.9, 1.5])
    assert made.widest() == {"conv1": 37, "conv2": 230}
    moved = made.log_probabilities().numpy()
    # A larger mean makes the widest ratio likelier.
    assert moved[0, 2] > before[0, 2]
    assert moved[1] == pytest.approx(before[1])
    made.move(0.5)
    assert made.widths.numpy().tolist() == [[24, 30, 37], [110, 150, 190]]
    assert np.exp(made.log_probabilities().numpy()).sum(axis=1) == pytest.approx([1, 1])


def test_gradient_reaches_the_means_although_the_ratios_stay() -> None:
    made = dimensions()
    with tf.GradientTape() as tape:
        widest = made.sample()[:, 2]
    gradient = tape.gradient(widest, made.mean).numpy()
    assert (gradient > 0.01).all()


def test_samples_are_gumbel_softmax_of_the_probabilities() -> None:
    made = dimensions(conv1=16)
    made.mean.assign([1.9])
    sample = tf.function(made.sample)
    samples = np.concatenate([sample().numpy() for _ in range(3000)])
    assert samples.sum(axis=1) == pytest.approx(1, abs=1e-5)
    # The largest of log p + Gumbel noise is i with probability p_i, whatever the temperature.
    often = np.bincount(samples.argmax(axis=1), minlength=3) / len(samples)
    probabilities = np.exp(made.log_probabilities().numpy()[0])
    assert often == pytest.approx(probabilities, abs=0.03)
    # With g_i - g_j logistic, log(pi_i / pi_j) is logistic around log(p_i / p_j).
    odds = np.log(samples[:, 2] / samples[:, 0])
    assert np.median(odds) == pytest.approx(np.log(probabilities[2] / probabilities[0]), abs=0.1)
    assert odds.std() == pytest.approx(np.pi / np.sqrt(3), rel=0.06)


def test_the_same_seed_draws_the_same() -> None:
    draws = [[made.sample().numpy() for _ in range(3)] for made in map(_seeded, (3, 3, 4))]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.allclose(draws[0], draws[2])
    assert not np.allclose(draws[0][0], draws[0][1])


def _seeded(seed: int) -> Dimensions:
    return dimensions(seed=seed)


def test_shares_of_channels() -> None:
    shares = channel_shares(tf.constant([0.2, 0.5, 0.3]), tf.constant([1, 3, 4]))
    np.testing.assert_allclose(shares, [1.0, 0.8, 0.8, 0.3], rtol=1e-6)


def test_found_ratios_are_of_whole_filters() -> None:
    made = dimensions()
    made.mean.assign([1.47, 0.777])
    assert made.ratios() == {"conv1": 24 / 16, "conv2": 0.78}


def test_means_stay_at_or_above_the_least() -> None:
    made = dimensions()
    optimizer = tf.keras.optimizers.SGD(1.0)
    optimizer.apply_gradients([(tf.constant([5.0, 0.5]), made.mean)])
    np.testing.assert_allclose(made.mean, [0.3, 1.0])
