"""Networks of three widths at once, for tests."""

from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import tensorflow as tf
from conftest import dimensions_of

from larq_nas.data.validation import DataFacts
from larq_nas.layers import DEPLOYED
from larq_nas.searchers.dms.supernet import Supernet
from larq_nas.spaces.chooser import Chooser, Widest
from larq_nas.spaces.space import FunctionSpace

layers = tf.keras.layers
SHAPE = (8, 8, 2)


def facts(shape: tuple[int, int, int] = SHAPE) -> DataFacts:
    return DataFacts(shape, 10, 4, 8, 8, "")


def chain(choose: Chooser, shape: Any, classes: int) -> tf.keras.Model:
    """Convolutions of two widths, one of signs padded with ones, and a flattened end."""
    x = images = tf.keras.Input(shape)
    first, second = choose.filters("first", 8, (1,)), choose.filters("second", 6, (1,))
    x = layers.Conv2D(first, 3, padding="same", use_bias=False, name="real")(x)
    x = layers.BatchNormalization(scale=False, name="real_bn")(x)
    x = larq_nas.layers.BinaryConv2D(second, 3, name="binary")(x)
    x = layers.BatchNormalization(name="binary_bn")(x)
    x = layers.AveragePooling2D(4, name="pool")(x)
    x = layers.Flatten(name="flatten")(x)
    return tf.keras.Model(images, layers.Dense(classes, name="dense")(x), name="chain")


def supernet(space: Any = chain, ratio: float = 1.5, **settings: Any) -> tuple[Supernet, Any]:
    space = FunctionSpace(space) if callable(space) else space
    choose = Widest()
    shape = settings.pop("shape", SHAPE)
    space.build(choose, shape, 10)
    tf.keras.utils.set_random_seed(0)
    dimensions = dimensions_of(choose.expansions, initial_ratio=ratio)
    return Supernet(space, facts(shape), DEPLOYED, dimensions, 0, **settings), dimensions


def images(shape: tuple[int, int, int] = SHAPE) -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).normal(size=(4, *shape)), tf.float32)
