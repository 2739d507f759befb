"""The same step of a supernet, again and again."""

import numpy as np
import pytest
import tensorflow as tf

from larq_nas.data.data import Data
from larq_nas.data.validation import check_data
from larq_nas.searchers import Differentiable
from larq_nas.spaces import Bats
from larq_nas.training import Recipe
from larq_nas.training.loop import exact


@pytest.mark.slow
def test_a_step_gives_the_same_each_time(digits) -> None:
    """Of as many cells as it takes for TensorFlow to add up in another order otherwise."""
    task = Data(*digits, check_data(*digits, 10))
    prepared = Differentiable(weights_only=0.0).prepare(
        Bats(cells=3, channels=16), task, None, 1, Recipe()
    )
    model = prepared.model
    model.searching.assign(True)
    state = [*model.weights, *model.optimizer.variables, *model.architecture_optimizer.variables]
    before = [variable.numpy() for variable in state]
    pair = next(iter(prepared.stream.from_epoch(0, 1)))
    step = tf.function(lambda: model.train_step(pair))
    found = []
    with exact():
        for _ in range(4):
            for variable, value in zip(state, before, strict=True):
                variable.assign(value)
            step()
            found.append([variable.numpy() for variable in state])
    for again in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(again, found[0], strict=True))
