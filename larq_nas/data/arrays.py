"""Images in arrays: those of an `.npz` file, or of a function of the user's own."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.data.forms import check_ranks, read_arrays
from larq_nas.data.labels import column, kind_of
from larq_nas.data.share import hash_images, hold_out
from larq_nas.data.validation import check_batch, check_images
from larq_nas.errors import InputError, first_line, warn

_IMAGES = ("x", "images", "image", "data")
_LABELS = ("y", "labels", "label", "targets", "target")
_WEIGHTS = ("sample_weight", "sample_weights", "weights", "weight", "w")
_TRAIN = ("train", "training")
_VALIDATION = ("val", "valid", "validation", "test", "testing")
_CLASS_NAMES = "class_names"


def read_npz(path: Path) -> tuple[list[tuple[Any, ...]], list[str] | None]:
    """Return images and labels to train on, those to validate on if any, and names of classes.

    # Arguments
        path: a file with `x_train`, `y_train`, `x_test` and `y_test`, as Keras's are, or with
            `images` and `labels`; and perhaps `w_train`, `w_test` or `sample_weight`.

    # Raises
        InputError: if the file cannot be read, or does not hold such arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        # NumPy's advice is to load pickled objects, which may run anything.
        pickled = "objects, which only pickle could read: save numbers"
        cause = pickled if "pickle" in str(error) else first_line(error)
        raise InputError(f"Cannot read `{path}` as .npz: {cause}.") from None
    pairs = []
    for parts in (_TRAIN, _VALIDATION, ()):
        found = [_find(arrays, words, parts) for words in (_IMAGES, _LABELS, _WEIGHTS)]
        images, labels, weights = found
        # Weights of something else, as of classes, are not read, which is told.
        if not (images and weights) or arrays[weights].shape[:1] != arrays[images].shape[:1]:
            found.pop()
        pairs.append(None if images is None or labels is None else found)
    train, validation = pairs[0] or pairs[2], pairs[1] if pairs[0] else None
    if train is None:
        raise InputError(
            f"`{path}` must hold `x_train`, `y_train`, `x_test` and `y_test`, or `images` and "
            f"`labels`, but holds {', '.join(f'`{name}`' for name in arrays) or 'nothing'}."
        )
    read = [*train, *(validation or ()), _CLASS_NAMES]
    unread = [f"`{name}`" for name in arrays if name not in read]
    if unread:
        warn(f"Of `{path}`, {', '.join(map(str, read[:-1]))} are read, not {', '.join(unread)}.")
    named = [tuple(arrays[name] for name in pair) for pair in (train, validation) if pair]
    return named, _texts(arrays[_CLASS_NAMES]) if _CLASS_NAMES in arrays else None


def _texts(values: np.ndarray) -> list[str]:
    return [
        value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        for value in values.ravel().tolist()
    ]


def _find(arrays: Mapping[str, Any], words: Sequence[str], parts: Sequence[str]) -> Any:
    """Return the name of an array that is named by one of `words`, and one of `parts` if any."""
    names = [
        name for word in words for part in parts for name in (f"{word}_{part}", f"{part}_{word}")
    ]
    lower = {name.lower(): name for name in arrays}
    return next((lower[name] for name in (names if parts else words) if name in lower), None)


def parts_of(name: str, result: Any) -> list[tuple[Any, ...]]:
    """Return arrays that a function returned: those to train on, and perhaps those to validate on.

    # Raises
        InputError: if it returned no arrays.
    """
    parts = tuple(result) if isinstance(result, tuple | list) else ()
    pairs = all(isinstance(part, tuple | list) and len(part) in (2, 3) for part in parts)
    is_wrong = len(parts) not in ((2,) if pairs else (2, 3))
    if is_wrong or any(isinstance(part, tf.data.Dataset) for part in parts):
        kinds = ", ".join(type(part).__name__ for part in parts[:4])
        raise InputError(
            f"`{name}` must return two data sets, (images, labels), or two pairs of these, but "
            f"returned {type(result).__name__}{f' of {kinds}' if kinds else ''}."
        )
    return list(map(tuple, parts)) if pairs else [parts]


def split_arrays(
    source: str,
    given: Sequence[Any],
    class_names: Sequence[str] | None,
    share: float | None,
    seed: int,
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...], Sequence[str] | None]:
    """Return arrays to train on and to validate on, in a fixed random order, and names of classes.

    # Arguments
        source: what the arrays are of, for errors.
        given: one part, of which a share is held out, or two.
        class_names: names of the classes, if known; by default labels that are texts.
        share: that share of each class; by default 0.2.
        seed: seed of the share, and of the order of images.

    # Raises
        InputError: if an array cannot be used, in the words of `larq_nas.search`.
    """
    if len(given) == 2 and share is not None:
        raise InputError(
            f"`validation_share` is for images of one part, but `{source}` has a part to validate "
            "on: leave it out."
        )
    parts = [_read(*named) for named in zip(("train", "validation"), given, strict=False)]
    images, labels, *_ = parts[0]
    if class_names is None and labels.dtype.kind == "S":
        class_names = _texts(np.unique(labels))
    generator = np.random.default_rng(seed)
    if len(parts) == 2:
        orders = [generator.permutation(len(labels)), np.arange(len(parts[1][1]))]
    else:
        _, first, copy = np.unique(hash_images(images), return_index=True, return_inverse=True)
        validates = hold_out(labels, first[copy], 0.2 if share is None else share, generator)
        orders = [generator.permutation(np.flatnonzero(side)) for side in (~validates, validates)]
        parts *= 2
    train, validation = (
        tuple(array[order] for array in part) for part, order in zip(parts, orders, strict=True)
    )
    return train, validation, class_names


def _read(name: str, given: Any) -> list[np.ndarray]:
    """Return arrays that can be used, images with channels and of bytes or float32."""
    images, *rest = map(column, read_arrays(name, given))
    check_images(name, images)  # as given, for a cast makes infinite what float32 does not hold
    if images.dtype.kind in "buif" and images.dtype not in ("uint8", "float32"):
        images = images.astype("float32")
    # Later images are in another order, and no longer as given.
    check_ranks(name, *(tf.TensorSpec((None, *a.shape[1:]), a.dtype) for a in (images, *rest)))
    check_batch(name, images, rest)
    kind_of(name, rest[0])
    return [images if images.ndim == 4 else images[..., None], *rest]


def ends_of(images: np.ndarray) -> tuple[float, float]:
    """Return between which numbers images lie, those that become -1 and 1.

    Bytes lie from 0 to 255, if they use more than half of that; other numbers from -1 to 1 or 0 to
    1, if they do so, or else between the least and the greatest of them.
    """
    low, high = float(images.min()), float(images.max())
    if images.dtype == "uint8" and high > 127:
        return 0.0, 255.0
    if low == high or (low >= -1 and high <= 1):
        return (-1.0 if low < 0 or low == high else 0.0), 1.0
    return low, high
