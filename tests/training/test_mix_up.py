import numpy as np
import tensorflow as tf

from larq_nas.training.trainer import mix_up

IMAGES = np.random.default_rng(0).normal(size=(6, 4, 4, 2)).astype("float32")
TARGETS = np.eye(3, dtype="float32")[[0, 1, 2, 0, 1, 1]]


def drawn(alpha: float, count: int) -> np.ndarray:
    """The share of the first image, read off what is mixed."""
    shares = []
    for step in range(count):
        _, targets = mix_up(
            tf.constant(IMAGES), tf.constant(TARGETS), alpha, tf.constant([3, step])
        )
        shares.append(float(targets[2, 2]))  # its partner is of another class
    return np.array(shares)


def test_images_and_labels_are_mixed_alike() -> None:
    images, targets = mix_up(tf.constant(IMAGES), tf.constant(TARGETS), 0.2, tf.constant([0, 7]))
    share = float(targets[2, 2])
    assert 0 <= share <= 1
    np.testing.assert_allclose(images, share * IMAGES + (1 - share) * IMAGES[::-1], atol=1e-6)
    np.testing.assert_allclose(targets, share * TARGETS + (1 - share) * TARGETS[::-1], atol=1e-6)


def test_shares_are_beta_distributed() -> None:
    """Mean 1/2 and variance 1 / (4 (2 alpha + 1))."""
    for alpha in (0.2, 2.0):
        shares = drawn(alpha, 800)
        variance = 1 / (4 * (2 * alpha + 1))
        assert abs(shares.mean() - 0.5) < 4 * np.sqrt(variance / len(shares))
        assert abs(shares.var() / variance - 1) < 0.2


def test_the_same_seed_mixes_alike() -> None:
    assert (drawn(0.2, 5) == drawn(0.2, 5)).all()
    assert len(set(drawn(0.2, 5))) == 5
