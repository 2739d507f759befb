"""Images of a user's own, from files to a verified flatbuffer."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import EXAMPLES
from sklearn.datasets import load_digits
from test_cli import invoke, larq_nas

from larq_nas.result import load
from larq_nas.spaces import Bats

SMALL = ["--set", "cells=1", "--set", "channels=4", "--set", "nodes=1"]
SHORT = ["--epochs", "1", "--train-epochs", "1"]


def write_digits(folder: Path, count: int) -> Path:
    """Write digits as PNG, a sub-folder for each class."""
    images, labels = load_digits(n_class=3, return_X_y=True)
    for number, (image, label) in enumerate(zip(images[:count], labels[:count], strict=True)):
        pixels = (image.reshape(8, 8, 1) * 255 / 16).astype("uint8")
        path = folder / ("zero", "one", "two")[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tf.io.encode_png(pixels).numpy())
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("own") / "digits", 150)


def test_one_command_from_a_folder_to_a_flatbuffer(digits: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = [*SMALL, *SHORT, "--batch-size", "60", "--directory", str(run)]
    options += ["--class-weight", "balanced", "--validation-share", "0.25"]
    told = larq_nas("search", "--data", str(digits), *options).stdout
    assert "12 operations agree one by one" in told
    assert f"written: {run / 'model.tflite'}" in told
    result = json.loads((run / "result.json").read_text())
    assert result["class_names"] == ["one", "two", "zero"]
    assert load(run).class_names == ["one", "two", "zero"]
    assert load(run).preprocessing == "gray of 0 to 255, x / 127.5 - 1"
    assert told.count("the first step builds the graph") == 1
    assert "accuracy of each class, lowest first: " in told
    settings = json.loads((run / "settings.json").read_text())["settings"]
    assert settings["data"]["validation_examples"] == 37
    assert len(settings["class_weight"]) == 3
    assert result["bytes"] == (run / "model.tflite").stat().st_size

    result["class_accuracy"] = {"one": 0.5, "two": None, "zero": 1.0}
    (run / "result.json").write_text(json.dumps(result))
    package = tmp_path / "package"
    packed = invoke("convert", str(run), "--package", str(package))
    assert packed.exit_code == 0, packed.output
    # As the search has told it.
    assert "same class on" in told
    assert "same class on" in packed.output
    card = (package / "README.md").read_text()
    assert "- Preprocessing: gray of 0 to 255, x / 127.5 - 1.\n" in card
    assert "0 one, 1 two, 2 zero" in card
    assert "| one | 50.00% |\n| two | no images |\n| zero | 100.00% |" in card
    for program in ("main.cc", "Network.java"):
        text = (package / program).read_text()
        assert '"two"' in text
        assert "gray of 0 to 255, x / 127.5 - 1" in text
    other = ["--class-names", "a,b,c", "--preprocessing", "mine"]
    assert invoke("convert", str(run), "--package", str(package), *other).exit_code == 0
    card = (package / "README.md").read_text()
    assert "0 a, 1 b, 2 c" in card
    assert "- Preprocessing: mine.\n" in card


@pytest.mark.slow
def test_five_lines_of_python_from_a_folder_to_a_package(digits: Path, tmp_path: Path) -> None:
    sys.path.insert(0, str(EXAMPLES))
    try:
        import own_images
    finally:
        sys.path.remove(str(EXAMPLES))
    own_images.main(
        str(digits),
        6,
        str(tmp_path / "run"),
        str(tmp_path / "package"),
        space=Bats(cells=1, channels=4, nodes=1),
        epochs=1,
        train_epochs=1,
        verbose=0,
    )
    card = (tmp_path / "package" / "README.md").read_text()
    assert "resized to 6x6 with antialiasing, x / 127.5 - 1" in card
    assert "0 one, 1 two, 2 zero" in card
    assert "Not measured" not in card


@pytest.mark.slow
@pytest.mark.skipif("TFDS_DATA_DIR" not in os.environ, reason="needs CIFAR-10 in TFDS_DATA_DIR")
@pytest.mark.parametrize("kind", ["folder", "npz", "function"])
def test_cifar10_as_a_users_own_data(kind: str, tmp_path: Path) -> None:
    tfds = pytest.importorskip("tensorflow_datasets")
    data = tfds.load("cifar10", split="train[:600]", as_supervised=True)
    images, labels = (np.stack(part) for part in zip(*data.as_numpy_iterator(), strict=True))
    if kind == "folder":
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = tmp_path / "data" / f"class {label}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tf.io.encode_png(image).numpy())
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    code = "import numpy\n\n\ndef pair():\n    with numpy.load('{}') as file:\n"
    code += "        return file['images'], file['labels']\n"
    (tmp_path / "own.py").write_text(code.format(tmp_path / "data.npz"))
    sources = {"folder": "data", "npz": "data.npz", "function": "own.py:pair"}
    run = tmp_path / "run"
    command = ["search", "--data", str(tmp_path / sources[kind]), "--directory", str(run)]
    result = invoke(*command, *SMALL, *SHORT)
    assert result.exit_code == 0, result.output
    assert "operations agree one by one" in result.output
    assert (run / "model.tflite").exists()
