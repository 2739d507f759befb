import os
from pathlib import Path

import numpy as np
import pytest

import larq_nas
from larq_nas.errors import InputError

CIFAR10 = os.environ.get("TFDS_DATA_DIR")
needs_cifar10 = pytest.mark.skipif(
    CIFAR10 is None or not (Path(CIFAR10) / "cifar10").is_dir(),
    reason="needs CIFAR-10 in TFDS_DATA_DIR",
)


def test_digits_are_embedded_and_split_for_good() -> None:
    train, test = larq_nas.datasets.load("digits", batch_size=100)
    images, labels = (
        np.concatenate(parts) for parts in zip(*train.as_numpy_iterator(), strict=True)
    )
    held_out, held_out_labels = (
        np.concatenate(parts) for parts in zip(*test.as_numpy_iterator(), strict=True)
    )
    assert images.shape == (1437, 8, 8, 1)
    assert held_out.shape == (360, 8, 8, 1)
    assert (images.min(), images.max()) == (-1.0, 1.0)
    assert np.bincount(held_out_labels).min() >= 34
    assert set(labels) == set(range(10))
    again, _ = larq_nas.datasets.load("digits", batch_size=100)
    np.testing.assert_array_equal(next(iter(again))[0], images[:100])


@needs_cifar10
def test_cifar10_through_tensorflow_datasets() -> None:
    train, test = larq_nas.datasets.load(
        "cifar10", 64, data_dir=CIFAR10, train_split="train[:200]", validation_split="test[:100]"
    )
    images, labels = next(iter(train))
    assert images.shape == (64, 32, 32, 3)
    assert -1.0 <= float(np.min(images)) < -0.9 < 0.9 < float(np.max(images)) <= 1.0
    assert labels.dtype == "int64"
    assert (int(train.cardinality()), int(test.cardinality())) == (4, 2)
    np.testing.assert_array_equal(next(iter(train))[0], images)


@needs_cifar10
def test_images_are_resized() -> None:
    train, _ = larq_nas.datasets.load(
        "cifar10", 8, data_dir=CIFAR10, train_split="train[:8]", image_size=20
    )
    assert next(iter(train))[0].shape == (8, 20, 20, 3)


@needs_cifar10
def test_unknown_splits_are_refused() -> None:
    with pytest.raises(InputError, match="has no split `trian`"):
        larq_nas.datasets.load("cifar10", data_dir=CIFAR10, train_split="trian")


def test_names_and_sizes_that_cannot_be_used_are_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="Unknown data set `digit`; did you mean `digits`"):
        larq_nas.datasets.load("digit")
    with pytest.raises(InputError, match="`batch_size` must be positive, but got 0"):
        larq_nas.datasets.load("digits", batch_size=0)
    with pytest.raises(InputError, match="`digits` has fixed splits"):
        larq_nas.datasets.load("digits", train_split="train[:10%]")
