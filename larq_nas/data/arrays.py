"""Images in arrays: those of an `.npz` file, or of a function of the user's own."""

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from larq_nas.data.folders import hold_out
from larq_nas.errors import InputError, first_line, warn

_IMAGES = ("x", "images", "image", "data")
_LABELS = ("y", "labels", "label", "targets", "target")
_TRAIN = ("train", "training")
_VALIDATION = ("val", "valid", "validation", "test", "testing")
_CLASS_NAMES = "class_names"


@dataclass(frozen=True)
class Arrays:
    """Images of shape `(number, height, width, channels)`, and a label for each."""

    images: np.ndarray
    labels: np.ndarray


def read_npz(
    path: Path, share: float | None = None, seed: int = 0
) -> tuple[Arrays, Arrays, list[str] | None]:
    """Return images to train on, images to validate on, and the names of classes if known.

    # Arguments
        path: a file with `x_train`, `y_train`, `x_test` and `y_test`, as Keras's are, or with
            `images` and `labels`, of which a share is held out.
        share: that share of each class; by default 0.2.
        seed: seed of the share, and of the order of images.

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
        found = [_find(arrays, words, parts) for words in (_IMAGES, _LABELS)]
        pairs.append(None if None in found else found)
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
    names = arrays.get(_CLASS_NAMES)
    return read_arrays(
        f"`{path}`",
        tuple(arrays[name] for name in train),
        tuple(arrays[name] for name in validation) if validation else None,
        share,
        seed,
        None if names is None else [str(name) for name in names],
    )


def _find(arrays: Mapping[str, Any], words: Sequence[str], parts: Sequence[str]) -> Any:
    """Return the name of an array that is named by one of `words`, and one of `parts` if any."""
    names = [
        name for word in words for part in parts for name in (f"{word}_{part}", f"{part}_{word}")
    ]
    lower = {name.lower(): name for name in arrays}
    return next((lower[name] for name in (names if parts else words) if name in lower), None)


def read_arrays(
    source: str,
    train: Any,
    validation: Any = None,
    share: float | None = None,
    seed: int = 0,
    class_names: list[str] | None = None,
) -> tuple[Arrays, Arrays, list[str] | None]:
    """Return the images and labels of one pair of arrays, or of two, in a fixed random order.

    # Arguments
        source: what the arrays are of, for errors.
        train: a pair of images and labels.
        validation: another; by default a share of `train`.
        share: that share of each class; by default 0.2.
        seed: seed of the share, and of the order of images.
        class_names: names of the classes; by default labels that are texts.
    """
    if validation is not None and share is not None:
        raise InputError(
            f"`validation_share` is for images of one part, but {source} has a part to validate "
            "on: leave it out."
        )
    given = [_checked(source, pair) for pair in (train, validation) if pair is not None]
    if given[0].labels.dtype.kind in "US":
        class_names = class_names or np.unique(given[0].labels).tolist()
        given = [Arrays(pair.images, _numbered(source, pair, class_names)) for pair in given]
    _check_names(source, given[0].labels, class_names)
    generator = np.random.default_rng(seed)
    if len(given) == 2:
        order = generator.permutation(len(given[0].labels))
        return _chosen(given[0], order), given[1], class_names
    (whole,) = given
    validates = _hold_out(whole, 0.2 if share is None else share, class_names, generator)
    parts = [
        _chosen(whole, generator.permutation(np.flatnonzero(chosen)))
        for chosen in (~validates, validates)
    ]
    return parts[0], parts[1], class_names


def _check_names(source: str, labels: np.ndarray, names: Sequence[str] | None) -> None:
    if names is not None and labels.ndim == 1 and labels.max() >= len(names):
        raise InputError(
            f"`class_names` of {source} must hold a name for each class, numbered from 0, but has "
            f"{len(names)} for labels from {labels.min()} to {labels.max()}."
        )


def _chosen(arrays: Arrays, order: np.ndarray) -> Arrays:
    return Arrays(arrays.images[order], arrays.labels[order])


def _checked(source: str, pair: Any) -> Arrays:
    """Return images with channels, and labels; or raise `InputError`."""
    try:
        images, labels = (np.asarray(part) for part in pair)
    except (TypeError, ValueError) as error:
        raise InputError(f"{source} must give (images, labels): {first_line(error)}.") from None
    if images.dtype.kind not in "buif" or labels.dtype.kind not in "buifUS":
        raise InputError(
            f"{source} must hold images of numbers and labels of numbers or texts, but has "
            f"{images.dtype} and {labels.dtype}."
        )
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape:
        raise InputError(
            f"Images of {source} must be of shape (number, height, width) or (number, height, "
            f"width, channels), but are {images.shape}."
        )
    _, first, second, last = images.shape
    if first in (1, 3) and second == last and last > 4:
        raise InputError(
            f"Images of {source} must have their channels last, but are of shape {images.shape}: "
            "turn them with images.transpose(0, 2, 3, 1)."
        )
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "replace")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape[:1] != images.shape[:1]:
        raise InputError(
            f"{source} must hold a label for each image, but has {len(images):,} images and labels "
            f"of shape {labels.shape}."
        )
    if not np.isfinite(images).all():
        raise InputError(f"Images of {source} hold NaN or infinite numbers: replace them.")
    if images.dtype not in ("uint8", "float32"):
        images = images.astype("float32")
    return Arrays(images, labels.astype("int32") if labels.dtype.kind in "bui" else labels)


def _numbered(source: str, pair: Arrays, class_names: Sequence[str]) -> np.ndarray:
    """Return numbers for labels that are texts."""
    numbers = {name: number for number, name in enumerate(class_names)}
    texts = [str(label) for label in pair.labels]
    unknown = [text for text in texts if text not in numbers]
    if unknown:
        raise InputError(
            f"Label `{unknown[0]}` of {source} is none of the classes to train on: "
            f"{', '.join(class_names)}."
        )
    return np.array([numbers[text] for text in texts], "int32")


def _hold_out(
    whole: Arrays, share: float, names: Sequence[str] | None, generator: np.random.Generator
) -> np.ndarray:
    labels = whole.labels
    if labels.ndim == 2 and np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all():
        labels = labels.argmax(1)
    if labels.ndim != 1 or (labels != labels.astype(int)).any():
        labels = np.zeros(len(labels), int)  # of no single class
    kinds, numbers = np.unique(labels.astype(int), return_inverse=True)
    known = dict(enumerate(names or ()))
    named = [known.get(int(kind), f"{kind}") for kind in kinds]
    first: dict[bytes, int] = {}
    digests = (hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in whole.images)
    copies = np.array([first.setdefault(digest, i) for i, digest in enumerate(digests)])
    return hold_out(named, numbers, copies, share, generator)


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
