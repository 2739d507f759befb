"""Random states of a program, before and after it calls larq_nas."""

import json
import logging
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest
import tensorflow as tf
from conftest import quick
from tensorflow.python.eager.polymorphic_function import polymorphic_function

from larq_nas.deploy.export import export
from larq_nas.process_state import (
    keeps_process_state,
    restoring_random_states,
    seed_everything,
)
from larq_nas.spaces import Bats

ARCHITECTURE = larq_nas.Architecture("vgg_small", {"expansion": 0.0625})
SPACE = Bats(cells=3, channels=4, search_channels=4, nodes=2)


def draws() -> list[float]:
    return [
        random.random(),
        float(np.random.rand()),
        float(tf.random.uniform(())),
        float(tf.random.get_global_generator().uniform(())),
        float(tf.keras.initializers.GlorotUniform()((1, 1))),
    ]


def seed() -> None:
    tf.keras.utils.set_random_seed(3)
    tf.random.get_global_generator().reset_from_seed(4)


def data() -> tuple[tf.data.Dataset, tf.data.Dataset]:
    train, validation = larq_nas.datasets.load("digits", batch_size=20)
    return train.take(4), validation.take(1)


def search(directory: Path | None = None) -> tf.keras.Model:
    return larq_nas.search(*data(), SPACE, epochs=1, train_epochs=1, directory=directory, verbose=0)


def train() -> None:
    larq_nas.train(ARCHITECTURE, *data(), epochs=1, verbose=0)


def convert() -> None:
    larq_nas.convert(ARCHITECTURE.build((8, 8, 1), 10))


def refused() -> None:
    with pytest.raises(larq_nas.errors.InputError):
        larq_nas.search(*data(), SPACE, budget={"weight_bytes": 1}, verbose=0)


@pytest.mark.parametrize("call", quick([search, train, convert, refused], 1, 2, 3))
def test_random_states_are_left_as_they_were(call: Callable[[], Any]) -> None:
    model = ARCHITECTURE.build((8, 8, 1), 10)  # its seeds are not of what is compared
    assert model
    seed()
    expected = [draws(), draws()]
    seed()
    found = [draws()]
    if call is convert:
        larq_nas.convert(model)
    else:
        call()
    assert [*found, draws()] == expected


def test_drawing_an_architecture_leaves_random_states_as_they_were() -> None:
    seed()
    call = larq_nas.Architecture.random
    call(SPACE, (8, 8, 1), 10, seed=1)
    expected = draws()
    seed()
    call(SPACE, (8, 8, 1), 10, seed=2)
    assert draws() == expected


@pytest.mark.slow
def test_searches_one_after_the_other_give_the_same(tmp_path: Path) -> None:
    found = []
    for number in range(3):
        np.random.seed(number)
        model = search(tmp_path / str(number))
        chosen = json.loads((tmp_path / str(number) / "architecture.json").read_text())
        found.append((chosen, [weight.tobytes() for weight in model.get_weights()]))
    assert found[0] == found[1] == found[2]


def test_keras_draws_its_seeds_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seed_everything(5)
        drawn = tf.keras.initializers.GlorotUniform()((2, 2)).numpy()
    tf.keras.utils.set_random_seed(6)
    assert (drawn == tf.keras.initializers.GlorotUniform()((2, 2)).numpy()).all()


def test_keras_draws_the_same_in_a_call_without_a_warning() -> None:
    draw = tf.keras.initializers.GlorotUniform()
    tf.keras.utils.set_random_seed(6)
    before = draw((2, 2)).numpy()
    tf.keras.utils.set_random_seed(6)
    with warnings.catch_warnings(), restoring_random_states():
        warnings.simplefilter("error")
        inside = tf.keras.initializers.GlorotUniform()((2, 2)).numpy()
    after = tf.keras.initializers.GlorotUniform()((2, 2)).numpy()
    assert (before == inside).all()
    assert (before == after).all()


def test_a_conversion_leaves_the_root_logger_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    convert()
    assert not root.handlers


def test_advice_on_retracing_is_left_out_of_a_call(caplog: pytest.LogCaptureFixture) -> None:
    @keeps_process_state
    def trace(number: int) -> None:
        for size in range(number):
            tf.function(lambda x: x + 1)(tf.zeros(size))

    with caplog.at_level(logging.WARNING, "tensorflow"):
        trace(12)
        assert not caplog.records
        tf.get_logger().warning("another")
    assert [record.message for record in caplog.records] == ["another"]


def test_what_a_call_traces_does_not_count_afterwards(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a process where nothing was traced before.
    counts = polymorphic_function._frequent_tracing_detector_manager
    monkeypatch.setattr(counts, "_detectors", WeakKeyDictionary())

    def predict(times: int) -> None:
        for _ in range(times):
            model = tf.keras.Sequential([tf.keras.layers.Dense(1, input_shape=(3,))])
            model.predict(np.zeros((2, 3)), verbose=0)

    with caplog.at_level(logging.WARNING, "tensorflow"):
        keeps_process_state(predict)(4)
        predict(1)
    assert "retracing" not in caplog.text


def test_a_function_that_converts_leaves_the_root_logger(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    export(ARCHITECTURE.build((8, 8, 1), 10))
    assert not root.handlers
