"""A QuickNet of small images: a model, and a space of its kernels, widths and depths."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import larq as lq
import numpy as np
import tensorflow as tf

from larq_nas.training import Recipe

FILTERS, BLOCKS, STEM = (32, 64, 128), (2, 2, 2), 8
RATIOS, MOST_BLOCKS, MULTIPLE = (0.5, 0.75, 1.0, 1.5), 3, 8
RECIPE = Recipe(5e-3, stages=("binary",))
IMAGE_SIZE, BATCH_SIZE = 16, 100

_NORM = {"momentum": 0.9, "epsilon": 1e-5}
_SIGN = lq.quantizers.SteSign(clip_value=1.25)


def data(
    train: str, validation: str = "test", batch_size: int = BATCH_SIZE
) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """Return images of CIFAR-10, shrunk."""
    found = larq_nas.datasets.load(
        "cifar10",
        batch_size,
        train_split=train,
        validation_split=validation,
        image_size=IMAGE_SIZE,
    )
    return found[0], found[1]


def correct(model: tf.keras.Model, images: tf.data.Dataset) -> np.ndarray:
    """Return of each image whether a model is right about it."""
    found = [np.argmax(model.predict_on_batch(x), -1) == np.ravel(y) for x, y in images]
    return np.concatenate(found)


def residual(x: tf.Tensor, name: str, kernel: int = 3) -> tf.Tensor:
    """Return `x` and what a binary convolution makes of it."""
    y = lq.layers.QuantConv2D(
        x.shape[-1],
        kernel,
        padding="same",
        pad_values=1.0,
        activation="relu",
        use_bias=False,
        input_quantizer=_SIGN,
        kernel_quantizer=_SIGN,
        kernel_constraint=lq.constraints.WeightClip(1.25),
        kernel_initializer="glorot_normal",
        name=f"{name}_conv",
    )(x)
    y = tf.keras.layers.BatchNormalization(**_NORM, name=f"{name}_norm")(y)
    return tf.keras.layers.Add(name=f"{name}_add")([x, y])


def transition(x: tf.Tensor, filters: int, name: str) -> tf.Tensor:
    """Return `x` at half the size, of so many channels."""
    x = tf.keras.layers.ReLU(name=f"{name}_relu")(x)
    x = tf.keras.layers.MaxPool2D(2, name=f"{name}_pool")(x)
    x = tf.keras.layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_conv")(x)
    return tf.keras.layers.BatchNormalization(**_NORM, name=f"{name}_norm")(x)


def stem(images: tf.Tensor, filters: int) -> tf.Tensor:
    """Return what the first section reads; images are too small to be halved here."""
    x = images
    for name, channels, kernel in (("stem_conv", STEM, 3), ("stem_expand", filters, 1)):
        if x is not images:
            x = tf.keras.layers.ReLU(name="stem_relu")(x)
        x = tf.keras.layers.Conv2D(channels, kernel, padding="same", use_bias=False, name=name)(x)
        x = tf.keras.layers.BatchNormalization(**_NORM, name=f"{name}_norm")(x)
    return x


def head(x: tf.Tensor, classes: int) -> tf.Tensor:
    """Return the logits."""
    x = tf.keras.layers.ReLU(name="head_relu")(x)
    x = tf.keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    return tf.keras.layers.Dense(classes, name="head_dense")(x)


def quicknet(
    classes: int = 10, filters: Sequence[int] = FILTERS, blocks: Sequence[int] = BLOCKS
) -> tf.keras.Model:
    """Return the network, with random weights."""
    images = tf.keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3))
    x = stem(images, filters[0])
    for section, (width, count) in enumerate(zip(filters, blocks, strict=True)):
        if section:
            x = transition(x, width, f"transition{section}")
        for number in range(count):
            x = residual(x, f"section{section}_{number}")
    return tf.keras.Model(images, head(x, classes), name="quicknet")


def joint(choose: Any, input_shape: tuple[int, int, int], classes: int) -> tf.keras.Model:
    """Ask how wide and how deep each section is, and for the kernel of each block."""
    images = tf.keras.Input(input_shape)
    x = images
    for section, filters in enumerate(FILTERS):
        width = choose.filters(f"width{section}", filters, RATIOS, multiple_of=MULTIPLE)
        x = transition(x, width, f"transition{section}") if section else stem(x, width)
        blocks: list[Callable[..., tf.Tensor]] = [
            partial(_block, choose, f"kernel{section}_{number}") for number in range(MOST_BLOCKS)
        ]
        x = choose.depth(f"depth{section}", x, blocks)
    return tf.keras.Model(images, head(x, classes))


def _block(choose: Any, question: str, x: tf.Tensor, name: str) -> tf.Tensor:
    return choose.op(question, x, {f"conv{k}": partial(residual, kernel=k) for k in (3, 5)})
