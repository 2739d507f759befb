"""Training on two devices: what it computes is what one does."""

import json
import warnings
from pathlib import Path
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest
import tensorflow as tf
from replicas import run, run_two

from larq_nas.data.data import read_data
from larq_nas.data.validation import DataFacts
from larq_nas.errors import InputError
from larq_nas.spaces import Bats
from larq_nas.training.distribution import require_halves, require_strategy, warn_if_apart

SPACE = Bats(cells=2, channels=4, nodes=1)


@pytest.mark.slow
def test_five_bilevel_steps_on_two_replicas_are_those_of_one(tmp_path: Path) -> None:
    """Of all weights and alphas; Keras' synchronized variance is that of a batch, n for n - 1."""
    names = ("none", "one", "two", "first_of_two_processes", "second_of_two_processes")
    paths = [tmp_path / f"{name}.npz" for name in names]
    for replicas, path in zip((None, 1, 2), paths, strict=False):
        run(replicas, path)
    run_two(*paths[3:])
    one, *others = [dict(np.load(path)) for path in paths]
    assert any("alpha" in name for name in one)
    assert 0 < one["kept"].mean() < 2
    for label, other in zip(names[1:], others, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            tolerance = 1e-2 if "moving_variance" in name else 1e-6
            message = f"{label}: {name}"
            np.testing.assert_allclose(other[name], value, atol=tolerance, err_msg=message)


@pytest.mark.slow
def test_a_search_on_two_replicas_ends_in_a_flatbuffer(tmp_path: Path) -> None:
    said = run(2, tmp_path / "run").stdout
    assert "2 of 2 cells are computed operation by operation" in said
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert all(parity["agreement"] == 1 for parity in result["parity"])
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())["settings"]
    assert settings["replicas"] == 2


@pytest.fixture
def strategy() -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(["CPU:0"])


def test_what_cannot_be_used_is_refused(digits: Any, strategy: Any, tmp_path: Path) -> None:
    settings: Any = {"space": SPACE, "directory": tmp_path / "run", "verbose": 0}
    with pytest.raises(
        InputError, match=r"`strategy` must be a tf\.distribute\.Strategy, but got 2"
    ):
        larq_nas.search(*digits, **settings, strategy=2)
    with (
        strategy.scope(),
        pytest.raises(InputError, match="call it outside, and give the strategy"),
    ):
        larq_nas.search(*digits, **settings)
    with pytest.raises(InputError, match="Searcher `evolution` trains on one device"):
        larq_nas.search(*digits, **settings, searcher="evolution", strategy=strategy)
    assert not (tmp_path / "run").exists()


def test_the_default_strategy_is_none(digits: Any) -> None:
    task = read_data(*digits, None, None, 0, SPACE, 0, tf.distribute.get_strategy())
    assert task.strategy is None


def test_strategies_that_cannot_work_are_refused() -> None:
    central = tf.distribute.experimental.CentralStorageStrategy(["CPU:0"])
    with pytest.raises(InputError, match=r"must be a MirroredStrategy, .*, but got CentralStorage"):
        require_strategy(central, 32)


def test_batch_norms_of_a_replica_are_told(strategy: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(type(strategy), "num_replicas_in_sync", 2)
    x = images = tf.keras.Input((8, 8, 1))
    x = tf.keras.layers.BatchNormalization(synchronized=True)(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_apart(tf.keras.Model(images, x), strategy)
    x = tf.keras.layers.BatchNormalization(name="apart")(x)
    with pytest.warns(UserWarning, match="Batch norm of 1 layers, such as `apart`, is over the"):
        warn_if_apart(tf.keras.Model(images, x), strategy)


def test_batches_that_do_not_divide_are_refused(strategy: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(type(strategy), "num_replicas_in_sync", 3)
    with pytest.raises(InputError, match="3 replicas, which do not divide batches of 32 images"):
        require_strategy(strategy, 32)
    require_strategy(strategy, 33)


def test_halves_that_do_not_divide_are_refused(strategy: Any, monkeypatch: Any) -> None:
    """Of fewer images than two batches have, a batch of the search is a half."""
    monkeypatch.setattr(type(strategy), "num_replicas_in_sync", 3)
    with pytest.raises(InputError, match=r"3 replicas, .* the 25 images that train .*, 25 or"):
        require_halves(strategy, DataFacts((8, 8, 1), 10, 33, 50, 8, ""))
    require_halves(strategy, DataFacts((8, 8, 1), 10, 24, 50, 8, ""))
