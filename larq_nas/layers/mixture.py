"""The weighted sum over candidate operations, and its architecture parameters."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

Kept: TypeAlias = Sequence[Sequence[bool]]
"""Of each input, whether each operation on it is still a candidate."""

_NEVER = -1e9


@tf.keras.utils.register_keras_serializable("larq_nas")
class Probabilities(tf.keras.layers.Layer):
    """Give the probabilities of the operations of a choice, whatever it is called on.

    It is `p(i, o) = exp(alpha(i, o) / T) / sum_o' exp(alpha(i, o') / T)` (BATS, Eq. 2), the sum
    over the operations that are kept. One instance called in several cells shares its `alpha`
    among them.

    # Arguments
        inputs: number of inputs of the node.
        operations: number of operations on each input.
        temperature: `T`; below 1 the choice gets harder.
        kept: of each input, whether each operation on it is a candidate; all are, if not given.
            The probability of others is 0.
        **kwargs: further arguments of `tf.keras.layers.Layer`.

    # Attributes
        fixed: what is given in place of the probabilities, in steps that are not traced.

    # References
        - [BATS: Binary ArchitecTure Search](https://arxiv.org/abs/2003.01711)
    """

    def __init__(
        self,
        inputs: int,
        operations: int,
        temperature: float = 1.0,
        kept: Kept | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.inputs = inputs
        self.operations = operations
        self.temperature = temperature
        self.fixed: np.ndarray | None = None
        everything = np.ones((inputs, operations), dtype=bool)
        self.kept: np.ndarray = everything if kept is None else np.array(kept, dtype=bool)

    def build(self, input_shape: Any) -> None:
        # The tiny noise is DARTS': it breaks ties without preferring an operation.
        self.alpha = self.add_weight(
            name="alpha",
            shape=(self.inputs, self.operations),
            initializer=tf.keras.initializers.RandomNormal(stddev=1e-3),
        )
        super().build(input_shape)

    @property
    def logits(self) -> tf.Tensor:
        """`alpha(i, o) / T`, and next to nothing for what is not kept."""
        logits = self.alpha / self.temperature
        return logits if self.kept.all() else tf.where(self.kept, logits, _NEVER)

    @property
    def probabilities(self) -> tf.Tensor:
        """`p(i, o)`, shape `(inputs, operations)`; each row sums to 1, but of `fixed` ones."""
        if self.fixed is not None:
            return tf.constant(self.fixed, tf.float32)
        # BATS, Eq. 2: `logits` are alpha / T.
        return tf.nn.softmax(self.logits, axis=-1)

    def call(self, inputs: Any) -> tf.Tensor:
        return self.probabilities

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "inputs": self.inputs,
            "operations": self.operations,
            "temperature": self.temperature,
            "kept": self.kept.tolist(),
        }


@tf.keras.utils.register_keras_serializable("larq_nas")
class Mixture(Probabilities):
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
        kept: see `Probabilities`.
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
        kept: Kept | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(inputs, operations, temperature, kept, **kwargs)
        self.candidates = [(int(i), int(o)) for i, o in candidates]

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        return _weighted_sum(self.probabilities, tf.nest.flatten(inputs), self.candidates)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "candidates": self.candidates}


@tf.keras.utils.register_keras_serializable("larq_nas")
class WeightedSum(tf.keras.layers.Layer):
    """Sum candidate outputs as a `Mixture` does, by probabilities of another layer.

    Called on the probabilities, shape `(inputs, operations)`, and the candidates' outputs.

    # Arguments
        candidates: see `Mixture`.
        **kwargs: further arguments of `tf.keras.layers.Layer`.
    """

    def __init__(self, candidates: Sequence[tuple[int, int]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.candidates = [(int(i), int(o)) for i, o in candidates]

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        probabilities, *outputs = inputs
        return _weighted_sum(probabilities, outputs, self.candidates)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "candidates": self.candidates}


def _weighted_sum(
    probabilities: tf.Tensor, outputs: Sequence[tf.Tensor], candidates: Sequence[tuple[int, int]]
) -> tf.Tensor:
    weights = tf.unstack(tf.gather_nd(probabilities, candidates))
    return tf.add_n([p * x for p, x in zip(weights, outputs, strict=True)])
