"""A model that holds what networks of spaces do not: nested, shared, tf functions."""

import larq as lq
import numpy as np
import tensorflow as tf
from conftest import randomize

from larq_nas.layers import BinaryConv2D, Scale, Zeros
from larq_nas.layers.scale import CenteredClip

__all__ = ["odd_model"]


def odd_model() -> tf.keras.Model:
    layers = tf.keras.layers
    images = tf.keras.Input((8, 8, 3), name="class")
    normalization = layers.Normalization(name="normal")
    x = normalization(layers.Rescaling(2.0, -1.0, name="2-scale")(images / 255.0))
    # Names may repeat in other models, and be no names in Python.
    x = tf.keras.Sequential(
        [layers.Conv2D(8, 1, name="conv"), layers.Activation("swish", name="tf")], name="head"
    )(x)
    block, shared = _block()
    a, b = block(x)
    c, _ = block(b)
    left, right = tf.split(a[:, ::2, 1:-1:2, :4] * 3.0, 2, axis=-1)
    x = tf.concat([left, right, tf.nn.relu(left) - right], axis=-1)
    x = tf.image.resize(tf.linspace(-1.0, 1.0, 6) * x + 1.5, (8, 8))
    x = layers.Concatenate(name="lq")([x, c, shared(c)])
    x = BinaryConv2D(
        8,
        3,
        strides=2,
        groups=2,
        dilation_rate=2,
        pad_values=0.0,
        use_bias=True,
        kernel_quantizer="magnitude_aware_sign",
        kernel_constraint=CenteredClip(),
        input_quantizer=lq.quantizers.SteSign(clip_value=0.5),
        name="lambda",
    )(x[..., 2:])
    x = layers.PReLU(shared_axes=[1, 2])(Scale(name="layers")(x))
    x = layers.Flatten()(layers.Add()([x, Zeros((4, 4, 8))(x)]))
    x = lq.layers.QuantDense(8, input_quantizer=lq.quantizers.ApproxSign(), name="dense")(x)
    x = layers.Dropout(0.1)(x, training=False)
    outputs = layers.Dense(5, activation=lq.activations.leaky_tanh, name="build")(x)
    model = randomize(tf.keras.Model(images, outputs, name="odd model"))
    normalization.adapt(np.random.default_rng(0).normal(size=(16, 8, 8, 3)) * 0.01 - 1)
    return model


def _block() -> tuple[tf.keras.Model, tf.keras.layers.Layer]:
    inputs = tf.keras.Input((8, 8, 8))
    shared = lq.layers.QuantConv2D(
        8,
        3,
        padding="same",
        pad_values=1.0,
        input_quantizer="ste_sign",
        kernel_quantizer="magnitude_aware_sign",
        kernel_constraint="weight_clip",
        kernel_regularizer=tf.keras.regularizers.l2(1e-4),
        activation="relu",
        name="conv",
    )
    x = shared(tf.keras.layers.BatchNormalization(name="bn")(shared(inputs)))
    return tf.keras.Model(inputs, [x, inputs], name="block"), shared
