"""Cells that are computed again for their gradient."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import quick

from larq_nas.data.data import Data
from larq_nas.data.validation import check_data
from larq_nas.layers import building_in
from larq_nas.searchers import Differentiable
from larq_nas.spaces import Bats, Bnas
from larq_nas.supernet.fuse import Fuse
from larq_nas.training import Recipe


def stepped(space, digits, rematerialize: bool) -> list[np.ndarray]:
    """Return all weights after a step of a search."""
    task = Data(*digits, check_data(*digits, 10))
    searcher = Differentiable(weights_only=0.0, rematerialize=rematerialize)
    prepared = searcher.prepare(space, task, None, 1, Recipe())
    model = prepared.model
    model.searching.assign(True)
    step = tf.function(model.train_step)
    for pair in prepared.stream.from_epoch(0, 1).take(1):
        step(pair)
    return [weight.numpy() for weight in model.weights if weight.dtype.is_floating]


@pytest.mark.slow
@pytest.mark.parametrize(
    "space",
    quick(
        [
            Bats(cells=2, channels=6, nodes=2, activation="prelu"),
            Bnas(cells=2, channels=4, nodes=2),
        ],
        1,
    ),
    ids=["bats", "bnas"],
)
def test_the_search_is_the_same(space, digits) -> None:
    kept, again = (stepped(space, digits, one) for one in (False, True))
    assert len(kept) == len(again) > 20
    for first, second in zip(kept, again, strict=True):
        np.testing.assert_allclose(second, first, rtol=1e-4, atol=1e-5)


def test_a_cell_is_computed_once_more_for_its_gradient() -> None:
    calls = {}
    for rematerialize in (False, True):
        space = Bats(cells=1, channels=4, nodes=1)
        with building_in(space.search_domain):
            model = space.build(Fuse(rematerialize=rematerialize), (8, 8, 1), 10)

        @tf.function
        def gradients(x: tf.Tensor, model: tf.keras.Model = model) -> list[tf.Tensor]:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(model(x, training=True))
            found: list[tf.Tensor] = tape.gradient(loss, model.trainable_weights)
            return found

        graph = gradients.get_concrete_function(tf.TensorSpec((2, 8, 8, 1))).graph
        operations = [one.type for one in graph.get_operations()]
        calls[rematerialize] = sum(one.endswith("PartitionedCall") for one in operations)
    assert calls == {False: 2, True: 3}
