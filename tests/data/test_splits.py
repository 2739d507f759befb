"""Splits of the training images: each class is on both sides, or what is not is refused or told."""

from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest

from larq_nas.data.data import Data
from larq_nas.data.validation import check
from larq_nas.errors import InputError
from larq_nas.searchers import Evolution
from larq_nas.spaces import VggSmall


def images(labels: Any, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    labels = np.asarray(labels)
    drawn = np.random.default_rng(seed).uniform(-1, 1, (len(labels), 8, 8, 1))
    return drawn.astype("float32"), labels


def data_of(given: Any, validation: Any) -> Data:
    found = check(given, validation)
    return Data(found.train, found.validation, found.facts, examples=found.examples)


def classes_of(part: Any) -> set[int]:
    return {int(label) for _, labels, *_ in part for label in labels}


def test_every_class_of_two_images_is_on_both_sides() -> None:
    given = images([0] * 40 + [1] * 2 + [2] * 3)
    found = check(given, 0.05)
    assert classes_of(found.train) == classes_of(found.validation) == {0, 1, 2}
    searched = data_of(given, images([0, 1, 2], 1)).to_search(0.05)
    assert classes_of(searched.train) == classes_of(searched.validation) == {0, 1, 2}


def test_a_class_of_one_image_is_trained_on_and_that_is_told() -> None:
    given = images([0] * 20 + [1] * 20 + [2])
    with pytest.warns(UserWarning, match="has no image of 1 of 3 classes, 2: `train` has one"):
        found = check(given, 0.2)
    assert classes_of(found.train) == {0, 1, 2}
    told: list[str] = []
    data_of(given, images([0, 1, 2], 1)).to_search(0.1, told.append)
    assert "of classes with one image, 1, none" in told[0]


def test_a_class_that_a_split_would_leave_out_is_refused() -> None:
    """All images of class 1 are copies of some of class 0, which can all be held out."""
    pixels, labels = images([0, 0, 0])
    pixels, labels = np.concatenate([pixels, pixels[1:]]), np.array([0, 0, 0, 1, 1])
    pixels, labels = (np.concatenate([part, part]) for part in (pixels, labels))
    refused = [_is_refused((pixels, labels), seed) for seed in range(8)]
    assert any(refused)


def _is_refused(given: Any, seed: int) -> bool:
    try:
        found = check(given, 0.6, seed=seed)
    except InputError as error:
        return "to train on: all of its images are copies" in str(error)
    assert classes_of(found.train) == {0, 1}
    return False


def test_a_subset_that_leaves_a_class_out_is_refused_before_anything_is_written(
    tmp_path: Any,
) -> None:
    given = images(np.arange(60) % 6)
    with pytest.raises(InputError, match="have 6, but got 5: give 6 or more"):
        larq_nas.search(
            given,
            images(np.arange(6), 1),
            VggSmall(ratios=(0.03125, 0.0625)),
            Evolution(population=2, subset=5),
            epochs=1,
            train_epochs=0,
            verbose=0,
            directory=tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()
