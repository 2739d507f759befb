"""Binary blocks: what a person would write, in the form Larq Compute Engine fuses."""

from typing import Literal

import tensorflow as tf

from larq_nas.layers.conv import BinaryConv2D
from larq_nas.layers.domain import current_domain
from larq_nas.layers.scale import Scale

__all__ = ["batch_norm", "binary_conv", "classifier", "factorized_reduce", "sign_conv", "stem"]

Activation = Literal["relu", "prelu"]
"""`"relu"` is fused into the binary convolution; `"prelu"` stays an operation of its own."""


def batch_norm(x: tf.Tensor, name: str, affine: bool | None = None) -> tf.Tensor:
    """Normalize `x` over the batch, with learned scale and offset as the domain says.

    # Arguments
        x: tensor, shape `(batch, height, width, channels)`.
        name: name of the layer.
        affine: whether to learn scale and offset; `None` leaves it to the domain.
    """
    affine = current_domain().affine if affine is None else affine
    return tf.keras.layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, center=affine, scale=affine, name=name
    )(x)


def binary_conv(
    x: tf.Tensor,
    filters: int,
    kernel_size: int,
    *,
    name: str,
    strides: int = 1,
    dilation_rate: int = 1,
    groups: int = 1,
    activation: Activation = "relu",
    identity: bool = True,
) -> tf.Tensor:
    """Apply batch norm, sign, convolution and activation, and add the input to the result.

    The order is BATS' (section 3), the added identity its section 4.1. With binary weights
    the convolution has the learned scale of XNOR-Net++. Scales are positive, so
    `scale * relu(y)` equals `relu(scale * y)`, and the order that fuses is taken.

    !!! example
        ```python
        x = larq_nas.layers.binary_conv(x, 64, 3, name="block1")
        ```

    # Arguments
        x: tensor, shape `(batch, height, width, channels)`.
        filters: number of output channels.
        kernel_size: height and width of the kernel, in pixels.
        name: prefix of the layers' names; unique in the network.
        strides: step of the convolution, in pixels.
        dilation_rate: spacing of the kernel's taps, in pixels.
        groups: number of groups of channels that do not mix.
        activation: `"relu"` or `"prelu"`.
        identity: whether to add the input where its shape is that of the output.

    # Returns
        Tensor, shape `(batch, height / strides, width / strides, filters)`.
    """
    y = batch_norm(x, f"{name}_bn")
    y = _conv(y, filters, kernel_size, name, strides, dilation_rate, groups, activation)
    y = _scale_and_activate(y, name, activation)
    if identity and strides == 1 and x.shape[-1] == filters:
        y = tf.keras.layers.Add(name=f"{name}_add")([x, y])
    return y


def sign_conv(
    x: tf.Tensor, filters: int, kernel_size: int, *, name: str, strides: int = 1
) -> tf.Tensor:
    """Apply sign, convolution and batch norm: the order of VGG and ResNet.

    Batch norm takes in the scale that binary weights leave open, and Larq Compute Engine
    turns it into a threshold where another sign follows.

    # Arguments
        x: tensor, shape `(batch, height, width, channels)`.
        filters: number of output channels.
        kernel_size: height and width of the kernel, in pixels.
        name: prefix of the layers' names; unique in the network.
        strides: step of the convolution, in pixels.
    """
    y = BinaryConv2D(
        filters,
        kernel_size,
        strides=strides,
        kernel_quantizer="ste_sign" if current_domain().weights == "binary" else None,
        name=f"{name}_conv",
    )(x)
    return batch_norm(y, f"{name}_bn")


def factorized_reduce(
    x: tf.Tensor, filters: int, *, name: str, activation: Activation = "relu"
) -> tf.Tensor:
    """Halve height and width with two 1x1 convolutions, one on every other pixel each.

    # Arguments
        x: tensor, shape `(batch, height, width, channels)`.
        filters: number of output channels, 2 or more.
        name: prefix of the layers' names; unique in the network.
        activation: `"relu"` or `"prelu"`.

    # Returns
        Tensor, shape `(batch, ceil(height / 2), ceil(width / 2), filters)`.
    """
    x = batch_norm(x, f"{name}_bn")
    odd = x.shape[1] % 2, x.shape[2] % 2
    shifted = x
    if any(odd):
        padding = ((0, odd[0]), (0, odd[1]))
        shifted = tf.keras.layers.ZeroPadding2D(padding, name=f"{name}_pad")(x)
    shifted = tf.keras.layers.Cropping2D(((1, 0), (1, 0)), name=f"{name}_shift")(shifted)
    few = filters // 2
    halves = [
        _conv(x, few, 1, f"{name}_even", 2, 1, 1, activation),
        _conv(shifted, filters - few, 1, f"{name}_odd", 2, 1, 1, activation),
    ]
    y = tf.keras.layers.Concatenate(name=f"{name}_concat")(halves)
    return _scale_and_activate(y, name, activation)


def stem(x: tf.Tensor, filters: int, *, name: str = "stem") -> tf.Tensor:
    """Apply a real 3x3 convolution and batch norm: the first layer keeps its precision.

    # Arguments
        x: images, shape `(batch, height, width, channels)`.
        filters: number of output channels.
        name: prefix of the layers' names.
    """
    x = tf.keras.layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = batch_norm(x, f"{name}_bn", affine=True)
    return tf.keras.layers.ReLU(name=f"{name}_relu")(x)


def classifier(x: tf.Tensor, classes: int, *, name: str = "head") -> tf.Tensor:
    """Average over the image and apply a real dense layer.

    # Arguments
        x: tensor, shape `(batch, height, width, channels)`.
        classes: number of classes.
        name: prefix of the layers' names.

    # Returns
        Logits (no softmax), shape `(batch, classes)`.
    """
    x = tf.keras.layers.GlobalAveragePooling2D(name=f"{name}_pool")(x)
    return tf.keras.layers.Dense(classes, name=f"{name}_dense")(x)


def _conv(
    x: tf.Tensor,
    filters: int,
    kernel_size: int,
    name: str,
    strides: int,
    dilation_rate: int,
    groups: int,
    activation: Activation,
) -> tf.Tensor:
    binary = current_domain().weights == "binary"
    return BinaryConv2D(
        filters,
        kernel_size,
        strides=strides,
        dilation_rate=dilation_rate,
        groups=groups,
        kernel_quantizer="ste_sign" if binary else None,
        activation="relu" if activation == "relu" else None,
        name=f"{name}_conv",
    )(x)


def _scale_and_activate(y: tf.Tensor, name: str, activation: Activation) -> tf.Tensor:
    if current_domain().weights == "binary":
        y = Scale(name=f"{name}_scale")(y)
    if activation == "prelu":
        y = tf.keras.layers.PReLU(
            alpha_initializer=tf.keras.initializers.Constant(0.25),
            shared_axes=[1, 2],
            name=f"{name}_prelu",
        )(y)
    return y
