"""What a step of each level does, and the gradient that reaches the means."""

from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest
import tensorflow as tf
from conftest import dimensions_of

from larq_nas.data.validation import DataFacts
from larq_nas.layers import DEPLOYED
from larq_nas.searchers.dms.search import DimensionModel
from larq_nas.searchers.dms.supernet import Supernet
from larq_nas.searchers.dms.widths import Dimensions
from larq_nas.spaces.chooser import Chooser, Widest
from larq_nas.spaces.space import FunctionSpace
from larq_nas.supernet.resizable import resizable_optimizer

layers = tf.keras.layers
SHAPE = (6, 6, 2)


def smooth(choose: Chooser, shape: Any, classes: int) -> tf.keras.Model:
    """Of nothing that a straight-through estimator stands for."""
    x = images = tf.keras.Input(shape)
    x = layers.Conv2D(choose.filters("first", 10, (1,)), 3, name="conv1")(x)
    x = layers.Activation("tanh")(layers.BatchNormalization(name="bn")(x))
    x = layers.Conv2D(choose.filters("second", 12, (1,)), 3, name="conv2")(x)
    x = layers.GlobalAveragePooling2D()(layers.Activation("tanh")(x))
    return tf.keras.Model(images, layers.Dense(classes, name="dense")(x), name="smooth")


class Always:
    """A term that pulls each mean by 1."""

    def __init__(self, dimensions: Dimensions) -> None:
        self._mean = dimensions.mean

    def __call__(self) -> tf.Tensor:
        return tf.reduce_sum(self._mean)


@pytest.fixture
def model() -> DimensionModel:
    assert larq_nas.__version__
    tf.keras.utils.set_random_seed(3)
    space, choose = FunctionSpace(smooth), Widest()
    space.build(choose, SHAPE, 4)
    dimensions = dimensions_of(choose.expansions)
    facts = DataFacts(SHAPE, 4, 8, 8, 8, "")
    supernet = Supernet(space, facts, DEPLOYED, dimensions, 0)
    made = DimensionModel(supernet, dimensions, 0.0, {"pull": Always(dimensions)})
    made.compile(resizable_optimizer("sgd", 0.1), tf.keras.optimizers.SGD(0.1))
    return made


def batch() -> tuple[tf.Tensor, tf.Tensor]:
    generator = np.random.default_rng(0)
    images = tf.constant(generator.normal(size=(8, *SHAPE)), tf.float32)
    return images, tf.constant(generator.integers(0, 4, 8))


def loss_at(model: DimensionModel, means: list[float]) -> float:
    """The loss with the first noise of the seed."""
    model.dimensions.mean.assign(means)
    model.dimensions.step.assign(0)
    return float(model._loss(*batch())[1])


@pytest.mark.parametrize("place", [0, 1])
def test_gradient_of_the_loss_is_that_of_finite_differences(
    model: DimensionModel, place: int
) -> None:
    at = [1.6, 1.3]
    model.dimensions.mean.assign(at)
    model.dimensions.step.assign(0)
    with tf.GradientTape() as tape:
        _, loss = model._loss(*batch())
    gradient = float(tape.gradient(loss, model.dimensions.mean)[place])
    step = 0.02
    above, below = (loss_at(model, [m + s * (i == place) for i, m in enumerate(at)])
                    for s in (step, -step))  # fmt: skip
    assert abs(gradient) > 1e-4
    assert gradient == pytest.approx((above - below) / (2 * step), rel=0.03, abs=1e-5)


def test_each_level_changes_its_own(model: DimensionModel) -> None:
    weights = [weight.numpy() for weight in model.ordinary_weights]
    model.train_step((batch(), batch()))
    assert model.dimensions.mean.numpy().tolist() == [1.5, 1.5]
    for weight, value in zip(model.ordinary_weights, weights, strict=True):
        if "kernel" in weight.name:
            assert np.abs(weight.numpy() - value).max() > 0
    weights = [weight.numpy() for weight in model.ordinary_weights]
    model.searching.assign(True)
    model.train_step((batch(), batch()))
    for weight, value in zip(model.ordinary_weights, weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)
    # The term's gradient is 1 for each mean; that of the loss is small beside it.
    assert model.dimensions.mean.numpy() == pytest.approx([1.4, 1.4], abs=0.03)
    assert model.dimensions.mean.numpy().tolist() != pytest.approx([1.4, 1.4], abs=1e-6)
