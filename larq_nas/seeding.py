"""One seed for everything random."""

import tensorflow as tf

__all__ = ["seed_everything"]


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and TensorFlow.

    # Arguments
        seed: 0 or a whole number above.
    """
    # TensorFlow takes a global seed of 0 for none at all where a data set is shuffled.
    tf.keras.utils.set_random_seed(seed + 1)
