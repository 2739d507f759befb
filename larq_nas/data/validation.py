"""Check every example once before training."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from larq_nas.errors import InputError, first_line, require_whole, warn

_MOST_CLASSES = 100_000
_COMPARED_BATCHES = 4


@dataclass(frozen=True)
class DataFacts:
    """What a pair of data sets holds.

    `content_and_order` stands for the training images and labels, or for the number of images of
    each class where images change from pass to pass; `value_range` is that of the training images,
    and `train_shape` their shape before `augment` crops them, if it does.
    """

    input_shape: tuple[int, int, int]
    classes: int
    batch_size: int
    train_examples: int
    validation_examples: int
    content_and_order: str
    value_range: tuple[float, float] = (0.0, 1.0)
    train_shape: tuple[int, int, int] | None = None


def check_data(
    train: tf.data.Dataset,
    validation: tf.data.Dataset,
    classes: int | None = None,
    crops: bool = False,
) -> DataFacts:
    """Return the facts of two data sets, or raise `InputError` if they cannot be used.

    There is one class more than the largest training label, if `classes` does not say; `crops`
    tells whether something changes the shape of training images.
    """
    if classes is not None:
        require_whole(classes=classes)
    given, shape = _check_form("train", train), _check_form("validation", validation)
    if given != shape and not crops:
        raise InputError(
            f"`validation` must hold images of the shape of `train`, {given}, but got {shape}: "
            "resize them, or give an `augment` that crops those of `train`."
        )
    scanned = _scan("train", train, classes)
    if classes is None:
        classes = len(scanned.counts)
        if not scanned.counts.all():
            raise InputError(
                f"Labels of `train` go up to {classes - 1}, but none is "
                f"{int(np.argmin(scanned.counts))}: say how many classes there are with `classes`."
            )
    if classes < 2:
        raise InputError(f"`train` must hold 2 classes or more, but got {classes}.")
    scanned_validation = _scan("validation", validation, classes)
    if scanned.counts.sum() < 2:
        raise InputError("`train` must hold 2 images or more: its halves train different things.")
    content = scanned.content
    if not _warn_if_unsteady(train):
        # What changes from pass to pass can only be told by what it holds of each class.
        held = np.trim_zeros(scanned.counts, "b").astype("<i8").tobytes()
        content = hashlib.sha256(held).hexdigest()[:32]
    return DataFacts(
        input_shape=shape,
        classes=classes,
        batch_size=scanned.batch_size,
        train_examples=int(scanned.counts.sum()),
        validation_examples=int(scanned_validation.counts.sum()),
        content_and_order=content,
        value_range=scanned.value_range,
        train_shape=None if given == shape else given,
    )


@dataclass(frozen=True)
class _Scan:
    batch_size: int
    counts: np.ndarray
    content: str
    value_range: tuple[float, float]


def _check_form(name: str, data: tf.data.Dataset) -> tuple[int, int, int]:
    if not isinstance(data, tf.data.Dataset):
        raise InputError(f"`{name}` must be a tf.data.Dataset, but got {type(data).__name__}.")
    spec = data.element_spec
    if isinstance(spec, tuple) and len(spec) == 3:
        raise InputError(f"`{name}` must hold (image, label) pairs, without a third part.")
    if not isinstance(spec, tuple) or len(spec) != 2 or not _are_tensors(spec):
        raise InputError(f"`{name}` must hold (image, label) pairs, but has no labels: {spec}.")
    images, labels = spec
    if images.shape.rank == 3 and labels.shape.rank == 1:
        raise InputError(
            f"`{name}` must hold images with a channel axis, but got {images.shape}: add "
            ".map(lambda image, label: (image[..., None], label))."
        )
    if images.shape.rank == 3:
        raise InputError(f"`{name}` must be batched: add .batch(64), it holds single images.")
    if images.shape.rank != 4 or None in images.shape[1:]:
        raise InputError(
            f"`{name}` must hold images of static shape (batch, height, width, channels), but "
            f"got {images.shape}: resize them, or add .map with tf.ensure_shape."
        )
    # NumPy, which reads the examples, has no bfloat16.
    if not (images.dtype.is_floating or images.dtype.is_integer) or images.dtype == tf.bfloat16:
        raise InputError(
            f"`{name}` must hold images of whole or real numbers, but got "
            f"{images.dtype.name}: turn them with tf.cast(images, tf.float32)."
        )
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


def _scan(name: str, data: tf.data.Dataset, classes: int | None) -> _Scan:
    batch_size, seen, lowest, highest = 0, 0, math.inf, -math.inf
    counts = np.zeros(classes or 0, dtype=np.int64)
    digests = hashlib.sha256(), hashlib.sha256()
    for images, labels in _batches(name, data):
        _check_values(name, images, labels, classes, seen)
        batch_size = max(batch_size, len(labels))
        seen += len(labels)
        lowest, highest = min(lowest, float(images.min())), max(highest, float(images.max()))
        found = np.bincount(labels.astype(np.int64))
        size = max(len(counts), len(found))
        counts = np.pad(counts, (0, size - len(counts))) + np.pad(found, (0, size - len(found)))
        for digest, part in zip(digests, (images, labels.astype("<i8")), strict=True):
            digest.update(np.ascontiguousarray(part).data)
    content = digests[0].hexdigest()[:16] + digests[1].hexdigest()[:16]
    return _Scan(batch_size, counts, content, (lowest, highest))


def _batches(name: str, data: tf.data.Dataset) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    try:
        yield from data.as_numpy_iterator()
    except tf.errors.OpError as error:
        raise InputError(f"`{name}` cannot be read: {first_line(error)}.") from error


def _check_values(
    name: str, images: np.ndarray, labels: np.ndarray, classes: int | None, seen: int
) -> None:
    finite = np.isfinite(images).reshape(len(images), -1).all(axis=1)
    if not finite.all():
        index = seen + int(np.argmin(finite))
        raise InputError(f"`{name}` must hold finite images, but image {index} has NaN or Inf.")
    limit = classes or _MOST_CLASSES
    wrong = (labels < 0) | (labels >= limit)
    if wrong.any():
        index = int(np.argmax(wrong))
        raise InputError(
            f"Labels of `{name}` must be 0 to {limit - 1}, but image {seen + index} has "
            f"{labels[index]}."
        )


def _warn_if_unsteady(train: tf.data.Dataset) -> bool:
    """Return whether two passes give the same first batches, and say so if not."""
    passes = [list(train.take(_COMPARED_BATCHES).as_numpy_iterator()) for _ in range(2)]
    same_images, same_labels = (
        all(np.array_equal(one[part], other[part]) for one, other in zip(*passes, strict=True))
        for part in (0, 1)
    )
    if not same_labels:
        warn(
            "`train` gives another order on each pass, so the halves for weights and "
            "architecture mix and a run cannot be repeated: leave out .shuffle(), larq_nas "
            "shuffles."
        )
        return False
    if not same_images:
        warn(
            "`train` gives other images on each pass, so a run cannot be repeated exactly: "
            "leave random changes to `augment`."
        )
        return False
    return True
