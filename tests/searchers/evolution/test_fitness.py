"""Eq. 4 by hand, and what objectives make of figures."""

from typing import Any

import pytest
import tensorflow as tf

from larq_nas.cost import SpaceCosts
from larq_nas.errors import InputError
from larq_nas.searchers.evolution.fitness import (
    Fitness,
    fitness,
    flops,
    require_objectives,
    scores_of,
)
from larq_nas.spaces import VggSmall
from larq_nas.spaces.chooser import Chooser


def test_fitness_is_points_of_accuracy_minus_lambda_times_the_share_of_operations() -> None:
    # VGG-Auto-A of the paper's Table 1: 92.17 %, 11.3M of 13.2M, lambda 4.
    assert fitness(0.9217, 11.3e6, 13.2e6, 4) == pytest.approx(92.17 - 4 * 11.3 / 13.2)


@pytest.mark.parametrize("ratios", [(0.25, 0.5, 1, 2), (2, 4), (0.25, 0.5), (0.9, 1.2)])
def test_the_original_has_every_ratio_1_whatever_is_searched(ratios: tuple[float, ...]) -> None:
    made, inputs, size = 0.0, 3, 32
    for layer, (width, pools) in enumerate(zip(VggSmall.filters, 3 * (False, True), strict=True)):
        made += size**2 * 9 * inputs * width / (64 if layer else 1)
        inputs, size = width, size // 2 if pools else size
    original = made + size**2 * inputs * 10
    assert original == 13_058_048
    costs = SpaceCosts(VggSmall(ratios=ratios), (32, 32, 3), 10)
    assert Fitness(costs, 4).original == original


def test_the_original_of_a_network_of_ones_own_has_its_own_widths() -> None:
    def own(choose: Chooser, shape: Any, classes: int) -> tf.keras.Model:
        x = images = tf.keras.Input(shape)
        width = choose.filters("conv", 6, (2, 3))
        # Built for each width by itself: what it costs does not follow from one build.
        for number in range(2 if width > 15 else 1):
            x = tf.keras.layers.Conv2D(width, 1, use_bias=False, name=f"conv{number}")(x)
        x = tf.keras.layers.GlobalAveragePooling2D()(x)
        return tf.keras.Model(images, tf.keras.layers.Dense(classes, name="dense")(x))

    with pytest.warns(UserWarning, match="do not follow"):
        original = Fitness(SpaceCosts(own, (4, 4, 3), 10), 4).original
    assert original == 4 * 4 * 3 * 6 + 6 * 10


def test_fitness_is_never_below_zero() -> None:
    assert fitness(0.1, 166e6, 13.2e6, 4) == 0


def test_a_binary_operation_counts_as_a_sixty_fourth() -> None:
    assert flops({"macs": 1000, "binary_macs": 6400}) == 1100


def test_costs_are_maximized_negative() -> None:
    figures = {"accuracy": 0.5, "weight_bytes": 800, "fitness": 40.0}
    assert scores_of(figures, ("accuracy", "weight_bytes")) == (0.5, -800.0)
    assert scores_of(figures, ("fitness",)) == (40.0,)


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        ((), "must be a list of names"),
        (("accuracy", "size"), "Unknown objective `size`"),
        (("weight_bytes", "flops"), "must hold accuracy or fitness"),
        (("accuracy", "accuracy"), "must differ"),
    ],
)
def test_objectives_that_cannot_be_searched_for_are_refused(
    objectives: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        require_objectives(objectives)
