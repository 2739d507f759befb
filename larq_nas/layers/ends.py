"""The real-valued ends of a network: stems that read images, and the classifier."""

from typing import Literal

import tensorflow as tf

from larq_nas.layers.blocks import batch_norm

__all__ = ["classifier", "imagenet_stem", "stem"]


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
    x = _conv(x, filters, name)
    if norm == "after":
        x = batch_norm(x, f"{name}_bn", affine=True)
    return tf.keras.layers.ReLU(name=f"{name}_relu")(x) if relu else x


def imagenet_stem(
    x: tf.Tensor, filters: int, *, groups: int = 1, name: str = "stem", relu: bool = True
) -> tuple[tf.Tensor, tf.Tensor]:
    """Apply three real 3x3 convolutions that halve the image each, as DARTS does.

    # Arguments
        x: images, shape `(batch, height, width, channels)`.
        filters: number of output channels, 2 or more.
        groups: groups of the second and third convolution, as BATS has them.
        name: prefix of the layers' names.
        relu: whether both tensors are returned behind a ReLU; DARTS leaves it to what
            reads them.

    # Returns
        What the second convolution gives, and what the third does: the two inputs of the
        first cell, a quarter and an eighth of the images' height and width.
    """
    x = _halve(x, filters // 2, f"{name}0")
    x = tf.keras.layers.ReLU(name=f"{name}0_relu")(x)
    first = _halve(x, filters, f"{name}1", groups)
    active = tf.keras.layers.ReLU(name=f"{name}1_relu")(first)
    second = _halve(active, filters, f"{name}2", groups)
    if relu:
        return active, tf.keras.layers.ReLU(name=f"{name}2_relu")(second)
    return first, second


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
    x = _conv(x, filters, name, strides=2, groups=groups)
    return batch_norm(x, f"{name}_bn", affine=True)


def _conv(x: tf.Tensor, filters: int, name: str, strides: int = 1, groups: int = 1) -> tf.Tensor:
    return tf.keras.layers.Conv2D(
        filters,
        3,
        strides=strides,
        groups=groups,
        padding="same",
        use_bias=False,
        name=f"{name}_conv",
    )(x)
