"""Looks at every example once, so that bad data is refused before training."""

import hashlib
import warnings
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from larq_nas.errors import InputError, require_whole

__all__ = ["DataFacts", "check_data"]


@dataclass(frozen=True)
class DataFacts:
    """What a pair of data sets holds.

    # Arguments
        input_shape: `(height, width, channels)` of the images, in pixels.
        classes: number of classes.
        batch_size: images in a training batch.
        train_examples: number of training images.
        validation_examples: number of validation images.
        digest: stands for the number of images of each class in both.
    """

    input_shape: tuple[int, int, int]
    classes: int
    batch_size: int
    train_examples: int
    validation_examples: int
    digest: str


def check_data(
    train: tf.data.Dataset, validation: tf.data.Dataset, classes: int | None = None
) -> DataFacts:
    """Return the facts of two data sets, or raise `InputError` if they cannot be used.

    # Arguments
        train: batches of `(images, labels)`.
        validation: batches of `(images, labels)`.
        classes: number of classes; by default one more than the largest training label.
    """
    require_whole(classes=classes)
    shape = _check_form("train", train)
    other = _check_form("validation", validation)
    if shape != other:
        raise InputError(
            f"`validation` must hold images of the shape of `train`, {shape}, but got {other}."
        )
    batch_size, counts = _scan("train", train, classes)
    if classes is None:
        classes = len(counts)
    if classes < 2:
        raise InputError(f"`train` must hold 2 classes or more, but got {classes}.")
    _, validation_counts = _scan("validation", validation, classes)
    if counts.sum() < 2:
        raise InputError("`train` must hold 2 images or more: its halves train different things.")
    _warn_if_unsteady(train)
    padded = [np.pad(c, (0, classes - len(c))) for c in (counts, validation_counts)]
    return DataFacts(
        input_shape=shape,
        classes=classes,
        batch_size=batch_size,
        train_examples=int(counts.sum()),
        validation_examples=int(validation_counts.sum()),
        digest=hashlib.sha256(np.concatenate(padded).astype("<i8").tobytes()).hexdigest()[:16],
    )


def _check_form(name: str, data: tf.data.Dataset) -> tuple[int, int, int]:
    if not isinstance(data, tf.data.Dataset):
        raise InputError(f"`{name}` must be a tf.data.Dataset, but got {type(data).__name__}.")
    spec = data.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2 or not _are_tensors(spec):
        raise InputError(f"`{name}` must hold (image, label) pairs, but has no labels: {spec}.")
    images, labels = spec
    if images.shape.rank == 3:
        raise InputError(f"`{name}` must be batched: add .batch(64), it holds single images.")
    if images.shape.rank != 4 or None in images.shape[1:]:
        raise InputError(
            f"`{name}` must hold images of static shape (batch, height, width, channels), but "
            f"got {images.shape}: resize them, or add .map with tf.ensure_shape."
        )
    if not (images.dtype.is_floating or images.dtype.is_integer):
        raise InputError(f"`{name}` must hold images of numbers, but got {images.dtype.name}.")
    if labels.shape.rank != 1 or not labels.dtype.is_integer:
        raise InputError(
            f"`{name}` must hold one whole-number label per image, shape (batch,), but got "
            f"{labels.dtype.name} {labels.shape}: turn one-hot labels with tf.argmax(labels, -1)."
        )
    _check_length(name, data)
    height, width, channels = images.shape[1:]
    return height, width, channels


def _are_tensors(spec: tuple[object, object]) -> bool:
    return all(isinstance(part, tf.TensorSpec) and part.shape.rank is not None for part in spec)


def _check_length(name: str, data: tf.data.Dataset) -> None:
    cardinality = int(data.cardinality())
    if cardinality == tf.data.UNKNOWN_CARDINALITY:
        raise InputError(
            f"`{name}` must know its number of batches: add "
            ".apply(tf.data.experimental.assert_cardinality(batches))."
        )
    if cardinality == tf.data.INFINITE_CARDINALITY:
        raise InputError(f"`{name}` must end: remove .repeat(), or add .take(batches).")
    if cardinality == 0:
        raise InputError(f"`{name}` must hold images, but it is empty.")


def _scan(name: str, data: tf.data.Dataset, classes: int | None) -> tuple[int, np.ndarray]:
    batch_size, seen = 0, 0
    counts = np.zeros(classes or 0, dtype=np.int64)
    for images, labels in data.as_numpy_iterator():
        _check_values(name, images, labels, classes, seen)
        batch_size = max(batch_size, len(labels))
        seen += len(labels)
        found = np.bincount(labels)
        size = max(len(counts), len(found))
        counts = np.pad(counts, (0, size - len(counts))) + np.pad(found, (0, size - len(found)))
    return batch_size, counts


def _check_values(
    name: str, images: np.ndarray, labels: np.ndarray, classes: int | None, seen: int
) -> None:
    finite = np.isfinite(images).reshape(len(images), -1).all(axis=1)
    if not finite.all():
        index = seen + int(np.argmin(finite))
        raise InputError(f"`{name}` must hold finite images, but image {index} has NaN or Inf.")
    wrong = labels < 0
    if classes is not None:
        wrong |= labels >= classes
    if wrong.any():
        index = int(np.argmax(wrong))
        limit = f"0 to {classes - 1}" if classes else "0 and above"
        raise InputError(
            f"Labels of `{name}` must be {limit}, but image {seen + index} has {labels[index]}."
        )


def _warn_if_unsteady(train: tf.data.Dataset) -> None:
    (images, labels), (images2, labels2) = (next(iter(train)) for _ in range(2))
    if not np.array_equal(labels, labels2):
        warnings.warn(
            "`train` gives another order on each pass, so the halves for weights and "
            "architecture mix and a run cannot be repeated: leave out .shuffle(), larq_nas "
            "shuffles.",
            stacklevel=4,
        )
    elif not np.array_equal(images, images2):
        warnings.warn(
            "`train` gives other images on each pass, so a run cannot be repeated exactly: "
            "leave random changes to `augment`.",
            stacklevel=4,
        )
