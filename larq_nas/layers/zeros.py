"""What a node without inputs gives."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

__all__ = ["Zeros"]


@tf.keras.utils.register_keras_serializable("larq_nas")
class Zeros(tf.keras.layers.Layer):
    """Give zeros, whatever the inputs: a node whose every input is the zero operation.

    !!! example
        ```python
        x = larq_nas.layers.Zeros((16, 16, 36))(x)
        ```

    # Arguments
        shape: shape of the zeros, without the batch.
        **kwargs: further arguments of `tf.keras.layers.Layer`.
    """

    def __init__(self, shape: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shape = tuple(int(size) for size in shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        batch = inputs.shape[0]
        batch = tf.shape(inputs)[0] if batch is None else batch
        return tf.zeros((batch, *self.shape), self.compute_dtype)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tf.TensorShape:
        return tf.TensorShape((input_shape[0], *self.shape))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "shape": self.shape}
