"""Keeps TensorFlow from computing sums in another order each time."""

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

__all__ = ["exact"]

_OPTION = "disable_meta_optimizer"


@contextmanager
def exact() -> Iterator[None]:
    """Run functions as they were traced, so that the same seed gives the same result.

    In large graphs TensorFlow's memory optimizer adds gradients up in the order in which they
    come, which is another one each time, with `enable_op_determinism` too. Without rewrites
    steps take as long, and the first one less.
    """
    before = tf.config.optimizer.get_experimental_options().get(_OPTION, False)
    tf.config.optimizer.set_experimental_options({_OPTION: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({_OPTION: before})
