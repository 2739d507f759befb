import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

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


def test_a_batch_of_more_images_than_there_are_is_told(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1)).astype(np.uint8)
    np.savez(tmp_path / "few.npz", images=images, labels=np.arange(40) % 4)
    with pytest.warns(UserWarning, match="`batch_size` is 500, but there are 32 training images"):
        larq_nas.datasets.load(tmp_path / "few.npz", 500)
    with pytest.warns(UserWarning, match="`batch_size` is 2,000, but there are 1,437 training"):
        larq_nas.datasets.load("digits", 2000)


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


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """A data set as tensorflow-datasets lays one out: 12 PNG images of 3 classes."""
    tfds = pytest.importorskip("tensorflow_datasets")
    generator = np.random.default_rng(0)

    def examples(count: int) -> tf.data.Dataset:
        images = generator.integers(0, 256, (count, 10, 8, 3), "uint8")
        return tf.data.Dataset.from_tensor_slices({"image": images, "label": np.arange(count) % 3})

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(10, 8, 3)),
            "label": tfds.features.ClassLabel(num_classes=4),
        }
    )
    tfds.dataset_builders.store_as_tfds_dataset(
        name="tiny",
        version="1.0.0",
        features=features,
        split_datasets={"train": examples(12), "test": examples(6)},
        data_dir=str(tmp_path),
        disable_shuffling=True,
    )
    return str(tmp_path)


def test_any_name_of_tensorflow_datasets(tiny: str) -> None:
    train, test = larq_nas.datasets.load("tiny", 5, data_dir=tiny)
    images, labels = next(iter(train))
    assert images.shape == (5, 10, 8, 3)
    assert images.dtype == "float32"
    assert (int(train.cardinality()), int(test.cardinality())) == (3, 2)
    assert list(labels) == [0, 1, 2, 0, 1]
    assert train.class_names == ["0", "1", "2", "3"]
    resized, _ = larq_nas.datasets.load("tiny", 5, data_dir=tiny, image_size=6)
    assert next(iter(resized))[0].shape == (5, 6, 6, 3)
    with pytest.raises(InputError, match="has no split `trian`"):
        larq_nas.datasets.load("tiny", data_dir=tiny, train_split="trian")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("cifar_pngs", "There is no folder or file `cifar_pngs`; did you mean `cifar_png`?"),
        ("my/photo", "There is no folder or file `my/photo`; did you mean `my/photos`?"),
        ("./my/photo", "There is no folder or file `./my/photo`; did you mean `my/photos`?"),
        ("my/sign.npz", "There is no folder or file `my/sign.npz`; did you mean `my/signs.npz`?"),
        ("bad/missing", "There is no folder or file `bad/missing`."),
        ("cifr10", "Unknown data set `cifr10`; did you mean `cifar10`? (There is no folder"),
        ("qwertz", "Unknown data set `qwertz`. (There is no folder"),
    ],
)
def test_misspelt_folders_are_no_data_sets(
    name: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("cifar_png", "my/photos"):
        Path(folder).mkdir(parents=True)
    Path("my/signs.npz").touch()
    with pytest.raises(InputError) as refused:
        larq_nas.datasets.load(name)
    assert str(refused.value).startswith(told)


def test_names_and_sizes_that_cannot_be_used_are_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="Unknown data set `digit`; did you mean `digits`"):
        larq_nas.datasets.load("digit")
    with pytest.raises(InputError, match="`batch_size` must be positive, but got 0"):
        larq_nas.datasets.load("digits", batch_size=0)
    with pytest.raises(InputError, match="`digits` has fixed splits"):
        larq_nas.datasets.load("digits", train_split="train[:10%]")
