"""Shuffled batches of a stretch of epochs, repeatable by seed and epoch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.data.augmentation import Augment, finite
from larq_nas.data.validation import DataFacts

_SHUFFLE_BYTES = 2**30


@dataclass(frozen=True)
class Stream:
    """Batches for `fit`: those from one epoch up to another, and how many an epoch has."""

    from_epoch: Callable[[int, int], tf.data.Dataset]
    steps: int


def training_stream(
    train: tf.data.Dataset, facts: DataFacts, seed: int, augment: Augment | None
) -> Stream:
    """Return batches of `(images, labels)` over all training data, and weights if it has any."""

    def finish(key: tf.Tensor, images: tf.Tensor, *rest: tf.Tensor) -> Any:
        return _augmented(images, key, augment, facts), *rest

    return _stream(train.unbatch(), facts.train_examples, 1, facts, seed, finish)


def bilevel_stream(
    train: tf.data.Dataset, facts: DataFacts, seed: int, augment: Augment | None
) -> Stream:
    """Return pairs of batches, for weights and for architecture parameters.

    Of each two examples in turn, one trains the weights and the other the architecture
    parameters, by a coin that depends on their place and the seed: the halves never mix,
    and data in a regular order of classes is halved well too.
    """

    def finish(key: tf.Tensor, images: tf.Tensor, *rest: tf.Tensor) -> Any:
        return tuple(
            (
                _augmented(images[:, half], key + [half, 0], augment, facts),
                *(part[:, half] for part in rest),
            )
            for half in (0, 1)
        )

    def toss(index: tf.Tensor, pair: tuple[tf.Tensor, ...]) -> Any:
        coin = tf.random.stateless_uniform((), tf.stack([tf.cast(seed, tf.int64), index])) < 0.5
        order = tf.where(coin, [0, 1], [1, 0])
        return tuple(tf.ensure_shape(tf.gather(part, order), part.shape) for part in pair)

    pairs = train.unbatch().batch(2, drop_remainder=True)
    pairs = pairs.enumerate().map(toss, num_parallel_calls=tf.data.AUTOTUNE)
    return _stream(pairs, facts.train_examples // 2, 2, facts, seed, finish)


def validation_stream(validation: tf.data.Dataset) -> tf.data.Dataset:
    """Return the validation data as the network reads it."""
    cast = validation.map(lambda images, *rest: (tf.cast(images, tf.float32), *rest))
    return cast.prefetch(1)


def _stream(
    examples: tf.data.Dataset,
    count: int,
    images_each: int,
    facts: DataFacts,
    seed: int,
    finish: Callable[..., Any],
) -> Stream:
    batch_size = min(facts.batch_size, count)
    size = images_each * 4 * int(np.prod(facts.train_shape or facts.input_shape))
    buffer = max(batch_size, min(count, _SHUFFLE_BYTES // size))

    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        shuffled = examples.shuffle(
            buffer, seed=epoch + 1_000_003 * seed + 1, reshuffle_each_iteration=False
        )
        batches = shuffled.batch(batch_size, drop_remainder=True)

        def keyed(index: tf.Tensor, batch: tuple[tf.Tensor, ...]) -> Any:
            return finish(tf.stack([2 * (seed + epoch * 1_000_003), index]), *batch)

        return batches.enumerate().map(keyed, num_parallel_calls=tf.data.AUTOTUNE)

    def from_epoch(first: int, last: int) -> tf.data.Dataset:
        epochs = tf.data.Dataset.range(first, last)
        return epochs.flat_map(epoch_batches).prefetch(tf.data.AUTOTUNE)

    return Stream(from_epoch, count // batch_size)


def _augmented(
    images: tf.Tensor, key: tf.Tensor, augment: Augment | None, facts: DataFacts
) -> tf.Tensor:
    images = tf.cast(images, tf.float32)
    if augment is None:
        return images
    augmented = tf.ensure_shape(augment(images, key), (images.shape[0], *facts.input_shape))
    return finite(augmented, augment)
