"""The searchable layer: a weighted sum over inputs and operations."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

__all__ = ["Mixture"]


@tf.keras.utils.register_keras_serializable("larq_nas")
class Mixture(tf.keras.layers.Layer):
    """Sum candidate outputs, weighted by a temperature softmax over operations.

    The node `j` of a cell is `x_j = sum_i sum_o p(i, o) * o(x_i)` with
    `p(i, o) = exp(alpha(i, o) / T) / sum_o' exp(alpha(i, o') / T)` (BATS, Eq. 2). One
    instance called in several cells shares its `alpha` among them.

    # Arguments
        candidates: the `(input, operation)` index of each tensor the layer is called on. A
            pair that is not named, such as the zero operation, takes its share of the
            probability and adds nothing.
        inputs: number of inputs of the node.
        operations: number of operations on each input.
        temperature: `T`; below 1 the choice gets harder.
        **kwargs: further arguments of `tf.keras.layers.Layer`.

    # References
        - [BATS: Binary ArchitecTure Search](https://arxiv.org/abs/2003.01711)
    """

    def __init__(
        self,
        candidates: Sequence[tuple[int, int]],
        inputs: int,
        operations: int,
        temperature: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.candidates = [(int(i), int(o)) for i, o in candidates]
        self.inputs = inputs
        self.operations = operations
        self.temperature = temperature

    def build(self, input_shape: Any) -> None:
        # The tiny noise is DARTS': it breaks ties without preferring an operation.
        self.alpha = self.add_weight(
            name="alpha",
            shape=(self.inputs, self.operations),
            initializer=tf.keras.initializers.RandomNormal(stddev=1e-3),
        )
        super().build(input_shape)

    @property
    def probabilities(self) -> tf.Tensor:
        """`p(i, o)`, shape `(inputs, operations)`; each row sums to 1."""
        return tf.nn.softmax(self.alpha / self.temperature, axis=-1)

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        weights = tf.unstack(tf.gather_nd(self.probabilities, self.candidates))
        return tf.add_n([p * x for p, x in zip(weights, tf.nest.flatten(inputs), strict=True)])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "candidates": self.candidates,
            "inputs": self.inputs,
            "operations": self.operations,
            "temperature": self.temperature,
        }
