"""A small space of operations, widths and a depth at once."""

from functools import partial
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import tensorflow as tf


def joint(choose: Any, input_shape: tuple[int, int, int], classes: int) -> tf.keras.Model:
    """Ask for a width, for one to three blocks behind the first, and what each of them is."""
    images = tf.keras.Input(input_shape)
    width = choose.filters("width", 8, (0.5, 1, 2))

    def block(x: tf.Tensor, name: str, number: int) -> tf.Tensor:
        operations: dict[str, Any] = {
            f"conv{size}": partial(_convolution, filters=width, size=size) for size in (3, 5)
        }
        return choose.op(f"operation{number}", x, {**operations, "identity": lambda x, name: x})

    x = larq_nas.layers.stem(images, width)
    x = larq_nas.layers.binary_conv(x, width, 3, name="first")
    x = choose.depth("depth", x, [partial(block, number=number) for number in range(3)])
    return tf.keras.Model(images, larq_nas.layers.classifier(x, classes), name="joint")


def _convolution(x: tf.Tensor, name: str, filters: int, size: int) -> tf.Tensor:
    return larq_nas.layers.binary_conv(x, filters, size, name=name)
