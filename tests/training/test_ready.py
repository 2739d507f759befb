"""What shows of a training before it starts."""

import dataclasses
from pathlib import Path

import pytest
import tensorflow as tf
from conftest import random_architecture

import larq_nas
from larq_nas.errors import InputError
from larq_nas.layers import REAL_WEIGHTS, binary_conv, classifier, current_domain
from larq_nas.methods import recipe as recipe_of
from larq_nas.spaces import Bats, Bnas
from larq_nas.training import Recipe
from larq_nas.training.trainer import require_reading

ARCHITECTURE = random_architecture(Bats(cells=1, channels=4, nodes=1), 0)


def convolution(size: int):
    return lambda x, name: binary_conv(x, 8, size, name=name)


def one_conv(choose, input_shape, classes) -> tf.keras.Model:
    images = tf.keras.Input(input_shape)
    x = choose.op("a", images, {"conv": convolution(3), "conv_1x1": convolution(1)})
    return tf.keras.Model(images, classifier(x, classes))


def test_a_drop_path_that_nothing_drops_is_told(digits) -> None:
    recipe = dataclasses.replace(recipe_of("bnas_v2"), drop_path=0.25)
    architecture = larq_nas.Architecture("one_conv", {}, {"a": "conv"})
    with pytest.warns(UserWarning, match=r"`drop_path` 0\.25 has no effect") as told:
        larq_nas.train(
            architecture, *digits, space=one_conv, epochs=0, recipe=recipe, classes=10, verbose=0
        )
    assert {one.filename for one in told if "drop_path" in str(one.message)} == {__file__}


def test_a_drop_path_that_drops_is_not_told(digits, recwarn) -> None:
    recipe = Recipe(drop_path=0.25)
    larq_nas.train(ARCHITECTURE, *digits, epochs=0, recipe=recipe, classes=10, verbose=0)
    assert not [one for one in recwarn.list if "drop_path" in str(one.message)]


@pytest.mark.filterwarnings("ignore:`teacher` is right on")
def test_a_teacher_without_a_share_of_the_loss_is_told(digits) -> None:
    flat = tf.keras.layers.Flatten(input_shape=(8, 8, 1))
    teacher = tf.keras.Sequential([flat, tf.keras.layers.Dense(10)])
    with pytest.warns(UserWarning, match="`teacher` has no effect: `distillation`"):
        larq_nas.train(
            ARCHITECTURE,
            *digits,
            epochs=0,
            recipe=Recipe(distillation=0),
            teacher=teacher,
            classes=10,
            verbose=0,
        )


def only_binary(choose, input_shape, classes) -> tf.keras.Model:
    if current_domain() == dataclasses.replace(REAL_WEIGHTS, drop_path=False):
        raise NotImplementedError("no real weights")
    return one_conv(choose, input_shape, classes)


def test_a_stage_that_cannot_be_built_is_refused_before_the_search(digits, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no real weights"):
        larq_nas.search(*digits, only_binary, directory=tmp_path / "r", classes=10, verbose=0)
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_checkpoints_of_keras_hold_the_network_itself(digits, tmp_path: Path) -> None:
    kept = tf.keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.keras"))
    model = larq_nas.train(
        ARCHITECTURE,
        *digits,
        epochs=1,
        recipe="bnas_v2",
        callbacks=[kept],
        classes=10,
        verbose=0,
    )
    loaded = tf.keras.models.load_model(tmp_path / "1.keras")
    for layer in model.layers:
        for weight, value in zip(
            loaded.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True
        ):
            assert (weight == value).all()


@pytest.mark.slow
def test_checkpoints_of_keras_hold_the_supernet_itself(digits, tmp_path: Path) -> None:
    kept = tf.keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.keras"))
    larq_nas.search(
        *digits,
        one_conv,
        epochs=1,
        train_epochs=0,
        callbacks=[kept],
        classes=10,
        verbose=0,
    )
    loaded = tf.keras.models.load_model(tmp_path / "1.keras")
    assert "mixture_a" in {layer.name for layer in loaded.layers}


def test_a_network_of_zeros_is_refused(digits, tmp_path: Path) -> None:
    space = Bnas(cells=1, channels=4, nodes=1, skips=False)
    architecture = larq_nas.Architecture(
        "bnas", space.settings(), {"reduction/2": [["zero", 0], ["zero", 1]]}
    )
    with pytest.raises(InputError, match="Every path of cell `reduction` is zero: choose another"):
        larq_nas.train(architecture, *digits, classes=10, directory=tmp_path / "r", verbose=0)
    assert not (tmp_path / "r").exists()
    with pytest.raises(InputError, match="gives the same for every image: every path"):
        require_reading(architecture.build((8, 8, 1), 10))


@pytest.mark.slow
def test_a_stage_without_epochs_is_told(digits) -> None:
    with pytest.warns(
        UserWarning, match="stage of real weights is left out: too few epochs, 1, for"
    ):
        larq_nas.train(ARCHITECTURE, *digits, epochs=1, recipe="bats", classes=10, verbose=0)


@pytest.mark.slow
def test_a_learning_rate_for_other_batches_is_told(digits, capsys) -> None:
    larq_nas.train(ARCHITECTURE, *digits, epochs=0, recipe="bnas_v2", classes=10, verbose=2)
    printed = capsys.readouterr().out
    assert "Learning rate 0.00625: that of the recipe, 0.05, is for batches of 256" in printed
    larq_nas.train(ARCHITECTURE, *digits, epochs=0, recipe="bats", classes=10, verbose=2)
    assert "Learning rate" not in capsys.readouterr().out
