"""Frees the graphs of networks that are done with, which TensorFlow keeps for good."""

from collections.abc import Iterator
from contextlib import contextmanager

from tensorflow.python.framework import ops

__all__ = ["forgetting_graphs"]


@contextmanager
def forgetting_graphs() -> Iterator[None]:
    """Forget, at the end, the gradients that quantizers have registered inside.

    Each call of a function with `tf.custom_gradient` in a graph registers its gradient under
    a name of its own, which TensorFlow never removes. It holds the graph, and through it all
    weights. Only the gradient of a function that was traced inside, and not taken yet, would
    need it.
    """
    registered = ops.gradient_registry._registry
    before = set(registered)
    try:
        yield
    finally:
        for name in set(registered) - before:
            if name.startswith("CustomGradient-"):
                del registered[name]
