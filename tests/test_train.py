"""Training an architecture, whole and interrupted."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from conftest import Interrupt, quick, run_files

import larq_nas
from larq_nas.errors import InputError
from larq_nas.layers import DropPath
from larq_nas.methods import recipe as recipe_of
from larq_nas.spaces import Bats
from larq_nas.training import Recipe
from larq_nas.training.loop import read_history

PAIRS = [["group_conv_3x3", 0], ["max_pool_3x3", 1]]
ARCHITECTURE = larq_nas.Architecture(
    "bats",
    Bats(cells=1, channels=4, nodes=1).settings(),
    {"reduction/2": PAIRS},
)
RECIPE = Recipe(drop_path=0.6, color_jitter=True, label_smoothing=0.1, weight_decay=1e-4)


def teacher(seed: int = 0) -> tf.keras.Model:
    tf.keras.utils.set_random_seed(seed)
    return tf.keras.Sequential(
        [tf.keras.layers.Flatten(input_shape=(8, 8, 1)), tf.keras.layers.Dense(10)]
    )


def run(directory: Path | None, data: tuple | None = None, **changes: Any) -> tf.keras.Model:
    train, validation = larq_nas.datasets.load("digits", batch_size=32)
    settings = {
        "architecture": ARCHITECTURE,
        "epochs": 4,
        "recipe": RECIPE,
        "teacher": teacher(),
        "augment": "standard",
        "directory": directory,
        "verbose": 0,
    }
    data = data or (train.take(6), validation.take(2))
    settings |= {"train": data[0], "validation": data[1], **changes}
    return larq_nas.train(**settings)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("whole") / "run"
    run(directory)
    return directory


pytestmark = pytest.mark.filterwarnings("ignore:`teacher` is right on")


def test_leaves_the_files_of_a_run(whole: Path) -> None:
    assert {path.name for path in whole.iterdir()} == {
        ".lock",
        "settings.json",
        "architecture.json",
        "history.csv",
        "model.keras",
        "model.tflite",
        "result.json",
        "report.html",
        "times.json",
        "warnings.json",
        "sample.npy",
        "checkpoints",
        "logs",
    }
    assert larq_nas.Architecture.load(whole / "architecture.json") == ARCHITECTURE
    rows = read_history(whole / "history.csv")
    stages = [(row["stage"], row["epoch"]) for row in rows]
    assert stages == [(f"train_{stage}", epoch) for stage in ("real", "binary") for epoch in "12"]
    assert ["flip_ratio" in row for row in rows] == [False, False, True, True]
    result = json.loads((whole / "result.json").read_text())
    assert result["accuracy"] == pytest.approx(float(rows[-1]["val_accuracy"]), abs=1e-5)
    assert result["loss"] == pytest.approx(float(rows[-1]["val_loss"]), rel=1e-4)


def test_returns_the_trained_network_without_what_trained_it(whole: Path) -> None:
    before = run_files(whole)
    model = run(whole)
    assert run_files(whole) == before
    assert not any(isinstance(layer, DropPath) for layer in model.layers)
    plain = {layer.name for layer in ARCHITECTURE.build((8, 8, 1), 10).layers}
    assert {layer.name for layer in model.layers} == plain
    _, validation = larq_nas.datasets.load("digits", batch_size=32)
    accuracy = model.evaluate(validation.take(2), verbose=0, return_dict=True)["accuracy"]
    assert accuracy == pytest.approx(json.loads(before["result.json"])["accuracy"])


@pytest.mark.slow
@pytest.mark.parametrize(("fit", "epoch"), quick([(1, 1), (2, 0), (2, 1)], 2))
def test_interrupted_and_resumed_gives_the_same_bytes(
    whole, tmp_path, fit: int, epoch: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "r", callbacks=[Interrupt(fit, epoch)])
    assert not (tmp_path / "r" / "model.keras").exists()
    run(tmp_path / "r")
    assert run_files(tmp_path / "r") == run_files(whole)


@pytest.mark.slow
def test_another_seed_gives_another_network(whole: Path, tmp_path) -> None:
    run(tmp_path / "r", seed=1)
    assert run_files(tmp_path / "r")["history.csv"] != run_files(whole)["history.csv"]
    assert run_files(tmp_path / "r")["model.tflite"] != run_files(whole)["model.tflite"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": dataclasses.replace(RECIPE, drop_path=0.1)}, "recipe.drop_path was 0.6, now 0"),
        (
            {"recipe": "bnas"},
            "recipe.stages was ['real', 'binary'], now [{'name': 'binary', 'epochs': 600}]",
        ),
        ({"teacher": teacher(1)}, "(teacher was 'sequential "),
        ({"teacher": None}, "(teacher was 'sequential "),
        ({"epochs": 5}, "(epochs was 4, now 5)"),
        ({"augment": None}, "(augment was 'larq_nas.data.augmentation.pad_crop_flip', now None)"),
        (
            {"architecture": ARCHITECTURE.with_settings(channels=8)},
            "(architecture.settings.channels was 4, now 8)",
        ),
        ({"resume": False}, "holds a run already"),
    ],
)
def test_other_settings_are_refused_by_name(whole: Path, changes: dict, message: str) -> None:
    before = run_files(whole)
    with pytest.raises(InputError) as caught:
        run(whole, **changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert run_files(whole) == before


def test_an_architecture_can_be_a_file(whole: Path, tmp_path) -> None:
    before = run_files(whole)
    shutil.copy(whole / "architecture.json", tmp_path / "copy.json")
    for source in (tmp_path / "copy.json", str(tmp_path / "copy.json")):
        run(whole, architecture=source)
    assert run_files(whole) == before


def test_an_architecture_can_be_a_published_name(whole: Path) -> None:
    with pytest.raises(InputError, match=r"architecture.settings.cells was 1, now 20;"):
        run(whole, architecture="bnas_cifar")


@pytest.mark.slow
def test_without_epochs_weights_are_random_and_the_recipe_is_of_the_paper(tmp_path) -> None:
    published = larq_nas.Architecture.published("bnas_cifar")
    small = published.with_settings(cells=3, channels=4)
    model = run(tmp_path / "r", architecture=small, recipe=None, epochs=0, teacher=None)
    assert (tmp_path / "r" / "model.tflite").exists()
    assert read_history(tmp_path / "r" / "history.csv") == []
    settings = json.loads((tmp_path / "r" / "settings.json").read_text())["settings"]
    assert Recipe(**settings["recipe"]) == recipe_of("bnas_v2")
    statistics = model.get_layer("cell1_skip_bn").moving_variance
    assert not np.allclose(statistics, 1)


def own(choose, input_shape, classes) -> tf.keras.Model:
    images = tf.keras.Input(input_shape)
    conv = larq_nas.layers.binary_conv
    x = choose.op("a", images, {"conv": lambda x, name: conv(x, 8, 3, name=name)})
    return tf.keras.Model(images, larq_nas.layers.classifier(x, classes))


@pytest.mark.slow
def test_a_space_of_ones_own(tmp_path) -> None:
    architecture = larq_nas.Architecture("own", {}, {"a": "conv"})
    model = run(None, architecture=architecture, space=own, epochs=1)
    assert model.output_shape == (None, 10)
    assert np.isfinite(model(np.zeros((1, 8, 8, 1)))).all()
    with pytest.raises(InputError, match="Unknown space `own`"):
        run(tmp_path / "r", architecture=architecture)
    assert not (tmp_path / "r").exists()
