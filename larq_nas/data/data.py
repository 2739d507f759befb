"""Validated training and validation data, and how they are used."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import tensorflow as tf

from larq_nas.data.augmentation import (
    Augment,
    AugmentLike,
    check_augment,
    describe,
    resolve_augment,
)
from larq_nas.data.forms import DataLike, Tell
from larq_nas.data.labels import Form, class_weights, listed, whole_labels
from larq_nas.data.preprocessing import (
    Preprocessing,
    PreprocessingLike,
    preprocess,
    read_layers,
)
from larq_nas.data.share import hold_out
from larq_nas.data.validation import Checked, DataFacts, Examples, Test, check, fits, select
from larq_nas.errors import InputError, warn
from larq_nas.log import log
from larq_nas.training.distribution import require_strategy

if TYPE_CHECKING:
    from larq_nas.cost import Limits
    from larq_nas.spaces import Space

ClassWeight: TypeAlias = Mapping[Any, float] | str
"""A weight for each class, by number or name, or `"balanced"`."""

_SEEDS = 2**31


@dataclass(frozen=True)
class Data:
    """Data that was checked, in a fixed order, and how it is used."""

    train: tf.data.Dataset
    validation: tf.data.Dataset
    facts: DataFacts
    seed: int = 0
    augment: Augment | None = None
    limits: "Limits | None" = None
    strategy: tf.distribute.Strategy | None = None
    class_names: tuple[str, ...] | None = None
    preprocessing: str = ""
    class_weight: tuple[float, ...] | None = None
    first_layers: Preprocessing | None = None
    label_form: Form = "numbers"
    examples: Examples | None = None
    test: Test | None = None

    @property
    def measured(self) -> tf.data.Dataset:
        """The validation data as a whole network reads it, its preprocessing included."""
        return self.first_layers.validation if self.first_layers else self.validation

    @property
    def tested(self) -> "Data":
        """The data that is measured on once, at the end, in place of the validation data."""
        assert self.test is not None
        facts = dataclasses.replace(self.facts, validation_examples=self.test.examples)
        return dataclasses.replace(
            self, validation=self.test.batches, facts=facts, first_layers=None, test=None
        )

    def to_search(self, share: float, tell: Tell = lambda line: None, split: int = 1) -> "Data":
        """Return data to search with, which has no image that is reported.

        A share of each class of the training images is held out by the seed, as `validation`, for a
        searcher to compare candidates on. Without a share that is empty. Its images have passed
        `preprocessing`, which is put before the found network alone. The number of the `split`
        tells several by one seed apart.

        # Raises
            InputError: if the training data comes in another order on each pass.
        """
        if not share:
            facts = dataclasses.replace(self.facts, validation_examples=0)
            empty = self.validation.take(0)
            return dataclasses.replace(
                self, validation=empty, facts=facts, first_layers=None, test=None
            )
        examples = self._examples()
        drawn = np.random.default_rng([self.seed, split])
        if len(np.unique(examples.classes)) == len(examples.classes):
            raise InputError(
                f"The search compares candidates on {share:.2g} of the training images, held out "
                "of each class, but each class has one image: give more."
            )
        held_out = hold_out(examples.classes, examples.copies, share, drawn)
        number, missing = int(held_out.sum()), len(set(examples.classes[~held_out]))
        missing -= len(set(examples.classes[held_out]))
        without = f" (of classes with one image, {missing}, none)" if missing else ""
        tell(
            f"Search: candidates are compared on {number:,} of {len(held_out):,} training images, "
            f"held out by the seed{without}; `validation` is only reported"
        )
        rest = np.flatnonzero(~held_out)
        train = dataclasses.replace(
            self,
            train=select(self.train, rest, self.facts.batch_size),
            examples=Examples(examples.copies[rest], examples.classes[rest], examples.steady),
        )
        compared = _as_measured(self._part(np.flatnonzero(held_out)), self)
        facts = dataclasses.replace(
            self.facts, train_examples=len(rest), validation_examples=number
        )
        return dataclasses.replace(
            train, validation=compared, facts=facts, first_layers=None, test=None
        )

    def subset(self, size: int | None) -> "Data":
        """Return `size` of the training images, as even over the classes as they allow.

        They are drawn by the seed, and kept in memory where they fit.

        # Raises
            InputError: if a class would have none.
        """
        if size is None:
            return self
        self.require_subset(size)
        examples = self._examples()
        drawn = np.random.default_rng(self.seed)
        chosen = np.sort(_even(examples.classes, size, drawn))
        part = Examples(examples.copies[chosen], examples.classes[chosen], examples.steady)
        facts = dataclasses.replace(self.facts, train_examples=size)
        return dataclasses.replace(self, train=self._part(chosen), examples=part, facts=facts)

    def require_subset(self, size: int) -> None:
        """Raise `InputError` if a part of the training images would have none of some class."""
        classes = len(np.unique(self._examples().classes))
        if size < classes:
            raise InputError(
                "`subset` must hold an image of each class, of which the images to search on have "
                f"{classes}, but got {size}: give {classes} or more."
            )

    def _examples(self) -> Examples:
        if self.examples is None or not self.examples.steady:
            raise InputError(
                "A part of `train` can be searched on only if it comes in one order: leave out "
                ".shuffle(), or give it seed=0 and reshuffle_each_iteration=False."
            )
        return self.examples

    def _part(self, places: np.ndarray) -> tf.data.Dataset:
        """Return some of the training examples, in memory where they fit."""
        size = self.facts.batch_size
        chosen = select(self.train, places, size)
        image = self.train.element_spec[0]
        if not fits(len(places) * int(np.prod(image.shape[1:])) * image.dtype.size):
            return chosen
        parts = (tf.concat(batches, axis=0) for batches in zip(*chosen, strict=True))
        return tf.data.Dataset.from_tensor_slices(tuple(parts)).batch(size)

    def settings(self) -> dict[str, Any]:
        """Return what a run keeps of it."""
        # The range of values follows from the rest, and need not be the same on each pass.
        data = {k: v for k, v in dataclasses.asdict(self.facts).items() if k != "value_range"}
        # One replica of a strategy is not the same: its supernets are not fused.
        shared = {"replicas": self.strategy.num_replicas_in_sync} if self.strategy else {}
        given = {"class_names": self.class_names, "class_weight": self.class_weight}
        further: dict[str, Any] = {
            name: list(value) for name, value in given.items() if value is not None
        }
        if self.first_layers:
            further["preprocessing"] = self.first_layers.settings()
        if self.test:
            further["test"] = {"examples": self.test.examples, "content": self.test.content}
        return {
            "data": data,
            "augment": describe(self.augment),
            "seed": self.seed,
            **shared,
            **further,
        }


def _as_measured(examples: tf.data.Dataset, data: Data) -> tf.data.Dataset:
    """Return training examples as networks are measured on them: whole, and none of more weight."""
    augment, key = data.augment, tf.constant([data.seed, 0], tf.int64)

    def measured(images: tf.Tensor, labels: tf.Tensor, *weights: tf.Tensor) -> Any:
        if data.facts.train_shape and augment is not None:
            # An augmentation makes their shape, here the same way each time.
            images = tf.ensure_shape(
                augment(tf.cast(images, tf.float32), key), (None, *data.facts.input_shape)
            )
        return images, labels

    return examples.map(measured)


def _even(classes: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    """Return `size` indices, taken from the classes in turn."""
    shuffled = generator.permutation(len(classes))
    turns = np.zeros(len(classes), dtype=np.int64)
    for label in np.unique(classes):
        members = shuffled[classes[shuffled] == label]
        turns[members] = np.arange(len(members))
    # Of each turn all classes come before the next; within it the order is random.
    order = shuffled[np.argsort(turns[shuffled], kind="stable")]
    return order[:size]


def check_seed(seed: int, number: int = 1) -> None:
    """Raise `InputError` for a seed, or a state of TensorFlow or Keras, that cannot be used.

    `number` is how many seeds are used, from that one on.
    """
    most = _SEEDS - number
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed <= most:
        raise InputError(f"`seed` must be a whole number from 0 to {most}, but got {seed!r}.")
    if not tf.executing_eagerly():
        raise InputError(
            "larq_nas must run eagerly: leave `with tf.Graph()` and "
            "tf.compat.v1.disable_eager_execution out."
        )
    if tf.keras.backend.image_data_format() != "channels_last":
        raise InputError(
            "Keras's image data format must be channels_last: call "
            'tf.keras.backend.set_image_data_format("channels_last").'
        )
    policy = tf.keras.mixed_precision.global_policy().name
    if policy != "float32":
        raise InputError(f"Keras's precision policy must be float32 to convert, but is {policy}.")


def read_data(
    train: DataLike,
    validation: DataLike | float,
    classes: int | None,
    augment: AugmentLike | None,
    seed: int,
    space: "Space",
    verbose: int | str,
    strategy: tf.distribute.Strategy | None = None,
    class_weight: ClassWeight | None = None,
    preprocessing: PreprocessingLike | None = None,
    test: DataLike | float | None = None,
) -> Data:
    """Return the data of data that was looked at once, or raise `InputError`."""

    def tell(line: str) -> None:
        if verbose:
            log.info(line)

    augmentation = resolve_augment(augment)
    layers = () if preprocessing is None else read_layers(preprocessing)
    tell("Checking the data: every image and label once")
    crops = augmentation is not None or bool(layers)
    found = check(train, validation, classes, crops, seed, tell, test)
    first_layers = None
    told = _told(found, "raw" if layers else "read as they are")
    before = found.facts.value_range if layers else None
    if layers:
        found, first_layers = _preprocessed(found, layers)
    facts, labels = found.facts, found.labels
    if facts.train_shape and augmentation is None:
        raise InputError(
            f"`preprocessing` must give images of one shape, but gives {facts.train_shape} for "
            f"those of `train` and {facts.input_shape} for those of `validation`: resize them."
        )
    space.check(facts.input_shape)
    if augmentation:
        check_augment(augmentation, facts.input_shape, next(iter(found.train))[0])
    if strategy is tf.distribute.get_strategy():
        strategy = None  # TensorFlow's default, which is none
    require_strategy(strategy, min(facts.batch_size, facts.train_examples))
    tell(told)
    done = str(getattr(train, "preprocessing", ""))
    if done:
        tell(f"Preprocessing of the images: {done}")
    if first_layers:
        lowest, highest = facts.value_range
        tell(f"First layers: to {facts.input_shape}, from {lowest:.4g} to {highest:.4g}")
    if not layers and _are_bytes(facts.value_range):
        tell(
            "Images from 0 to 255 are learned more slowly than those from -1 to 1: give "
            "`preprocessing=tf.keras.layers.Rescaling(1 / 127.5, -1)`, or x / 127.5 - 1 as data"
        )
    _warn_of_range(facts.value_range, before)
    weights = class_weights(class_weight, labels, found.counts)
    _warn_of_counts(found, weights, not isinstance(train, tf.data.Dataset))
    return Data(
        found.train if weights is None else _weighted(found.train, weights),
        found.validation,
        facts,
        seed,
        augmentation,
        strategy=strategy,
        class_names=labels.names,
        preprocessing=done,
        class_weight=weights,
        first_layers=first_layers,
        label_form=labels.form,
        examples=found.examples,
        test=found.test,
    )


_LITTLE = 0.05


def _are_bytes(values: tuple[float, float]) -> bool:
    return values[0] >= 0 and 127 < values[1] <= 255


def _warn_of_range(values: tuple[float, float], before: tuple[float, float] | None) -> None:
    """Warn of images that hardly differ, by what they are or after layers that had others."""
    lowest, highest = values
    width = highest - lowest
    if width == 0:
        warn(
            f"Every number of every image that reaches the network is {lowest:.4g}, so there is "
            "nothing to learn from: look at how images are read and scaled."
        )
    hardly = width < _LITTLE * max(abs(lowest), abs(highest))
    if before:
        hardly |= width < min(_LITTLE, before[1] - before[0])
    if width > 0 and hardly:
        change = f", of {before[0]:.4g} to {before[1]:.4g} before `preprocessing`" if before else ""
        warn(
            f"Images reach the network from {lowest:.4g} to {highest:.4g} alone{change}: they seem "
            "to be scaled twice, of which leave one out; best are values from -1 to 1."
        )


def _preprocessed(
    found: Checked, layers: tuple[tf.keras.layers.Layer, ...]
) -> tuple[Checked, Preprocessing]:
    """Return data that has passed layers, and what puts these before a network."""
    train, value_range = preprocess(layers, found.train)
    validation, _ = preprocess(layers, found.validation)
    first = Preprocessing(layers, found.facts.input_shape, found.validation)
    given, shape = (tuple(data.element_spec[0].shape[1:]) for data in (train, validation))
    facts = dataclasses.replace(
        found.facts,
        input_shape=shape,
        train_shape=None if given == shape else given,
        value_range=value_range,
    )
    return dataclasses.replace(found, train=train, validation=validation, facts=facts), first


def _told(found: Checked, how: str) -> str:
    """Return a line on what the data is, and how it is read."""
    facts, labels = found.facts, found.labels
    height, width, channels = facts.train_shape or facts.input_shape
    lowest, highest = facts.value_range
    names = f" ({listed(labels.names)})" if labels.names else ""
    soft = ", labels are probabilities" if labels.soft else ""
    numbered = ""
    if labels.values is not None and not isinstance(labels.values[0], bytes):
        numbered = f"; labels {labels.values[0]} to {labels.values[-1]} are numbered from 0"
    return (
        f"Data: {facts.train_examples:,} training and {facts.validation_examples:,} validation "
        f"images of {height}x{width}x{channels}, {found.train.element_spec[0].dtype.name} from "
        f"{lowest:.4g} to {highest:.4g}, {how}; {labels.classes} classes{names}{soft}"
        f"{numbered}; batches of {facts.batch_size}"
    )


_MOST_SHARE, _MOST_RATIO = 0.8, 10


def _warn_of_counts(
    found: Checked, weights: tuple[float, ...] | None, are_arrays: bool = False
) -> None:
    """Warn of batches that hold all images, and of classes that are hardly there."""
    counts, examples = found.counts, found.facts.train_examples
    size = min(found.facts.batch_size, examples)
    if examples < 2 * size:
        data = "tf.data.Dataset.from_tensor_slices((images, labels))" if are_arrays else ""
        warn(
            f"An epoch has one step: a batch holds {size:,} of {examples:,} training images; make "
            f"batches smaller, such as {data}.batch({max(1, examples // 16)}), or train for many "
            "epochs."
        )
    present = counts[counts > 0]
    largest, smallest = int(present.max()), int(present.min())
    weighted = weights is not None or found.weighted
    uneven = largest >= _MOST_SHARE * examples or largest > _MOST_RATIO * smallest
    if uneven and not weighted:
        common, rare = int(np.argmax(counts)), int(np.argmin(np.where(counts, counts, largest + 1)))
        warn(
            f"Classes are uneven: of {examples:,} training images {largest:,} are of class "
            f"{found.labels.name(common)}, and {smallest:,} of {found.labels.name(rare)}, so a "
            "network that ignores rare classes looks good; give "
            '`class_weight="balanced"`, or collect more.'
        )


def _weighted(train: tf.data.Dataset, weights: tuple[float, ...]) -> tf.data.Dataset:
    """Return data whose sample weights are multiplied by those of the classes."""
    of_class = tf.constant(weights, tf.float32)

    def multiply(images: tf.Tensor, labels: tf.Tensor, *given: tf.Tensor) -> Any:
        weight = tf.gather(of_class, whole_labels(labels))
        return images, labels, weight * given[0] if given else weight

    return train.map(multiply, num_parallel_calls=tf.data.AUTOTUNE)
