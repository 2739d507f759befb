"""DMS-A and DMS-B against appendix B.2.1 of the paper."""

import dataclasses
from typing import Any

import pytest
import tensorflow as tf
from supernets import SHAPE, chain

from larq_nas.data.data import read_data
from larq_nas.methods import resolve
from larq_nas.searchers import Dms
from larq_nas.spaces.space import FunctionSpace
from larq_nas.training import Recipe

# What both searches share.
SEARCH = {
    "trade_off": 0.01,
    "scale": 1.0,
    "final_scale": 0.3,
    "half_step": 0.4,
    "least_mean": 0.3,
    "least_ratio": 0.25,
    "temperature": 1.0,
    "weight_epochs": 5,
    "learning_rate": 0.05,
    "final_learning_rate": 0.01,
    "weight_decay": 1e-4,
    "best_effort": True,
    "budget_weight": None,
}


@pytest.mark.parametrize(
    ("name", "space", "own"),
    [
        ("dms_a", "vgg11", (1.5, 0.12, 2e-3)),
        ("dms_a", "resnet18_cifar", (1.5, 0.12, 1e-3)),
        ("dms_b", "vgg11", (2.5, 1.0, 2e-3)),
        ("dms_b", "resnet18_cifar", (2.5, 1.0, 1e-3)),
    ],
)
def test_every_setting_is_the_papers(
    name: str, space: str, own: tuple[float, float, float]
) -> None:
    found: Any = resolve(name, space)
    names = ("initial_ratio", "memory_target", "mean_learning_rate")
    assert dataclasses.asdict(found.searcher) == {**SEARCH, **dict(zip(names, own, strict=True))}
    assert (found.epochs, found.space.binarization) == (250, "dms")


def test_optimizers_are_those_of_the_paper() -> None:
    """SGD with momentum 0.9, from 0.05 to 0.01 by a cosine in five epochs; Adam for the means."""
    images = tf.random.stateless_normal((50, *SHAPE), [0, 0])
    data = tf.data.Dataset.from_tensor_slices((images, tf.range(50) % 10))
    space = FunctionSpace(chain)
    checked = read_data(data.take(40).batch(4), data.skip(40).batch(4), 10, None, 0, space, 0)
    search = Dms(mean_learning_rate=1e-3).prepare(space, checked, None, 250, Recipe())
    assert (search.turns.count, search.turns.epochs) == (50, 300)
    weights, means = search.model.optimizer, search.model.architecture_optimizer
    assert (weights.momentum, weights.nesterov) == (0.9, False)
    assert isinstance(means, tf.keras.optimizers.Adam)
    assert float(means.learning_rate) == pytest.approx(1e-3)
    # Half of the 40 images, in batches of 4, for 5 epochs.
    rates = [float(weights._learning_rate(step)) for step in (0, 12, 13, 25)]
    by_hand = [0.01 + 0.02 * (1 + tf.cos(3.14159265 * step / 25)) for step in (0, 12, 13, 25)]
    assert rates == pytest.approx([float(one) for one in by_hand], rel=1e-5)
