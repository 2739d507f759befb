"""Test data: read and refused as validation data is, measured on once, at the end."""

import json
from pathlib import Path
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest
import tensorflow as tf
from test_cli import invoke

from larq_nas.data.datasets import load_test
from larq_nas.data.validation import check
from larq_nas.errors import InputError
from larq_nas.run_directory import read_settings
from larq_nas.spaces import Bats

SPACE = Bats(cells=1, channels=4, nodes=1)
SETTINGS: dict[str, Any] = {"space": SPACE, "epochs": 1, "train_epochs": 1, "verbose": 0}


def images(number: int, seed: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(seed).uniform(-1, 1, (number, 8, 8, 1)).astype("float32")
    return drawn, np.arange(number) % classes


TRAIN, VALIDATION, TEST = images(48, 0), images(12, 1), images(9, 2)


def result(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "result.json").read_text())
    return found


def test_it_is_measured_at_the_end_whenever_it_is_given(tmp_path: Path) -> None:
    """Given from the start or later, by a search or a training, in each form of labels."""
    first = larq_nas.search(
        TRAIN, VALIDATION, directory=tmp_path / "a", return_result=True, **SETTINGS
    )
    assert first.test_accuracy is None
    assert "test_accuracy" not in result(tmp_path / "a")
    later = larq_nas.search(
        TRAIN, VALIDATION, test=TEST, directory=tmp_path / "a", return_result=True, **SETTINGS
    )
    network = later.model
    expected = float(np.mean(network.predict(TEST[0], verbose=0).argmax(1) == TEST[1]))
    assert later.test_accuracy == pytest.approx(expected)
    assert result(tmp_path / "a")["test_accuracy"] == later.test_accuracy
    assert result(tmp_path / "a")["accuracy"] == later.accuracy == first.accuracy
    assert "test accuracy" in str(later)
    assert "accuracy on test data" in (tmp_path / "a" / "report.html").read_text()
    assert read_settings(tmp_path / "a")["test"]["examples"] == 9
    vectors = np.eye(3, dtype="float32")[TEST[1]]
    trained = larq_nas.train(
        tmp_path / "a",
        TRAIN,
        VALIDATION,
        space=SPACE,
        test=(TEST[0], vectors),
        epochs=1,
        metrics=[tf.keras.metrics.SparseTopKCategoricalAccuracy(k=2)],
        preprocessing=tf.keras.layers.Rescaling(1.0),
        directory=tmp_path / "b",
        return_result=True,
        verbose=0,
    )
    assert trained.test_accuracy == pytest.approx(
        np.mean(trained.model.predict(TEST[0], verbose=0).argmax(1) == TEST[1])
    )
    assert list(trained.test_metrics) == ["sparse_top_k_categorical_accuracy"]
    assert trained.test_metrics["sparse_top_k_categorical_accuracy"] >= trained.test_accuracy
    assert larq_nas.load(tmp_path / "b").test_loss == trained.test_loss
    with pytest.raises(InputError, match=r"other settings \(other test images or labels, or none"):
        larq_nas.search(TRAIN, VALIDATION, test=images(9, 3), directory=tmp_path / "a", **SETTINGS)


def test_a_share_is_held_out_before_that_of_the_validation() -> None:
    data = images(90, 4)
    found = check(data, 0.2, test=0.1)
    assert found.test is not None
    parts = {"train": found.train, "validation": found.validation, "test": found.test.batches}
    held = {
        name: {image.tobytes() for batch, *_ in part for image in batch.numpy()}
        for name, part in parts.items()
    }
    assert [len(part) for part in held.values()] == [66, 15, 9]
    assert set.union(*held.values()) == {image.tobytes() for image in data[0]}
    alone = check(data, 0.2)
    assert alone.facts.validation_examples == 18


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (0, "`test` must be data, or a share between 0 and 1"),
        (1.0, "`test` must be data, or a share between 0 and 1"),
        ("digits", "`test` must be a tf.data.Dataset .* or a share of `train`"),
        ((TEST[0][:, :4], TEST[1]), r"`test` must hold images of the shape of those of `valid"),
        ((TEST[0], TEST[1] + 5), "Labels of `test` must be those of `train`, 0 to 2"),
        ((TEST[0], TEST[1].astype(str)), "`train` and `test` must have labels of one type"),
        ((TEST[0] * np.nan, TEST[1]), "`test` must hold finite images"),
        ((TEST[0], np.eye(5)[TEST[1]]), "must be 5 classes|`test` must tell as many"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    test: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        larq_nas.search(TRAIN, VALIDATION, test=test, directory=tmp_path / "run", **SETTINGS)
    assert not (tmp_path / "run").exists()


def test_images_that_others_have_too_are_told() -> None:
    both = tuple(map(np.concatenate, zip(VALIDATION, TRAIN, strict=True)))
    with pytest.warns(UserWarning, match="`test` are in") as told:
        check(TRAIN, VALIDATION, test=tuple(part[:15] for part in both))
    texts = " ".join(str(one.message) for one in told)
    assert "3 of 15 images of `test` are in `train` too" in texts
    assert "12 of 15 images of `test` are in `validation` too" in texts


def test_a_command_takes_a_share_or_a_source_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "space.json"
    larq_nas.Architecture.random(SPACE, (8, 8, 1), 10, 0).save(path)
    options = ("--batch-size", "300", "--epochs", "0", "--json", "--directory", str(tmp_path / "a"))
    told = invoke("train", str(path), "--test", "0.1", *options)
    assert told.exit_code == 0, (told.output, told.exception)
    assert 0 <= json.loads(told.stdout)["test_accuracy"] <= 1
    assert read_settings(tmp_path / "a")["test"]["examples"] == pytest.approx(144, abs=9)
    refused = invoke("train", str(path), "--test", "photos", *options)
    assert "`--test` of digits must be a share of its training images" in refused.output


def test_test_data_of_files_is_all_that_they_hold(tmp_path: Path) -> None:
    pixels, labels = np.arange(3 * 64, dtype="uint8").reshape(3, 8, 8, 1), np.array([0, 1, 1])
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        file = tmp_path / "photos" / f"class{label}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(tf.io.encode_png(image).numpy())
    np.savez(tmp_path / "photos.npz", images=pixels, labels=labels)
    (tmp_path / "own.py").write_text(
        "import numpy as np\n"
        f"def part():\n    file = np.load({str(tmp_path / 'photos.npz')!r})\n"
        "    return file['images'], file['labels']\n"
    )
    for given in ("photos", "photos.npz", "own.py:part"):
        data = load_test(str(tmp_path / given), str(tmp_path / given))
        found, classes = next(iter(data))
        np.testing.assert_allclose(found, pixels / 127.5 - 1, atol=1e-6)
        np.testing.assert_array_equal(classes, labels)
    np.savez(tmp_path / "odd.npz", images=pixels * 3.0, labels=labels)
    with pytest.raises(InputError, match="must hold bytes, or images from 0 to 1 or -1 to 1"):
        load_test(str(tmp_path / "odd.npz"), str(tmp_path / "photos"))
    with pytest.raises(InputError, match=r"`test` must be a folder, an \.npz file or FILE"):
        load_test("cifar10", str(tmp_path / "photos"))
