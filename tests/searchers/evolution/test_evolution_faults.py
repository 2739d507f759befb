"""What may go wrong in an evolution: told, and neither hidden nor taken for a bad candidate."""

import csv
from pathlib import Path
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import larq as lq
import pytest
import tensorflow as tf
from conftest import quick
from keras_tuner.errors import FailedTrialError

from larq_nas.errors import InputError
from larq_nas.searchers import Evolution
from larq_nas.spaces import ModelWidths
from larq_nas.training import Recipe

LAYERS = tf.keras.layers
SETTINGS: dict[str, Any] = {
    "population": 2,
    "candidate_epochs": 1,
    "widest_epochs": 1,
    "subset": 60,
    "recipe": Recipe(stages=("binary",)),
    "confirm": 0,
}
SIGNS = {
    "padding": "same",
    "input_quantizer": "ste_sign",
    "kernel_quantizer": "ste_sign",
    "kernel_constraint": "weight_clip",
    "use_bias": False,
}


def model_of(between: LAYERS.Layer, kernel_size: int = 3) -> tf.keras.Model:
    images = tf.keras.Input((8, 8, 1))
    x = LAYERS.Conv2D(8, 3, name="stem")(images)
    x = lq.layers.QuantConv2D(8, kernel_size, name="a", **SIGNS)(x)
    x = between(LAYERS.BatchNormalization(name="a_bn")(x))
    x = lq.layers.QuantConv2D(8, 3, name="b", **SIGNS)(x)
    x = LAYERS.GlobalAveragePooling2D(name="pool")(LAYERS.BatchNormalization(name="b_bn")(x))
    return tf.keras.Model(images, LAYERS.Dense(10, name="logits")(x), name="own")


def search(
    model: tf.keras.Model, directory: Path, callbacks: Any = (), epochs: int = 1, **settings: Any
) -> None:
    train, validation = larq_nas.datasets.load("digits", batch_size=20)
    larq_nas.search(
        train.take(10),
        validation.take(2),
        ModelWidths(model, (0.5, 1)),
        Evolution(**{**SETTINGS, **settings}),
        epochs=epochs,
        train_epochs=0,
        directory=directory,
        callbacks=callbacks,
        verbose=0,
    )


class Fails(tf.keras.callbacks.Callback):
    """Fails in one training: of candidate 2, after the widest network's and candidate 1's."""

    def __init__(self, training: int = 3) -> None:
        super().__init__()
        self.trained, self._training = 0, training

    def on_train_begin(self, logs: Any = None) -> None:
        self.trained += 1
        if self.trained == self._training:
            raise ValueError("a mistake of one's own")


def relu() -> LAYERS.Layer:
    return LAYERS.Activation("relu", name="between")


@pytest.mark.slow
def test_an_error_in_a_callback_stops_the_search_which_goes_on_without_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a mistake of one's own"):
        search(model_of(relu()), tmp_path / "cut", [Fails()])
    search(model_of(relu()), tmp_path / "cut")
    search(model_of(relu()), tmp_path / "whole")
    found = [(tmp_path / name / "candidates.csv").read_bytes() for name in ("cut", "whole")]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (3, "must hold objects of tf.keras.callbacks.Callback, but got 3"),
        (
            tf.keras.callbacks.LearningRateScheduler(lambda epoch: 0.0),
            "cannot set the learning rate, but got LearningRateScheduler: the recipe does",
        ),
    ],
)
def test_callbacks_that_would_do_nothing_are_refused(
    tmp_path: Path, callback: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        search(model_of(relu()), tmp_path / "run", [callback])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changed",
    quick(
        [lambda: model_of(LAYERS.Activation("tanh", name="between")), lambda: model_of(relu(), 5)],
        1,
    ),
    ids=["activation", "kernel"],
)
def test_another_model_of_the_same_names_is_another_run(tmp_path: Path, changed: Any) -> None:
    with pytest.raises(ValueError, match="a mistake"):
        search(model_of(relu()), tmp_path, [Fails()])
    with pytest.raises(InputError, match=r"with other settings \(another network\)"):
        search(changed(), tmp_path)


@pytest.mark.slow
def test_damaged_weights_of_the_widest_network_stop_before_a_candidate(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a mistake"):
        search(model_of(relu()), tmp_path, [Fails()])
    whole = (tmp_path / "widest.weights.h5").read_bytes()
    (tmp_path / "widest.weights.h5").write_bytes(whole[:500])
    with pytest.raises(InputError, match=r"widest.weights.h5` is damaged .*: delete it"):
        search(model_of(relu()), tmp_path)
    (tmp_path / "widest.weights.h5").unlink()
    search(model_of(relu()), tmp_path)
    assert (tmp_path / "candidates.csv").read_text().count("nan") == 0
    assert (tmp_path / "widest.weights.h5").stat().st_size == len(whole)


def test_a_layer_that_must_know_its_width_is_refused_before_training(tmp_path: Path) -> None:
    """Its function reads the number of channels from the shape, which one trace does not have."""

    def halve(x: tf.Tensor) -> tf.Tensor:
        return tf.reshape(x, (-1, *x.shape[1:3], 2, x.shape[3] // 2))[..., 0, :]

    model = model_of(LAYERS.Lambda(lambda x: tf.concat([halve(x)] * 2, -1), name="between"))
    with pytest.raises(InputError, match=r"give `Evolution\(shared=False\)`"):
        search(model, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_ratios_of_equal_widths_count_once(tmp_path: Path) -> None:
    train, validation = larq_nas.datasets.load("digits", batch_size=20)
    with pytest.warns(UserWarning, match=r"Ratios 0.51 of choice `a` give widths that others"):
        larq_nas.search(
            train.take(10),
            validation.take(2),
            ModelWidths(model_of(relu()), (0.5, 0.51, 1)),
            Evolution(**{**SETTINGS, "population": 10}),
            epochs=2,
            train_epochs=0,
            directory=tmp_path,
            verbose=0,
        )
    rows = list(csv.DictReader((tmp_path / "candidates.csv").open(newline="")))
    assert len(rows) == len({(row["a"], row["b"]) for row in rows}) == 4


@pytest.mark.slow
def test_the_table_is_there_while_the_search_goes_on(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a mistake"):
        search(model_of(relu()), tmp_path, [Fails(4)], epochs=2)
    rows = list(csv.DictReader((tmp_path / "candidates.csv").open(newline="")))
    assert [row["candidate"] for row in rows] == ["1", "2"]


def refusing(error: Exception) -> Any:
    """Return a space that refuses one of its widths, by what its function raises."""

    def refusing_space(choose: Any, input_shape: Any, classes: int) -> tf.keras.Model:
        images = tf.keras.Input(input_shape)
        width = choose.filters("stem", 8, (0.5, 1))
        if width == 4:
            raise error
        x = LAYERS.Conv2D(width, 3, name="stem")(images)
        filters = choose.filters("conv", 8, (0.5, 1))
        x = larq_nas.layers.binary_conv(x, filters, 3, identity=False, name="conv")
        x = LAYERS.GlobalAveragePooling2D(name="pool")(x)
        return tf.keras.Model(images, LAYERS.Dense(classes, name="logits")(x))

    return refusing_space


@pytest.mark.parametrize("shared", quick([True, False], 0))
@pytest.mark.parametrize(
    "error", [FailedTrialError("too narrow."), InputError("too narrow."), KeyError("too narrow")]
)
def test_a_width_that_a_space_refuses_fails_and_the_search_goes_on(
    error: Exception, shared: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train, validation = larq_nas.datasets.load("digits", batch_size=20)
    larq_nas.search(
        train.take(3),
        validation.take(1),
        refusing(error),
        Evolution(**{**SETTINGS, "population": 4, "shared": shared}),
        budget={"binary_macs": "10M"},
        epochs=1,
        train_epochs=0,
        directory=tmp_path,
    )
    told = [line for line in capfd.readouterr().out.splitlines() if "failed: " in line]
    assert len(told) == 2
    assert "(stem=0.5, conv=" in told[0]
    assert "too narrow" in told[0]
    with open(tmp_path / "candidates.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert {(row["stem"], "too narrow" in row["failure"]) for row in table} == {
        ("0.5", True),
        ("1.0", False),
    }
