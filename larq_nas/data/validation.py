"""Check every example once before training."""

import dataclasses
import hashlib
import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.data.forms import Tell, read_all, read_batches
from larq_nas.data.labels import (
    Labels,
    check_validation,
    column,
    listed,
    read_labels,
    warn_of_names,
)
from larq_nas.data.share import hash_images, hold_out
from larq_nas.errors import InputError, require_whole, warn
from larq_nas.memory import free_memory

_COMPARED_BATCHES, _COMPARED_IN_ALL = 4, 8
_HELD_BYTES = 2**31
_TOLD_EXAMPLES = 2**17
_MOST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class DataFacts:
    """What a pair of data sets holds.

    `content_and_order` stands for the training images, labels and weights: its first half for the
    examples in any order, or for the number of images of each class where images change from pass
    to pass; its second half for their order, if that stays. `value_range` is that of the training
    images, and `train_shape` their shape before `augment` crops them, if it does. `soft_labels`
    tells labels that are probabilities.
    """

    input_shape: tuple[int, int, int]
    classes: int
    batch_size: int
    train_examples: int
    validation_examples: int
    content_and_order: str
    value_range: tuple[float, float] = (0.0, 1.0)
    train_shape: tuple[int, int, int] | None = None
    soft_labels: bool = False
    validation_content: str = ""


@dataclass
class Scan:
    """One pass over a data set: a hash of each image, and its label and weight.

    # Attributes
        steady: whether another pass gives the same examples in the same order.
        random: whether another pass gives other images, at random.
    """

    name: str
    batches: tf.data.Dataset
    hashes: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None
    batch_size: int
    value_range: tuple[float, float]
    steady: bool = True
    random: bool = False

    def __len__(self) -> int:
        return len(self.hashes)

    @property
    def spec(self) -> Any:
        """The form of a batch of images."""
        return self.batches.element_spec[0]

    @property
    def image_bytes(self) -> int:
        """Bytes of all images."""
        return len(self) * int(np.prod(self.spec.shape[1:])) * self.spec.dtype.size

    def order(self) -> np.ndarray:
        """Return the places of the examples in an order of their content alone."""
        keys = [self.labels] if self.labels.ndim == 1 else list(self.labels.T)
        weights = [] if self.weights is None else [self.weights]
        return np.lexsort((*weights, *keys, self.hashes))

    def content(self, order: np.ndarray) -> str:
        """Return 16 digits that stand for the examples in an order."""
        digest = hashlib.sha256()
        weights = [] if self.weights is None else [self.weights.astype("<f4")]
        labels = self.labels
        if labels.dtype.kind in "biu":
            labels = labels.astype("<i8")
        for part in (self.hashes, labels, *weights):
            digest.update(part[order].tobytes())
        return digest.hexdigest()[:16]


def scan(name: str, batches: tf.data.Dataset, tell: Tell = lambda line: None) -> Scan:
    """Return what a pass over a data set finds, and whether further ones begin alike.

    # Raises
        InputError: if an example cannot be used.
    """
    parts: list[list[np.ndarray]] = [[] for _ in batches.element_spec]
    highest, lowest, batch_size, seen = -math.inf, math.inf, 0, 0
    count, known = 0, int(batches.cardinality())
    for images, *rest in read_all(name, batches):
        check_batch(name, images, rest, seen)
        batch_size, before = max(batch_size, len(images)), seen
        seen += len(images)
        lowest, highest = min(lowest, float(images.min())), max(highest, float(images.max()))
        for part, values in zip(parts, (hash_images(images), *rest), strict=True):
            part.append(_plain(values))
        count += 1
        if known < 0 and seen // _TOLD_EXAMPLES > before // _TOLD_EXAMPLES:
            tell(f"`{name}`: {seen:,} images so far; if they have no end, add .take(batches)")
    if count < known:
        raise InputError(
            f"`{name}` must give {known:,} batches, but ends after {count:,}: .cache() may take "
            "the part that was read once for all; make the data set anew, and read none of it "
            "before."
        )
    if not seen:
        raise InputError(f"`{name}` must hold images, but it is empty.")
    hashes, labels, *weights = (np.concatenate(part) for part in parts)
    weight = _weight(weights)
    if weight is not None and not weight.any():
        raise InputError(f"`{name}` must have a sample weight above 0, but all are 0.")
    found = Scan(name, batches, hashes, labels, weight, batch_size, (lowest, highest))
    # Few batches may come in the same order by chance.
    passes = max(1, _COMPARED_IN_ALL // min(count, _COMPARED_BATCHES))
    found.steady = all(_begins_alike(found) for _ in range(passes))
    return found


def _plain(values: np.ndarray) -> np.ndarray:
    """Return values as numbers or bytes: text comes as objects, and labels may be columns."""
    return column(np.array(values.tolist(), bytes) if values.dtype == object else values)


def _weight(parts: Sequence[np.ndarray]) -> np.ndarray | None:
    return parts[0].astype(np.float32) if parts else None


def _begins_alike(found: Scan) -> bool:
    """Return whether a second pass begins with the same examples as the first."""
    place = 0
    for images, *rest in read_all(found.name, found.batches.take(_COMPARED_BATCHES)):
        end = place + len(images)
        known = (found.hashes[place:end], found.labels[place:end])
        if not all(map(np.array_equal, known, (hash_images(images), _plain(rest[0])))):
            return False
        place = end
    if not place:
        raise InputError(
            f"`{found.name}` can be read only once, but each epoch reads it: give "
            "tf.data.Dataset.from_generator a function that makes a new generator."
        )
    return True


def check_batch(name: str, images: np.ndarray, rest: Sequence[np.ndarray], seen: int = 0) -> None:
    """Raise `InputError` for examples that cannot be used, of which `seen` came before."""
    lengths = [len(part) for part in (images, *rest)]
    if len(set(lengths)) > 1:
        raise InputError(
            f"`{name}` must hold one label for each image, but a batch holds {lengths[0]} images "
            f"and {' and '.join(map(str, lengths[1:]))} labels or weights."
        )
    check_images(name, images, seen)
    for weights in rest[1:]:
        wrong = ~((weights >= 0) & (weights <= _MOST))
        if wrong.any():
            index = int(np.argmax(wrong))
            raise InputError(
                f"Sample weights of `{name}` must be finite float32, 0 or more, but image "
                f"{seen + index} has {column(weights)[index]}."
            )


def check_images(name: str, images: np.ndarray, seen: int = 0) -> None:
    """Raise `InputError` for numbers that float32 does not hold; `seen` images came before."""
    if images.dtype.kind != "f":
        return
    rows = images.reshape(len(images), -1)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        index = seen + int(np.argmin(finite))
        raise InputError(f"`{name}` must hold finite images, but image {index} has NaN or Inf.")
    if images.dtype.itemsize > 4:
        greatest = np.abs(rows).max(axis=1)
        index = int(np.argmax(greatest))
        if greatest[index] > _MOST:
            raise InputError(
                f"`{name}` must hold images of numbers up to {_MOST:.2g}, as float32 holds, but "
                f"image {seen + index} has {greatest[index]:.2g}: scale them, best to -1 to 1."
            )


def settle(train: Scan, *measured: Scan) -> None:
    """Tell data in another order on each pass from data that change, and refuse what leaks.

    # Raises
        InputError: if images move between `train` and what is measured on, or other ones come each
            time.
    """
    for one in (train, *measured):
        if one.steady:
            continue
        second = scan(one.name, one.batches)
        if one.content(one.order()) == second.content(second.order()):
            continue
        new = ~np.isin(second.hashes, one.hashes)
        for other in (found for found in (train, *measured) if found is not one):
            moved = int(np.isin(second.hashes[new], other.hashes).sum())
            if moved:
                first, last = (other, one) if other is train else (one, other)
                raise InputError(
                    f"`{first.name}` and `{last.name}` are cut from one data set that is shuffled "
                    f"anew on each pass, so that images move between them: of `{one.name}`, "
                    f"{moved:,} were in `{other.name}` one pass before. Before the cut, use "
                    ".shuffle(buffer, seed=0, reshuffle_each_iteration=False), or .cache() behind "
                    "the shuffle."
                )
        if not _alike(one.labels, second.labels):
            raise InputError(
                f"`{one.name}` holds other examples on each pass ({int(new.sum()):,} of "
                f"{len(second):,} were not in the pass before): if it is a part of shuffled data, "
                "use .shuffle(buffer, seed=0, reshuffle_each_iteration=False) before .take, or "
                ".cache() behind it."
            )
        one.random, one.steady = True, np.array_equal(one.labels, second.labels)
        if one is train:
            mixed = (
                ""
                if one.steady
                else "; they come in another order too, so the halves for weights and architecture "
                "mix: leave out .shuffle(), larq_nas shuffles"
            )
            warn(
                "`train` gives other images on each pass, so a run cannot be repeated exactly: "
                f"leave random changes to `augment`{mixed}."
            )
        else:
            warn(
                f"`{one.name}` gives other images on each pass, so that what is measured changes: "
                "leave random changes out of it."
            )


def _alike(labels: np.ndarray, others: np.ndarray) -> bool:
    """Return whether both hold the same labels, in any order."""
    found, other = (np.unique(part, axis=0, return_counts=True) for part in (labels, others))
    return len(labels) == len(others) and all(map(np.array_equal, found, other))


def fits(image_bytes: int) -> bool:
    """Return whether images of so many bytes fit into the memory that data may take."""
    free = free_memory()
    most = _HELD_BYTES if free is None else min(_HELD_BYTES, free / 4)
    return image_bytes <= most


def hold(found: Scan, tell: Tell) -> Scan:
    """Return data in memory, in an order of its content, if another comes on each pass.

    Data that does not fit stays as it is, with a warning.
    """
    if found.steady or found.random:
        return found
    if not fits(found.image_bytes):
        warn(
            f"`{found.name}` comes in another order on each pass, and its {found.image_bytes:,} "
            "bytes are too many to hold in memory, so a run cannot be repeated, and the halves for "
            "weights and architecture mix: give the shuffle seed=0 and "
            "reshuffle_each_iteration=False, use .cache(file) behind it, or, with "
            "image_dataset_from_directory, shuffle=False for data that is not cut by "
            "validation_split."
        )
        return found
    tell(
        f"`{found.name}` comes in another order on each pass: its {len(found):,} images "
        f"({found.image_bytes:,} bytes) are held in memory, in an order of their content"
    )
    hashes, parts = _collected(found)
    now = dataclasses.replace(found, hashes=hashes, labels=parts[1], weights=_weight(parts[2:]))
    order = now.order()
    return _selected(now, order, tuple(part[order] for part in parts))


def _collected(found: Scan, members: np.ndarray | None = None) -> tuple[np.ndarray, list[Any]]:
    """Return the hashes of the images, and all parts of the data, or of some members."""
    hashes: list[np.ndarray] = []
    parts: list[list[np.ndarray]] = [[] for _ in found.batches.element_spec]
    place = 0
    for batch in read_all(found.name, found.batches):
        end = place + len(batch[0])
        chosen = slice(None) if members is None else members[place:end]
        place = end
        hashes.append(hash_images(batch[0][chosen]))
        for part, values in zip(parts, batch, strict=True):
            part.append(_plain(values[chosen]))
    return np.concatenate(hashes), [np.concatenate(part) for part in parts]


def select(batches: tf.data.Dataset, places: np.ndarray, size: int) -> tf.data.Dataset:
    """Return the examples at some places, in the order of the data, in batches of `size`."""
    member = np.zeros(int(places.max()) + 1, bool)
    member[places] = True
    is_member = tf.constant(member)
    examples = batches.unbatch().take(len(member)).enumerate()
    chosen = examples.filter(lambda index, *_: is_member[index])
    return chosen.map(lambda _, example: example).batch(size)


def _selected(found: Scan, places: np.ndarray, arrays: tuple[np.ndarray, ...] | None) -> Scan:
    """Return the examples at some places, read from `arrays` that hold these alone, if given."""
    if arrays is None:
        batches = select(found.batches, np.sort(places), found.batch_size)
    else:
        batches = tf.data.Dataset.from_tensor_slices(arrays).batch(found.batch_size)
    return dataclasses.replace(
        found,
        batches=batches,
        hashes=found.hashes[places],
        labels=found.labels[places],
        weights=None if found.weights is None else found.weights[places],
        steady=found.steady or arrays is not None,
    )


def split(
    found: Scan, share: float, seed: int, tell: Tell, name: str = "validation"
) -> tuple[Scan, Scan]:
    """Return training data and data of a name: a share of each class is held out, by a seed.

    # Raises
        InputError: if the data comes in another order on each pass, or each class has one image.
    """
    if not found.steady:
        raise InputError(
            f"A share of `train` can be held out for `{name}` only if it comes in one order: "
            "leave out .shuffle(), or give it seed=0 and reshuffle_each_iteration=False."
        )
    drawn = np.random.default_rng(seed if name == "validation" else [seed, _TEST])
    held_out = hold_out(found.labels, found.hashes, share, drawn)
    tell(
        f"`{name}`: {held_out.sum():,} of {len(found):,} images are held out, "
        f"{share:g} of each class, by seed {seed}"
    )
    parts = []
    for called, part_of in (("train", ~held_out), (name, held_out)):
        arrays = tuple(_collected(found, part_of)[1]) if fits(found.image_bytes) else None
        part = _selected(found, np.flatnonzero(part_of), arrays)
        parts.append(dataclasses.replace(part, name=called))
    return parts[0], parts[1]


# Apart from the draws of the search, which are by the seed and 1 or 2.
_TEST = 3


@dataclass(frozen=True)
class Examples:
    """The training images one by one: what tells copies of one from others, and the classes.

    `steady` is whether each pass gives them in the same order.
    """

    copies: np.ndarray
    classes: np.ndarray
    steady: bool


@dataclass(frozen=True)
class Test:
    """Data that a result is measured on once, at the end, as a whole network reads it.

    `content` stands for its images and labels in any order.
    """

    batches: tf.data.Dataset
    examples: int
    content: str


@dataclass(frozen=True)
class Checked:
    """Data that can be used: batches of numbered labels, and what they hold.

    `counts` are the training images of each class.
    """

    examples: Examples

    train: tf.data.Dataset
    validation: tf.data.Dataset
    facts: DataFacts
    labels: Labels
    counts: np.ndarray
    weighted: bool
    test: Test | None = None


def check_data(
    train: tf.data.Dataset,
    validation: tf.data.Dataset,
    classes: int | None = None,
    crops: bool = False,
) -> DataFacts:
    """Return the facts of two data sets of `(images, labels)` batches; see `check`."""
    return check(train, validation, classes, crops).facts


def check(
    train: Any,
    validation: Any,
    classes: int | None = None,
    crops: bool = False,
    seed: int = 0,
    tell: Tell = lambda line: None,
    test: Any = None,
) -> Checked:
    """Read all data once, and return it in the form that everything else uses.

    `crops` tells whether something changes the shape of training images. Of a share for `test`
    that is drawn first, and that for `validation` of what is left.

    # Raises
        InputError: if it cannot be used.
    """
    if classes is not None:
        require_whole(classes=classes)
    share, test_share = require_share(validation), require_share(test, "test")
    names = _class_names(train, None if share else validation)
    batches = read_batches("train", train, tell)
    measured = None if share else read_batches("validation", validation, tell)
    given = _shape(batches)
    shape = given if measured is None else _shape(measured)
    tested = None
    if test is not None and test_share is None:
        _class_names(train, test, "test")
        tested = read_batches("test", test, tell)
        if _shape(tested) != shape:
            raise InputError(
                f"`test` must hold images of the shape of those of `validation`, {shape}, but got "
                f"{_shape(tested)}: resize them."
            )
    if given != shape and not crops:
        raise InputError(
            f"`validation` must hold images of the shape of `train`, {given}, but got {shape}: "
            "resize them, or give an `augment` that crops those of `train`."
        )
    found = scan("train", batches, tell)
    other = None if measured is None else scan("validation", measured, tell)
    last = None if tested is None else scan("test", tested, tell)
    settle(found, *(one for one in (other, last) if one is not None))
    labels = read_labels(found.labels, None if other is None else other.labels, classes, names)
    of_test = labels
    if last is not None:
        # It may give the same classes in another form.
        of_test = read_labels(found.labels, last.labels, labels.classes, names, "test")
        of_test = dataclasses.replace(of_test, soft=labels.soft)
        last = hold(last, tell)
    found = hold(found, tell)
    if test_share is not None:
        found, last = split(found, test_share, seed, tell, "test")
    if other is None:
        assert share is not None
        found, other = split(found, share, seed, tell)
    else:
        other = hold(other, tell)
    if labels.classes < 2:
        raise InputError(
            f"`train` must hold 2 classes or more, but all its labels are {_only(found)}."
            if classes != 1
            else "`train` must hold 2 classes or more, but `classes` is 1."
        )
    if len(found) < 2:
        raise InputError("`train` must hold 2 images or more: its halves train different things.")
    trained_classes, measured_classes = (labels.indices(one.labels) for one in (found, other))
    counts = np.bincount(trained_classes, minlength=labels.classes)
    check_validation(labels, counts, other.labels, measured_classes, classes)
    warn_of_names(labels.names or ())
    _warn_of_pair(found, other, trained_classes, measured_classes)
    _warn_of_weights(found, trained_classes, labels, "the network cannot learn them")
    _warn_of_weights(other, measured_classes, labels, "what is measured says nothing of them")
    checked_test = None
    if last is not None:
        tested_classes = of_test.indices(last.labels)
        check_validation(of_test, counts, last.labels, tested_classes, classes, "test")
        _warn_of_pair(found, last, trained_classes, tested_classes)
        _warn_of_copies(other, last, measured_classes, tested_classes)
        _warn_of_weights(last, tested_classes, labels, "what is measured says nothing of them")
        content = "" if last.random else last.content(last.order())
        checked_test = Test(_numbered(last.batches, of_test), len(last), content)
        tell(f"`test`: {len(last):,} images, measured on once, after the training")
    everywhere = np.arange(len(found))
    if found.random:
        # What changes from pass to pass can only be told by what it holds of each class.
        held = hashlib.sha256(np.trim_zeros(counts, "b").astype("<i8").tobytes())
        content = held.hexdigest()[:32]
    else:
        ordered = found.content(everywhere) if found.steady else "0" * 16
        content = found.content(found.order()) + ordered
    facts = DataFacts(
        input_shape=shape,
        classes=labels.classes,
        batch_size=found.batch_size,
        train_examples=len(found),
        validation_examples=len(other),
        content_and_order=content,
        value_range=found.value_range,
        train_shape=None if given == shape else given,
        soft_labels=labels.soft,
        validation_content="" if other.random else other.content(other.order()),
    )
    ready = [_numbered(one.batches, labels) for one in (found, other)]
    examples = Examples(found.hashes, trained_classes, found.steady)
    return Checked(
        examples,
        ready[0],
        ready[1],
        facts,
        labels,
        counts,
        found.weights is not None,
        checked_test,
    )


def require_share(validation: object, name: str = "validation") -> float | None:
    """Return the share of the training data that is to be held out, if it is one."""
    if isinstance(validation, bool) or not isinstance(validation, numbers.Real):
        return None
    share = float(validation)
    if not 0 < share < 1:
        raise InputError(
            f"`{name}` must be data, or a share between 0 and 1 to hold out of `train`, but "
            f"got {validation}."
        )
    return share


def _class_names(train: Any, validation: Any, name: str = "validation") -> list[str] | None:
    """Return the names of the classes that Keras has left on a data set it has read."""
    names = [getattr(data, "class_names", None) for data in (train, validation)]
    found = [[str(one) for one in given] for given in names if given]
    if len(found) == 2 and found[0] != found[1]:
        raise InputError(
            f"`train` and `{name}` must have the same classes, but one has {listed(found[0])}, "
            f"and the other {listed(found[1])}: a label would mean "
            "another class in each; read both with the same `class_names`."
        )
    return found[0] if found else None


def _shape(batches: tf.data.Dataset) -> tuple[int, int, int]:
    height, width, channels = batches.element_spec[0].shape[1:]
    return height, width, channels


def _only(found: Scan) -> str:
    label = found.labels[0]
    return label.decode("utf-8", "replace") if isinstance(label, bytes) else f"{label:g}"


def _numbered(batches: tf.data.Dataset, labels: Labels) -> tf.data.Dataset:
    def canonical(images: tf.Tensor, given: tf.Tensor, *weights: tf.Tensor) -> Any:
        weights = tuple(tf.cast(tf.reshape(weight, (-1,)), tf.float32) for weight in weights)
        return images, labels.numbered(given), *weights

    return batches.map(canonical, num_parallel_calls=tf.data.AUTOTUNE)


def _warn_of_weights(found: Scan, classes: np.ndarray, labels: Labels, so: str) -> None:
    """Warn of classes whose images all have the sample weight 0."""
    if found.weights is None:
        return
    weighted = np.unique(classes[found.weights > 0])
    none = np.setdiff1d(classes, weighted)
    if len(none):
        warn(
            f"All images of `{found.name}` of {len(none)} of {labels.classes} classes, "
            f"{listed([labels.name(index) for index in none])}, have the sample weight 0: {so}."
        )


def _warn_of_pair(train: Scan, validation: Scan, trained: np.ndarray, measured: np.ndarray) -> None:
    """Warn of images in both parts, and of parts whose numbers have another range."""
    _warn_of_copies(train, validation, trained, measured)
    (low, high), (lowest, highest) = train.value_range, validation.value_range
    spans = sorted((high - low, highest - lowest))
    signs = [least < -spans[1] / 4 for least in (low, lowest)]
    if spans[1] > 4 * spans[0] > 0 or signs[0] != signs[1]:
        warn(
            f"Images of `train` go from {low:g} to {high:g} ({train.spec.dtype.name}), but those "
            f"of `{validation.name}` from {lowest:g} to {highest:g} "
            f"({validation.spec.dtype.name}): scale both alike."
        )


def _warn_of_copies(
    train: Scan, validation: Scan, trained: np.ndarray, measured: np.ndarray
) -> None:
    """Warn of images in both parts."""
    shared = np.isin(validation.hashes, train.hashes)
    if shared.any():
        copies = np.isin(train.hashes, validation.hashes)
        known = set(zip(train.hashes[copies].tolist(), trained[copies].tolist(), strict=True))
        pairs = zip(validation.hashes[shared].tolist(), measured[shared].tolist(), strict=True)
        disagree = sum(pair not in known for pair in pairs)
        labelled = (
            f", and the labels of {disagree:,} disagree: look at how labels are read"
            if disagree
            else ""
        )
        warn(
            f"{shared.sum():,} of {len(validation):,} images of `{validation.name}` are in "
            f"`{train.name}` too: what is measured on them says nothing of new images{labelled}."
        )
