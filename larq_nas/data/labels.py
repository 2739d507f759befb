"""Classes that labels stand for, whatever form they are given in."""

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import tensorflow as tf

from larq_nas.errors import InputError, require_known, require_positive, warn

_MOST_CLASSES = 100_000
_MOST_LISTED = 8
_SUM_TOLERANCE = 1e-3
_CUT = (
    "a part that is cut off data in the order of its classes holds whole classes alone, as "
    "image_dataset_from_directory(validation_split=..., shuffle=False) does: shuffle before it"
)


Form: TypeAlias = Literal["numbers", "vectors", "others"]


@dataclass(frozen=True)
class Labels:
    """Classes of a pair of data sets, numbered from 0.

    # Attributes
        classes: how many there are.
        values: what the data calls each of them, where that is not its number.
        names: what people call each of them, if known.
        soft: whether labels are probabilities of the classes.
        form: how the validation data gives them: as `"numbers"` from 0, as `"vectors"` with a
            number for each class, or as `"others"`.
    """

    classes: int
    values: tuple[Any, ...] | None = None
    names: tuple[str, ...] | None = None
    soft: bool = False
    form: Form = "numbers"

    def name(self, index: int) -> str:
        """Return what to call a class in a message."""
        return f"`{self.names[index]}`" if self.names else str(index)

    def indices(self, labels: np.ndarray) -> np.ndarray:
        """Return the class of each label; of probabilities the largest; -1 where there is none."""
        if labels.ndim == 2:
            return np.argmax(labels, axis=1)
        if self.values is None:
            # NumPy warns of floats that no integer holds.
            whole = np.clip(labels, -1, self.classes) if labels.dtype.kind == "f" else labels
            return whole.astype(np.int64)
        known = {value: index for index, value in enumerate(self.values)}
        found = [known.get(value, -1) for value in labels.tolist()]
        return np.array(found, dtype=np.int64)

    def numbered(self, labels: tf.Tensor) -> tf.Tensor:
        """Return labels as int32 `(batch,)`; soft ones as float32 `(batch, classes)`."""
        if labels.shape.rank == 2 and labels.shape[1] == 1:
            labels = tf.reshape(labels, (-1,))
        if self.soft:
            if labels.shape.rank == 2:
                return tf.cast(labels, tf.float32)
            return tf.one_hot(tf.cast(labels, tf.int32), self.classes)
        if labels.shape.rank == 2:
            return tf.argmax(tf.cast(labels, tf.float32), -1, tf.int32)
        if self.values is None:
            return tf.cast(labels, tf.int32)
        if labels.dtype == tf.string:
            return tf.argmax(tf.cast(labels[:, None] == self.values, tf.int32), -1, tf.int32)
        first, step = self.values[0], self.values[1] - self.values[0]
        return tf.cast((tf.cast(labels, tf.int64) - first) // step, tf.int32)


def whole_labels(labels: tf.Tensor) -> tf.Tensor:
    """Return the class of each label of a batch; of probabilities the largest."""
    return tf.argmax(labels, -1, tf.int32) if len(labels.shape) == 2 else labels


def column(labels: np.ndarray) -> np.ndarray:
    """Return labels of shape `(n, 1)` as `(n,)`, and others as they are."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def read_labels(
    train: np.ndarray,
    validation: np.ndarray | None,
    classes: int | None,
    names: Sequence[str] | None = None,
    measured: str = "validation",
) -> Labels:
    """Return the classes that all labels of the training and validation data stand for.

    # Arguments
        train, validation: labels as the data have them, shapes `(n,)` or `(n, width)`.
        classes: how many classes there are, if the user says so.
        names: names of the classes, if the data has any.
        measured: what the validation data is called.

    # Raises
        InputError: if they are no labels of classes, or not those of both.
    """
    given = {"train": train} if validation is None else {"train": train, measured: validation}
    kinds = {name: kind_of(name, array) for name, array in given.items()}
    if (kinds["train"] == "names") != (kinds.get(measured, kinds["train"]) == "names"):
        raise InputError(f"`train` and `{measured}` must have labels of one type: text or numbers.")
    if kinds["train"] == "names":
        return _of_names(train, classes, names)
    widths = {array.shape[1] for array in given.values() if array.ndim == 2}
    if len(widths) > 1:
        raise InputError(
            f"`train` and `{measured}` must tell as many classes, but their labels have "
            f"{' and '.join(str(array.shape[1]) for array in given.values())} numbers each."
        )
    known = classes
    for what, count in (
        ("labels have so many numbers", next(iter(widths), None)),
        ("data has so many names", len(names) if names else None),
    ):
        if count is not None and known not in (None, count):
            mend = "give a name for each class" if classes is None else "leave `classes` out"
            raise InputError(
                f"There must be {count} classes, as the {what}, but got {known}: {mend}, or change "
                "the labels."
            )
        known = known or count
    values = None
    if train.ndim == 1:
        values = _values("train", train, known)
        if known is None:
            known = len(values)
    elif validation is not None and validation.ndim == 1:
        values = _values(measured, validation, known)
    assert known is not None
    if values is not None and tuple(values) == tuple(range(known)):
        values = None
    if train.dtype == bool and train.ndim == 1 and names is None:
        names = ("False", "True")
    if names is None and values is not None:
        names = tuple(map(str, values))
    soft = "soft" in kinds.values()
    form: Form = "numbers" if values is None else "others"
    if kinds.get(measured, kinds["train"]) != "whole":
        form = "vectors"
    return Labels(known, values, tuple(names) if names else None, soft, form)


def kind_of(name: str, labels: np.ndarray) -> str:
    """Return what labels are: `names`, `whole`, `one_hot` or `soft`; refuse what is none."""
    if labels.dtype.kind in "SO":
        if labels.ndim > 1:
            raise InputError(f"`{name}` must hold one label for each image: several are text.")
        return "names"
    if labels.dtype.kind == "c":
        raise InputError(f"`{name}` must hold labels of classes, but got {labels.dtype.name}.")
    _require_finite_labels(name, labels)
    if labels.ndim == 1:
        whole = labels == np.floor(labels) if labels.dtype.kind == "f" else np.array([True])
        if not whole.all():
            index = int(np.argmin(whole))
            raise InputError(
                f"`{name}` must hold labels of classes, but image {index} has {labels[index]:g}: "
                "larq_nas classifies, and regression is not supported."
            )
        return "whole"
    sums = labels.sum(axis=1, dtype=np.float64)
    binary = ((labels == 0) | (labels == 1)).all()
    if binary and (sums == 1).all():
        return "one_hot"
    if binary:
        index = int(np.argmax(sums != 1))
        raise InputError(
            f"`{name}` must hold one class for each image, but image {index} has {int(sums[index])}"
            ": multi-label is not supported."
        )
    tolerance = 1e-2 if labels.dtype == np.float16 else _SUM_TOLERANCE
    wrong = (labels < 0).any(axis=1) | (np.abs(sums - 1) > tolerance)
    if wrong.any():
        index = int(np.argmax(wrong))
        raise InputError(
            f"`{name}` must hold labels of classes: one whole number, one-hot, or probabilities "
            f"that sum to 1; but image {index} has {labels.shape[1]} numbers that sum to "
            f"{sums[index]:g} (regression and several outputs are not supported)."
        )
    return "soft"


def _require_finite_labels(name: str, labels: np.ndarray) -> None:
    finite = np.isfinite(labels).reshape(len(labels), -1).all(axis=1)
    if not finite.all():
        index = int(np.argmin(finite))
        raise InputError(f"`{name}` must hold finite labels, but image {index} has NaN or Inf.")


def _of_names(train: np.ndarray, classes: int | None, known: Sequence[str] | None) -> Labels:
    values = tuple(sorted(set(train.tolist())))
    if known is not None:
        unknown = sorted(set(values).difference(name.encode() for name in known))
        if unknown:
            raise InputError(
                f"Labels of `train` must be of its `class_names`, {listed(known)}, but "
                f"{_images_of(np.isin(train, unknown))} {listed([*map(_shown, unknown)])}."
            )
        values = tuple(name.encode() for name in known)
    if classes not in (None, len(values)):
        raise InputError(
            f"`classes` must be {len(values)}, as `train` has so many names, or left out."
        )
    return Labels(len(values), values, tuple(map(_shown, values)), form="others")


def _values(name: str, labels: np.ndarray, classes: int | None) -> tuple[int, ...]:
    """Return what whole numbers stand for the classes, in order."""
    # Images are not numbered here: those of a file may come in another order by now.
    found = [int(value) for value in np.unique(labels)]
    lowest, highest = found[0], found[-1]
    if found in ([-1, 0], [-1, 1]) and classes in (None, 2):
        return -1, found[1]
    if lowest < 0:
        raise InputError(
            f"Labels of `{name}` must be 0 or more, but {_images_of(labels < 0)} "
            f"{listed([value for value in found if value < 0])}: if that marks images without a "
            "label, leave them out, with images[labels >= 0] or .unbatch().filter(lambda image, "
            "label: label >= 0); if it is a class, number the classes from 0."
        )
    if classes is not None:
        start = int(highest == classes and lowest >= 1)
        if highest >= classes + start:
            raise InputError(
                f"Labels of `{name}` must be 0 to {classes - 1}, but "
                f"{_images_of(labels >= classes)} "
                f"{listed([value for value in found if value >= classes])}."
            )
        return tuple(range(start, classes + start))
    if highest - lowest >= _MOST_CLASSES:
        raise InputError(
            f"Labels of `{name}` must be of {_MOST_CLASSES} classes or fewer, but go from "
            f"{lowest} to {highest}."
        )
    missing = sorted(set(range(lowest, highest + 1)) - set(found))
    if missing:
        more = highest + 1
        raise InputError(
            f"Labels of `{name}` go from {lowest} to {highest}, but none is {listed(missing)}: if "
            f"these are classes without training images, give `classes={more}`; if not, labels as "
            "text (tf.strings.as_string, or .astype(str) of arrays) are numbered by themselves."
        )
    return tuple(range(lowest, highest + 1))


def _images_of(chosen: np.ndarray) -> str:
    count = int(chosen.sum())
    return f"{count:,} images have" if count > 1 else "1 image has"


def warn_of_names(names: Sequence[str]) -> None:
    """Warn of a class without a name, and of names that may be meant for one class."""
    if "" in names:
        warn(
            'Label "" is a class without a name: if that marks images without a label, leave them '
            "out."
        )
    written: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        written.setdefault(_letters(name), []).append(name)
    alike = [" and ".join(map(repr, group)) for group in written.values() if len(group) > 1]
    if alike:
        warn(
            f"Classes have names that differ by capitals or spaces alone, {listed(alike)}: if "
            "these are one class, write it in one way."
        )


def _letters(name: str) -> str:
    """Return a name without what differs between ways to write it."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def listed(values: Sequence[Any]) -> str:
    """Return values as text, the first of many."""
    rest = len(values) - _MOST_LISTED
    shown = ", ".join(map(str, values[:_MOST_LISTED]))
    return f"{shown} and {rest:,} more" if rest > 0 else shown


def check_validation(
    labels: Labels,
    counts: np.ndarray,
    raw: np.ndarray,
    validation: np.ndarray,
    classes: int | None,
    name: str = "validation",
) -> None:
    """Raise `InputError` for classes of one part that the other does not have, or warn of them.

    # Arguments
        counts: training images of each class.
        raw: labels of `name`, as given.
        validation: their classes.
        classes: how many classes there are, if the user has said so.
    """
    explicit = classes is not None
    outside = (validation < 0) | (validation >= labels.classes)
    if outside.any():
        index = int(np.argmax(outside))
        kinds = [_shown(value) for value in np.unique(raw[outside])]
        known = [*map(_shown, labels.values or range(labels.classes))]
        is_text = raw.dtype.kind == "S"
        expected = listed(known) if is_text or len(known) == 2 else f"{known[0]} to {known[-1]}"
        mend = "" if explicit else f"; {_CUT}"
        if is_text and {*map(_letters, kinds)} <= {*map(_letters, known)}:
            mend = "; names that differ by capitals or spaces are other classes: write them alike"
        elif not is_text and len(np.unique(raw)) == len(known) and not outside.all():
            alike = "; if these are the same classes, number them alike, from 0"
            mend = alike if explicit else f"{alike}, or else {_CUT}"
        raise InputError(
            f"Labels of `{name}` must be those of `train`, {expected}, but image {index} has "
            f"{_shown(raw[index])}: {_images_of(outside)} {listed(kinds)}{mend}."
        )
    measured = np.bincount(validation, minlength=labels.classes)
    unseen = np.flatnonzero((measured == 0) & (counts > 0))
    single = bool((counts[unseen] == 1).all())
    if len(unseen) and (single or len(validation) >= labels.classes):
        cause = (
            "`train` has one image of each, and a share leaves it there"
            if single
            else f"what is measured says nothing of them; {_CUT}"
        )
        warn(
            f"`{name}` has no image of {len(unseen)} of {labels.classes} classes, "
            f"{listed([labels.name(index) for index in unseen])}: {cause}."
        )
    empty = [index for index in range(labels.classes) if not counts[index]]
    if not empty:
        return
    held = measured[empty]
    which = listed([labels.name(index) for index in empty])
    if held.any() and not explicit:
        raise InputError(
            f"`train` has no image of {len(empty)} of {labels.classes} classes ({which}), of which "
            f"`{name}` has {held.sum():,}: {_CUT}, or give `classes={labels.classes}` to train "
            "without these."
        )
    if name != "validation" and not held.any():
        return  # It was told of the validation data.
    of_them = f"; {held.sum():,} of `{name}` are, and will all be wrong" if held.any() else ""
    warn(
        f"`train` has no image of {len(empty)} of {labels.classes} classes, {which}: the network "
        f"cannot learn them{of_them}."
    )


def _shown(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(int(value))


def class_weights(
    given: Mapping[Any, float] | str | None, labels: Labels, counts: np.ndarray
) -> tuple[float, ...] | None:
    """Return the weight of each class, or raise `InputError`.

    `"balanced"` weighs classes so that each counts as much: `images / (classes * images of it)`.
    """
    if given is None:
        return None
    if isinstance(given, str) and given == "balanced":
        present = int(np.count_nonzero(counts))
        found = [counts.sum() / (present * count) if count else 0.0 for count in counts]
        return tuple(map(float, found))
    if not isinstance(given, Mapping):
        is_row = isinstance(given, list | tuple | np.ndarray) or tf.is_tensor(given)
        kind = type(given).__name__
        raise InputError(
            '`class_weight` must be "balanced", or weights by class such as {0: 1.0, 1: 5.0}, but '
            f"got {f'{kind}: give dict(enumerate(weights))' if is_row else repr(given)}."
        )
    by_index: dict[int, float] = {}
    for key, weight in given.items():
        index = _index(key, labels)
        if isinstance(weight, np.generic):
            weight = weight.item()
        if index in by_index:
            raise InputError(f"`class_weight` must have one weight for class {key}.")
        if weight != 0:
            require_positive(class_weight=weight)
        by_index[index] = float(weight)
    missing = [labels.name(index) for index in range(labels.classes) if index not in by_index]
    if missing:
        raise InputError(
            f"`class_weight` must have a weight for each of the {labels.classes} classes, but has "
            f"none for {listed(missing)}."
        )
    if not any(by_index[index] for index in np.flatnonzero(counts)):
        raise InputError("`class_weight` must be above 0 for a class that `train` has.")
    return tuple(by_index[index] for index in range(labels.classes))


def _index(key: Any, labels: Labels) -> int:
    """Return the class that a key stands for: its name, or the number that the data calls it."""
    names: Collection[str] = labels.names or tuple(map(str, range(labels.classes)))
    if isinstance(key, bytes):
        key = _shown(key)
    if isinstance(key, str):
        require_known("class", key, names)
        return list(names).index(key)
    numbers = labels.values
    if numbers is None or isinstance(numbers[0], bytes | str):
        numbers = tuple(range(labels.classes))
    if key not in numbers:
        raise InputError(
            f"`class_weight` must have classes from {numbers[0]} to {numbers[-1]}, but got {key!r}."
        )
    return numbers.index(key)
