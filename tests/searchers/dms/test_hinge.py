"""What is charged for memory, against networks that are built and counted."""

import pytest
import tensorflow as tf
from conftest import dimensions_of

from larq_nas.cost import SpaceCosts, by_convention, profile
from larq_nas.searchers.dms.search import Turns, megabytes, memory_hinge
from larq_nas.searchers.dms.widths import Dimensions
from larq_nas.spaces import resolve
from larq_nas.spaces.chooser import Fix
from larq_nas.training.loop import Term

SHAPE = (32, 32, 3)


@pytest.mark.parametrize("name", ["vgg11", "resnet18_cifar"])
def test_memory_is_that_of_the_paper(name: str) -> None:
    space = resolve(name, {"binarization": "dms"})
    costs = SpaceCosts(space, SHAPE, 10)
    filters = {choice: asked.filters for choice, asked in costs.expansions.items()}
    widths = {choice: count + 3 * place for place, (choice, count) in enumerate(filters.items())}
    ratios = {choice: width / filters[choice] for choice, width in widths.items()}
    built = by_convention("dms", profile(space.build(Fix(ratios), SHAPE, 10)))
    assert megabytes(costs.structure({}), widths) == pytest.approx(built["megabytes"], rel=1e-12)


@pytest.mark.parametrize(("ratio", "expected"), [(1, 0.0778), (2, 0.2928), (3, 0.6453)])
def test_uniform_networks_are_those_of_table_1(ratio: int, expected: float) -> None:
    costs = SpaceCosts("vgg11", SHAPE, 10)
    widths = {name: ratio * asked.filters for name, asked in costs.expansions.items()}
    assert megabytes(costs.structure({}), widths) == pytest.approx(expected, abs=5e-5)


def hinge(target: float) -> tuple[Term, Dimensions]:
    costs = SpaceCosts("vgg11", SHAPE, 10)
    dimensions = dimensions_of(costs.expansions, initial_ratio=1.0)
    return memory_hinge(costs.structure({}), dimensions, target, 0.01), dimensions


def test_above_the_target_memory_is_charged() -> None:
    charged, dimensions = hinge(0.05)
    with tf.GradientTape() as tape:
        penalty = charged()
    assert float(penalty) == pytest.approx(0.01 * (0.0778 - 0.05), rel=2e-3)
    gradient = tape.gradient(penalty, dimensions.mean).numpy()
    step = 1e-2
    for place in (0, 4):
        values = []
        for change in (step, -step):
            means = [1.0] * 8
            means[place] += change
            dimensions.mean.assign(means)
            values.append(float(charged()))
        assert gradient[place] == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-2)


def test_below_the_target_nothing_is_charged() -> None:
    charged, dimensions = hinge(0.08)
    with tf.GradientTape() as tape:
        penalty = charged()
    assert float(penalty) == 0
    assert not tape.gradient(penalty, dimensions.mean).numpy().any()


def test_turns_of_epochs() -> None:
    turns = Turns(3, 2, 1.0, 0.25)
    assert turns.epochs == 9
    assert [turns.trains_means(epoch) for epoch in range(6)] == [False, False, True] * 2
    assert [turns.next(epoch) for epoch in (2, 5, 8)] == [1, 2, 3]
    assert [turns.scale_of(turn) for turn in range(3)] == pytest.approx([1.0, 0.5, 0.25])
    assert Turns(1, 5, 1.0, 0.3).scale_of(0) == 1.0
