"""Binary blocks, stems and classifiers in the form the engine fuses."""

import re
from typing import Any, Literal

import larq as lq
import tensorflow as tf

from larq_nas.layers.binary_policy import current_domain
from larq_nas.layers.conv import BinaryConv2D
from larq_nas.layers.scale import CenteredClip, LowerBound, Scale
from larq_nas.quantizers import DoReFaSign, LearnedStep, StandardizedSign, XnorSign

Activation = Literal["relu", "prelu"]
"""`"relu"` is fused into the binary convolution; `"prelu"` stays an operation of its own."""

Binarization = Literal["sign", "dorefa", "dms"]
"""Signs of inputs and weights, or inputs of two heights from 0 and scaled signs of weights."""

Scaling = Literal["learned", "mean"]
"""XNOR-Net++'s learned scale, or XNOR-Net's: the mean magnitude of the filter's weights."""


_SMALLEST_SCALE = 1e-6
# Layers of an operation are named after its cell, its node, and the state that it reads.
_OPERATION = re.compile(r"(?P<prefix>(?P<cell>.+)_node\d+_in(?P<state>\d+)_)")


def batch_norm(
    x: tf.Tensor, name: str, affine: bool | None = None, positive: bool = False
) -> tf.Tensor:
    """Normalize `x` over the batch, with learned scale and offset as the domain says.

    # Arguments
        x: tensor, shape `(batch, height, width, channels)`.
        name: name of the layer.
        affine: whether to learn scale and offset; `None` leaves it to the domain.
        positive: whether to hold the scale above 0.
    """
    affine = current_domain().affine if affine is None else affine
    # Over all of a batch, not over the part of it that a replica has.
    settings: dict[str, Any] = {"synchronized": True} if tf.distribute.has_strategy() else {}
    if positive and affine:
        settings["gamma_constraint"] = LowerBound(_SMALLEST_SCALE)
    return tf.keras.layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, center=affine, scale=affine, name=name, **settings
    )(x)


def _norm_before_sign(x: tf.Tensor, name: str, affine: bool | None = None) -> tf.Tensor:
    """Normalize what signs are taken of; once for all that read `x`, if the domain says so."""
    domain = current_domain()
    operation, source = _OPERATION.match(name), x._keras_history.layer
    shares = domain.shared_norms and domain.affine and affine is None
    # Of an operation of several convolutions only the first reads the state.
    if not shares or not operation or source.name.startswith(operation["prefix"]):
        return batch_norm(x, name, affine, domain.positive_scales)
    shared = f"{operation['cell']}_in{operation['state']}_bn"
    for node in source._outbound_nodes:
        if node.layer.name == shared and node.keras_inputs[0] is x:
            return node.outputs
    return batch_norm(x, shared, positive=domain.positive_scales)


def binary_conv(
    x: tf.Tensor,
    filters: int,
    kernel_size: int | tuple[int, int],
    *,
    name: str,
    strides: int | tuple[int, int] = 1,
    dilation_rate: int = 1,
    groups: int = 1,
    activation: Activation = "relu",
    identity: bool = True,
    affine: bool | None = None,
    scaling: Scaling = "learned",
) -> tf.Tensor:
    """Apply batch norm, sign, convolution and activation, and add the input to the result.

    The order is BATS' (section 3), the added identity its section 4.1. With binary weights
    the convolution has a scale, of XNOR-Net++ unless told otherwise. Scales are positive, so
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
        affine: whether batch norm learns scale and offset; `None` leaves it to the domain.
        scaling: scale of the binary weights, `"learned"` or `"mean"`.

    # Returns
        Tensor, shape `(batch, height / strides, width / strides, filters)`.
    """
    y = _norm_before_sign(x, f"{name}_bn", affine)
    y = _conv(
        y,
        filters,
        kernel_size,
        name,
        activation,
        scaling,
        strides=strides,
        dilation_rate=dilation_rate,
        groups=groups,
    )
    y = _activate(_scale(y, name, scaling), name, activation)
    if identity and strides in (1, (1, 1)) and x.shape[-1] == filters:
        y = tf.keras.layers.Add(name=f"{name}_add")([x, y])
    return y


def sign_conv(
    x: tf.Tensor,
    filters: int,
    kernel_size: int,
    *,
    name: str,
    strides: int = 1,
    binarization: Binarization = "sign",
) -> tf.Tensor:
    r"""Apply sign, convolution and batch norm: the order of VGG and ResNet.

    Batch norm takes in the scale that binary weights leave open, and Larq Compute Engine
    turns it into a threshold where another sign follows.

    # Arguments
        x: tensor, shape `(batch, height, width, channels)`.
        filters: number of output channels.
        kernel_size: height and width of the kernel, in pixels.
        name: prefix of the layers' names; unique in the network.
        strides: step of the convolution, in pixels.
        binarization: `"sign"`, `"dorefa"` for inputs
            \\(\operatorname{round}(\operatorname{clip}(x, 0, 1))\\) and weights
            \\(\operatorname{sign}(w) E(|w|)\\), or `"dms"` for inputs of 0 and a learned step, and
            signs of standardized weights, scaled for each filter.
    """
    inputs, kernel = _quantizers(binarization)
    y = BinaryConv2D(
        filters,
        kernel_size,
        strides=strides,
        input_quantizer=inputs,
        kernel_quantizer=kernel if current_domain().weights == "binary" else None,
        # What pads an image of 0 and 1 is 0; one of signs has none, and takes 1.
        pad_values=1.0 if binarization == "sign" else 0.0,
        name=f"{name}_conv",
    )(x)
    return batch_norm(y, f"{name}_bn")


def _quantizers(binarization: Binarization) -> tuple[Any, Any]:
    """Return the quantizers of inputs and weights."""
    if binarization == "dorefa":
        return lq.quantizers.DoReFa(1, name="dorefa"), DoReFaSign()
    if binarization == "dms":
        return LearnedStep(name="learned_step"), StandardizedSign(name="standardized_sign")
    return "ste_sign", "ste_sign"


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
    even, odd = split_halves(_norm_before_sign(x, f"{name}_bn"), name=name)
    few = filters // 2
    halves = []
    for half, x, width in (("even", even, few), ("odd", odd, filters - few)):
        y = _conv(x, width, 1, f"{name}_{half}", activation, strides=2)
        # Scaled before they are joined: behind it, the scale would be an operation of its own.
        halves.append(_scale(y, f"{name}_{half}"))
    y = tf.keras.layers.Concatenate(name=f"{name}_concat")(halves)
    return _activate(y, name, activation)


def split_halves(x: tf.Tensor, *, name: str) -> tuple[tf.Tensor, tf.Tensor]:
    """Return `x`, and `x` shifted by a pixel, for two 1x1 convolutions of stride 2 to read.

    # Arguments
        x: tensor, shape `(batch, height, width, channels)`.
        name: prefix of the layers' names.
    """
    odd = x.shape[1] % 2, x.shape[2] % 2
    shifted = x
    if any(odd):
        padding = ((0, odd[0]), (0, odd[1]))
        shifted = tf.keras.layers.ZeroPadding2D(padding, name=f"{name}_pad")(x)
    return x, tf.keras.layers.Cropping2D(((1, 0), (1, 0)), name=f"{name}_shift")(shifted)


def _conv(
    x: tf.Tensor,
    filters: int,
    kernel_size: int | tuple[int, int],
    name: str,
    activation: Activation,
    scaling: Scaling = "learned",
    **geometry: Any,
) -> tf.Tensor:
    quantizer = XnorSign(amplified=True) if scaling == "mean" else "ste_sign"
    constraint = CenteredClip() if scaling == "mean" else None
    domain = current_domain()
    binary, signs = domain.weights == "binary", domain.activations == "binary"
    return BinaryConv2D(
        filters,
        kernel_size,
        input_quantizer="ste_sign" if signs else None,
        pad_values=1.0 if signs else 0.0,
        kernel_quantizer=quantizer if binary else None,
        kernel_constraint=constraint if binary else None,
        activation="relu" if activation == "relu" else None,
        name=f"{name}_conv",
        **geometry,
    )(x)


def _scale(y: tf.Tensor, name: str, scaling: Scaling = "learned") -> tf.Tensor:
    if scaling == "learned" and current_domain().weights == "binary":
        y = Scale(name=f"{name}_scale")(y)
    return y


def _activate(y: tf.Tensor, name: str, activation: Activation) -> tf.Tensor:
    if activation == "prelu":
        y = tf.keras.layers.PReLU(
            alpha_initializer=tf.keras.initializers.Constant(0.25),
            shared_axes=[1, 2],
            name=f"{name}_prelu",
        )(y)
    return y


def stem(
    x: tf.Tensor,
    filters: int,
    *,
    name: str = "stem",
    norm: Literal["before", "after"] = "after",
    relu: bool = True,
) -> tf.Tensor:
    """Apply a real 3x3 convolution and batch norm: the first layer keeps its precision.

    # Arguments
        x: images, shape `(batch, height, width, channels)`.
        filters: number of output channels.
        name: prefix of the layers' names.
        norm: where batch norm stands, `"before"` or `"after"` the convolution.
        relu: whether a ReLU follows.
    """
    if norm == "before":
        x = batch_norm(x, f"{name}_bn", affine=True)
    x = _real_conv(x, filters, name)
    if norm == "after":
        x = batch_norm(x, f"{name}_bn", affine=True)
    return tf.keras.layers.ReLU(name=f"{name}_relu")(x) if relu else x


def imagenet_stem(
    x: tf.Tensor, filters: int, *, groups: int = 1, name: str = "stem"
) -> tuple[tf.Tensor, tf.Tensor]:
    """Apply three real 3x3 convolutions that halve the image each, as DARTS does.

    No ReLU follows what is returned: DARTS leaves it to what reads it, and binary cells take signs.

    # Arguments
        x: images, shape `(batch, height, width, channels)`.
        filters: number of output channels, 2 or more.
        groups: groups of the second and third convolution, as BATS has them.
        name: prefix of the layers' names.

    # Returns
        What the second convolution gives, and what the third does: the two inputs of the
        first cell, a quarter and an eighth of the images' height and width.
    """
    x = _halve(x, filters // 2, f"{name}0")
    x = tf.keras.layers.ReLU(name=f"{name}0_relu")(x)
    first = _halve(x, filters, f"{name}1", groups)
    active = tf.keras.layers.ReLU(name=f"{name}1_relu")(first)
    return first, _halve(active, filters, f"{name}2", groups)


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


def _halve(x: tf.Tensor, filters: int, name: str, groups: int = 1) -> tf.Tensor:
    x = _real_conv(x, filters, name, strides=2, groups=groups)
    return batch_norm(x, f"{name}_bn", affine=True)


def _real_conv(
    x: tf.Tensor, filters: int, name: str, strides: int = 1, groups: int = 1
) -> tf.Tensor:
    return tf.keras.layers.Conv2D(
        filters,
        3,
        strides=strides,
        groups=groups,
        padding="same",
        use_bias=False,
        name=f"{name}_conv",
    )(x)
