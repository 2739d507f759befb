"""Scales of binary weights, as in XNOR-Net++ and XNOR-Net."""

from typing import Any

import tensorflow as tf


@tf.keras.utils.register_keras_serializable("larq_nas")
class LowerBound(tf.keras.constraints.Constraint):
    """Keep weights at or above `minimum`."""

    def __init__(self, minimum: float) -> None:
        self.minimum = minimum

    def __call__(self, weights: tf.Tensor) -> tf.Tensor:
        return tf.maximum(weights, self.minimum)

    def get_config(self) -> dict[str, float]:
        return {"minimum": self.minimum}


@tf.keras.utils.register_keras_serializable("larq_nas")
class CenteredClip(tf.keras.constraints.Constraint):
    """Keep kernels centred over their input channels, and within [-1, 1], as XNOR-Net does."""

    def __call__(self, weights: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(weights - tf.reduce_mean(weights, axis=2, keepdims=True), -1, 1)


@tf.keras.utils.register_keras_serializable("larq_nas")
class Scale(tf.keras.layers.Layer):
    """Learned positive scale per channel: `outputs = alpha * inputs` (BATS, Eq. 1).

    Placed after a binary convolution it becomes the convolution's own multiplier in Larq
    Compute Engine, and costs nothing there. It is held at 1e-6 or more: a scale of zero
    would make the converter give up on the whole layer.

    !!! example
        ```python
        x = larq_nas.layers.BinaryConv2D(64, 3)(x)
        x = larq_nas.layers.Scale()(x)
        ```

    # Arguments
        initializer: initializer of the scale, shape `(channels,)`.
        **kwargs: further arguments of `tf.keras.layers.Layer`.

    # References
        - [XNOR-Net++: Improved Binary Neural Networks](https://arxiv.org/abs/1909.13863)
    """

    def __init__(self, initializer: Any = "ones", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initializer = tf.keras.initializers.get(initializer)

    def build(self, input_shape: tf.TensorShape) -> None:
        self.scale = self.add_weight(
            name="scale",
            shape=(input_shape[-1],),
            initializer=self.initializer,
            constraint=LowerBound(1e-6),
        )
        super().build(input_shape)

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Nothing: loaded, it is built when called, which names its weights after it."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs * self.scale

    def get_config(self) -> dict[str, Any]:
        initializer = tf.keras.initializers.serialize(self.initializer)
        return {**super().get_config(), "initializer": initializer}
