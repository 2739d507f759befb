"""Drop operations of a cell at random during training."""

import zlib
from typing import Any

import tensorflow as tf


@tf.keras.utils.register_keras_serializable("larq_nas")
class DropPath(tf.keras.layers.Layer):
    """Set the whole input to zero for some of the images, and scale the others up.

    It keeps count of its calls, and draws by that count: a training that is resumed goes on
    with the numbers it would have had.

    # Arguments
        **kwargs: further arguments of `tf.keras.layers.Layer`.

    # Attributes
        rate: probability to drop an image's input; 0 at first.

    # References
        - [FractalNet: Ultra-Deep Neural Networks without Residuals](https://arxiv.org/abs/1605.07648)
    """

    def build(self, input_shape: Any) -> None:
        zeros = tf.keras.initializers.Zeros()
        self.rate = self.add_weight(name="rate", shape=(), initializer=zeros, trainable=False)
        # From anywhere, by the global seed: another seed draws otherwise.
        self.calls = self.add_weight(
            name="calls",
            shape=(),
            dtype=tf.int64,
            initializer=tf.keras.initializers.RandomUniform(0, 2**31 - 1),
            trainable=False,
        )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if not training:
            return inputs
        # Of its name, so that no two layers draw alike.
        seed = tf.stack([tf.constant(zlib.crc32(self.name.encode()), tf.int64), self.calls])
        self.calls.assign_add(1)
        context: Any = tf.distribute.get_replica_context()
        images, replicas = tf.shape(inputs)[0], context.num_replicas_in_sync
        # Of the whole batch, so that several replicas draw what one does.
        numbers = tf.random.stateless_uniform([images * replicas], seed)
        first = images * context.replica_id_in_sync_group
        own = numbers[first : first + images]
        kept = tf.reshape(own, [-1, *[1] * (inputs.shape.rank - 1)]) >= self.rate
        return inputs * tf.cast(kept, inputs.dtype) / (1 - self.rate)
