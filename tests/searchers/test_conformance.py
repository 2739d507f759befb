"""The published suite, on the searchers of larq_nas and on one of a stranger's."""

import sys
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import pytest
import tensorflow as tf
from conftest import EXAMPLES
from joint_space import joint

from larq_nas.searchers import Differentiable, Dms, Evolution, Progressive
from larq_nas.spaces import Bats, VggSmall
from larq_nas.spaces.space import FunctionSpace
from larq_nas.testing import SearcherConformance
from larq_nas.training import Recipe

sys.path.append(str(EXAMPLES))
from own_searcher import RandomSearch

CELLS = Bats(cells=3, channels=8, nodes=1)


class TestStranger(SearcherConformance):
    searcher = RandomSearch(candidates=2)
    space = CELLS
    recipe = Recipe(stages=("binary",))

    # Several searches each.
    test_the_same_seed_gives_the_same_bytes = pytest.mark.slow(
        SearcherConformance.test_the_same_seed_gives_the_same_bytes
    )
    test_killed_and_resumed_it_gives_the_same_bytes = pytest.mark.slow(
        SearcherConformance.test_killed_and_resumed_it_gives_the_same_bytes
    )
    test_a_budget_is_kept = pytest.mark.slow(SearcherConformance.test_a_budget_is_kept)
    test_several_searches_take_the_memory_of_one = pytest.mark.slow(
        SearcherConformance.test_several_searches_take_the_memory_of_one
    )


@pytest.mark.slow
class TestDifferentiable(SearcherConformance):
    searcher = Differentiable(architecture_learning_rate=0.05, weights_only=0)
    space = CELLS
    diverging = {"learning_rate": 1e30}  # noqa: RUF012 - as a user writes it


@pytest.mark.slow
class TestProgressive(SearcherConformance):
    searcher = Progressive(stage_cells=(3, 4), stage_operations=(8, 4), weights_only=0)
    space = CELLS
    diverging = {"learning_rate": 1e30}  # noqa: RUF012


@pytest.mark.slow
class TestEvolution(SearcherConformance):
    searcher = Evolution(
        population=3,
        candidate_epochs=1,
        widest_epochs=1,
        subset=60,
        recipe=Recipe(stages=("binary",)),
        confirm=0,
    )
    space = VggSmall(ratios=(0.03125, 0.0625, 0.125))


class OnJointSpace(SearcherConformance):
    """What a strategy is tested on: an operation, a width and a depth, in rungs, confirmed."""

    space = FunctionSpace(joint)
    recipe = Recipe(stages=("binary",))


def joint_evolution(**settings: Any) -> Evolution:
    small = {"population": 3, "rungs": (1, 2), "subset": 60, "confirm": 1, "confirm_epochs": 1}
    return Evolution(widest_epochs=0, **{**small, **settings})


@pytest.mark.slow
class TestGeneticOnJointSpace(OnJointSpace):
    searcher = joint_evolution()


@pytest.mark.slow
class TestAgingOnJointSpace(OnJointSpace):
    searcher = joint_evolution(strategy="aging")


@pytest.mark.slow
class TestRandomOnJointSpace(OnJointSpace):
    searcher = joint_evolution(strategy="random")


@pytest.mark.slow
class TestObjectivesOnJointSpace(OnJointSpace):
    searcher = joint_evolution(objectives=("accuracy", "binary_macs", "flatbuffer_bytes"))


def widths(choose, input_shape, classes) -> tf.keras.Model:
    layers = tf.keras.layers
    x = images = tf.keras.Input(input_shape)
    x = layers.Conv2D(choose.filters("conv1", 8, (1, 2)), 3, padding="same", name="conv1")(x)
    x = layers.BatchNormalization(name="conv1_bn")(x)
    x = larq_nas.layers.BinaryConv2D(choose.filters("conv2", 8, (1, 2)), 3, name="conv2")(x)
    x = layers.BatchNormalization(name="conv2_bn", scale=False)(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return tf.keras.Model(images, layers.Dense(classes, name="dense")(x), name="widths")


@pytest.mark.slow
class TestDms(SearcherConformance):
    searcher = Dms(weight_epochs=1, mean_learning_rate=0.05)
    space = FunctionSpace(widths)
    diverging = {"learning_rate": 1e30}  # noqa: RUF012
