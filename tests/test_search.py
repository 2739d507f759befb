"""The one call, whole and interrupted, in one process."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import EXAMPLES, Interrupt, quick, run_files

import larq_nas
from larq_nas.errors import InputError
from larq_nas.imports import load_object
from larq_nas.spaces import Bats
from larq_nas.training.loop import read_history
from larq_nas.training.transfer import transfer_weights

SETTINGS = {"space": Bats(cells=1, channels=4, nodes=1), "epochs": 2, "train_epochs": 2}


def files(directory: Path) -> dict[str, bytes]:
    return {**run_files(directory), "probabilities": (directory / "probabilities.csv").read_bytes()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("whole") / "run"
    train, validation = larq_nas.datasets.load("digits", batch_size=32)
    larq_nas.search(train.take(6), validation.take(2), directory=directory, verbose=0, **SETTINGS)
    return directory


def test_leaves_everything_in_its_directory(whole: Path) -> None:
    names = {path.name for path in whole.iterdir()}
    assert names == {
        ".lock",
        "settings.json",
        "architecture.json",
        "history.csv",
        "probabilities.csv",
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
    stages = [(row["stage"], row["epoch"]) for row in read_history(whole / "history.csv")]
    assert stages == [("search", "1"), ("search", "2"), ("train_real", "1"), ("train_binary", "1")]
    assert {path.name for path in (whole / "logs").iterdir()} == {
        "search",
        "train_real",
        "train_binary",
    }
    trained = float(read_history(whole / "history.csv")[-1]["val_accuracy"])
    assert json.loads((whole / "result.json").read_text())["accuracy"] == pytest.approx(
        trained, abs=1e-5
    )


def test_returns_a_plain_compiled_model_that_fits_and_saves(whole: Path, digits, tmp_path) -> None:
    model = larq_nas.search(*_full(), directory=whole, verbose=0, **SETTINGS)
    assert type(model).__module__.startswith("keras.") or "tf_keras" in type(model).__module__
    modules = {type(layer).__module__.split(".")[0] for layer in model.layers}
    assert modules <= {"keras", "tf_keras", "larq", "larq_nas"}
    assert not any(isinstance(layer, tf.keras.Model) for layer in model.layers)
    model.fit(digits[0], epochs=1, verbose=0)
    model.save(tmp_path / "model.h5")
    loaded = tf.keras.models.load_model(whole / "model.keras")
    loaded.save(tmp_path / "loaded.h5")
    again = tf.keras.models.load_model(tmp_path / "model.h5")
    x = next(iter(digits[1]))[0]
    np.testing.assert_array_equal(again(x), model(x))


def test_its_model_loads_as_it_was_returned_without_an_import_of_larq_nas(whole: Path) -> None:
    """Without larq_nas at all, the error says that it is missing."""
    model = larq_nas.search(*_full(), directory=whole, verbose=0, **SETTINGS)
    loaded = tf.keras.models.load_model(whole / "model.keras")
    assert loaded.evaluate(_full()[1], verbose=0) == model.evaluate(_full()[1], verbose=0)
    program = """
import sys
import tensorflow as tf
sys.modules["larq_nas"] = None
try:
    tf.keras.models.load_model(sys.argv[1])
except TypeError as error:
    assert "larq_nas.layers cannot be imported" in str(error), error
del sys.modules["larq_nas"]
assert tf.keras.models.load_model(sys.argv[1]).optimizer
"""
    subprocess.run([sys.executable, "-c", program, str(whole / "model.keras")], check=True)


def _full() -> tuple[tf.data.Dataset, tf.data.Dataset]:
    train, validation = larq_nas.datasets.load("digits", batch_size=32)
    return train.take(6), validation.take(2)


def test_a_finished_run_trains_nothing_again(whole: Path) -> None:
    before = files(whole)
    counted = Interrupt(fit=1, epoch=0)
    larq_nas.search(*_full(), directory=whole, verbose=0, callbacks=[counted], **SETTINGS)
    assert files(whole) == before


@pytest.mark.parametrize(("fit", "epoch"), quick([(1, 0), (1, 1), (2, 0), (3, 0)]))
def test_interrupted_and_resumed_gives_the_same_bytes(
    whole, tmp_path, fit: int, epoch: int
) -> None:
    stop = [Interrupt(fit, epoch)]
    with pytest.raises(KeyboardInterrupt):
        larq_nas.search(*_full(), directory=tmp_path / "r", verbose=0, callbacks=stop, **SETTINGS)
    larq_nas.search(*_full(), directory=tmp_path / "r", verbose=0, **SETTINGS)
    assert files(tmp_path / "r") == files(whole)


def test_killed_between_flatbuffer_and_result_gives_the_same_bytes(whole: Path, tmp_path) -> None:
    shutil.copytree(whole, tmp_path / "r")
    (tmp_path / "r" / "result.json").unlink()
    larq_nas.search(*_full(), directory=tmp_path / "r", verbose=0, **SETTINGS)
    assert files(tmp_path / "r") == files(whole)


def test_an_edited_architecture_is_refused(whole: Path, tmp_path) -> None:
    shutil.copytree(whole, tmp_path / "r")
    path = tmp_path / "r" / "architecture.json"
    architecture = larq_nas.Architecture.load(path)
    pools = {name: [["max_pool_3x3", 0], ["max_pool_3x3", 1]] for name in architecture.choices}
    larq_nas.Architecture(architecture.space, architecture.settings, pools).save(path)
    with pytest.raises(InputError, match=r"is not a network of `architecture.json`"):
        larq_nas.search(*_full(), directory=tmp_path / "r", verbose=0, **SETTINGS)


@pytest.mark.parametrize("damaged", ["result.json", "model.tflite", "sample.npy"])
def test_what_is_damaged_and_can_be_made_again_is(whole: Path, tmp_path, damaged: str) -> None:
    shutil.copytree(whole, tmp_path / "r")
    path = tmp_path / "r" / damaged
    path.write_bytes(path.read_bytes()[:50])
    larq_nas.search(*_full(), directory=tmp_path / "r", verbose=0, **SETTINGS)
    assert files(tmp_path / "r") == files(whole)


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        ("model.keras", "`.*model.keras` is damaged"),
        ("checkpoints/train_binary/ckpt-1.index", "The checkpoint in .* is damaged"),
        ("checkpoints/train_binary/ckpt-1.data-00000-of-00001", "The checkpoint in .* is damaged"),
        ("history.csv", "is not the history of a run"),
    ],
)
def test_other_damage_is_named_in_one_line(whole, tmp_path, damaged: str, message: str) -> None:
    shutil.copytree(whole, tmp_path / "r")
    path = tmp_path / "r" / damaged
    path.write_bytes(b"a,b\n1,2\n" if damaged.endswith("csv") else path.read_bytes()[:50])
    if damaged != "model.keras":
        (tmp_path / "r" / "model.keras").unlink()
    if damaged == "history.csv":
        shutil.rmtree(tmp_path / "r" / "checkpoints" / "train_binary")
    with pytest.raises(InputError, match=message) as caught:
        larq_nas.search(*_full(), directory=tmp_path / "r", verbose=0, **SETTINGS)
    assert "\n" not in str(caught.value)


def test_a_refusal_is_tried_again(whole: Path, tmp_path) -> None:
    """What made it refuse, such as a missing converter, may have been mended."""
    shutil.copytree(whole, tmp_path / "r")
    (tmp_path / "r" / "model.tflite").unlink()
    (tmp_path / "r" / "result.json").write_text('{"accuracy": 0.5, "refused": "no converter"}')
    larq_nas.search(*_full(), directory=tmp_path / "r", verbose=0, **SETTINGS)
    assert files(tmp_path / "r") == files(whole)


@pytest.mark.slow
def test_searched_small_and_built_large(tmp_path) -> None:
    space = Bats(cells=4, channels=8, nodes=1, search_cells=3, search_channels=4)
    settings = {"space": space, "epochs": 1, "train_epochs": 2}
    model = larq_nas.search(*_full(), directory=tmp_path / "r", verbose=0, **settings)
    names = [layer.name for layer in model.layers]
    assert "cell3_pre0_bn" in names
    assert model.get_layer("cell0_pre0_conv").filters == 8
    assert (tmp_path / "r" / "model.tflite").exists()


def test_unnamed_layers_keep_what_the_first_stage_taught_them(tmp_path) -> None:
    """Keras numbers them anew for the second stage's network."""

    def space(choose, input_shape, classes) -> tf.keras.Model:
        images = tf.keras.Input(input_shape)
        x = tf.keras.layers.Conv2D(8, 3, trainable=False, name="fixed")(images)
        x = tf.keras.layers.Conv2D(8, 1, use_bias=False)(x)
        x = tf.keras.layers.Conv2D(8, 1, use_bias=False)(x)
        conv = larq_nas.layers.binary_conv
        x = choose.op("a", x, {"conv": lambda x, name: conv(x, 8, 3, name=name)})
        x = tf.keras.layers.GlobalAveragePooling2D()(x)
        return tf.keras.Model(images, tf.keras.layers.Dense(classes)(x))

    architecture = larq_nas.Architecture("space", {}, {"a": "conv"})
    with larq_nas.layers.building_in(larq_nas.layers.REAL_WEIGHTS):
        real = architecture.build((8, 8, 1), 10, space)
    binary = architecture.build((8, 8, 1), 10, space)
    transfer_weights(real, binary)
    own = [[layer for layer in m.layers if "conv2d" in layer.name] for m in (real, binary)]
    assert own[0][0].name != own[1][0].name
    for one, other in zip(*own, strict=True):
        np.testing.assert_array_equal(one.kernel, other.kernel)
    np.testing.assert_array_equal(real.layers[-1].kernel, binary.layers[-1].kernel)
    incomplete = tf.keras.Model(real.input, real.get_layer("fixed").output)
    with pytest.raises(InputError, match="has no pair to take its weights from"):
        transfer_weights(incomplete, binary)


@pytest.mark.slow
def test_another_seed_gives_another_network(whole: Path, tmp_path) -> None:
    larq_nas.search(*_full(), directory=tmp_path / "r", verbose=0, seed=1, **SETTINGS)
    assert files(tmp_path / "r")["history.csv"] != files(whole)["history.csv"]


def test_other_settings_are_refused_before_training(whole: Path) -> None:
    changed = {**SETTINGS, "epochs": 3, "space": Bats(cells=1, channels=8, nodes=1)}
    with pytest.raises(InputError, match=r"epochs was 2, now 3; space.channels was 4, now 8"):
        larq_nas.search(*_full(), directory=whole, verbose=0, **changed)
    with pytest.raises(InputError, match=r"other training images, .*data.train_examples was 192"):
        larq_nas.search(_full()[0].take(3), _full()[1], directory=whole, verbose=0, **SETTINGS)


@pytest.mark.slow
def test_without_training_the_network_is_as_derived(tmp_path) -> None:
    settings = {**SETTINGS, "train_epochs": 0, "epochs": 1}
    model = larq_nas.search(*_full(), directory=tmp_path / "r", verbose=0, **settings)
    assert [row["stage"] for row in read_history(tmp_path / "r" / "history.csv")] == ["search"]
    assert model.optimizer is not None
    assert (tmp_path / "r" / "model.tflite").exists()


@pytest.mark.slow
def test_a_space_of_ones_own_goes_the_whole_way(tmp_path, capsys) -> None:
    sys.path.insert(0, str(EXAMPLES))
    import own_space

    own_space.main(str(tmp_path / "r"), epochs=2, train_epochs=4)
    printed = capsys.readouterr().out
    assert printed.count("binary layers run as LceBconv2d") == 1
    assert printed.count("\ncosts: ") == 1
    assert "Supernet: " in printed
    assert (tmp_path / "r" / "model.tflite").exists()
    # Beside the bars of the epochs, what is printed fits on a screen.
    end = printed[printed.index("\ncosts: ") :]
    assert len(end.splitlines()) <= 20
    architecture = larq_nas.Architecture.load(tmp_path / "r" / "architecture.json")
    assert architecture.space == "own_space"
    assert set(architecture.choices) == {"block0", "block1", "block2"}
    assert set(architecture.choices.values()) <= {"conv3", "conv5", "dilated3", "skip"}
    assert architecture.build((8, 8, 1), 10, space=own_space.own_space).count_params() > 0
    with pytest.raises(InputError, match="Unknown space `own_space`"):
        architecture.build((8, 8, 1), 10)


def test_functions_are_loaded_from_files_and_modules() -> None:
    function = load_object(f"{EXAMPLES / 'own_space.py'}:own_space", "space")
    assert function.__name__ == "own_space"
    for wrong in ("missing.py:f", "no.such.module:f", f"{EXAMPLES / 'own_space.py'}:other"):
        with pytest.raises(InputError, match="Cannot load space"):
            load_object(wrong, "space")
