"""Trades time for memory: what a function computes is computed again for its gradient."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

__all__ = ["rematerialized"]


def rematerialized(compute: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function like `compute` that keeps its arguments alone for the backward pass.

    # Arguments
        compute: takes and returns nested tensors, and reads no variables.

    # References
        - [Training Deep Nets with Sublinear Memory Cost](https://arxiv.org/abs/1604.06174)
    """

    def call(*arguments: Any) -> Any:
        structure: Any = None

        @tf.custom_gradient
        def run(*flat: tf.Tensor) -> Any:
            nonlocal structure
            structure = compute(*tf.nest.pack_sequence_as(arguments, flat))

            def gradients(*upstream: tf.Tensor) -> Sequence[tf.Tensor]:
                with tf.control_dependencies(upstream):  # not before, or all would be kept
                    again = [tf.identity(x) for x in flat]
                with tf.GradientTape() as tape:
                    tape.watch(again)
                    outputs = compute(*tf.nest.pack_sequence_as(arguments, again))
                found: list[tf.Tensor] = tape.gradient(
                    tf.nest.flatten(outputs),
                    again,
                    list(upstream),
                    unconnected_gradients=tf.UnconnectedGradients.ZERO,
                )
                return found

            return tf.nest.flatten(structure), gradients

        outputs = run(*tf.nest.flatten(arguments))
        return tf.nest.pack_sequence_as(structure, outputs)

    return call
