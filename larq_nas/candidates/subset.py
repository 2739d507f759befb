"""The part of the training data that candidates train on."""

import dataclasses

import numpy as np
import tensorflow as tf

from larq_nas.errors import InputError
from larq_nas.pipeline.check import DataFacts

__all__ = ["draw_subset"]


def draw_subset(
    train: tf.data.Dataset, facts: DataFacts, size: int | None, seed: int
) -> tuple[tf.data.Dataset, DataFacts]:
    """Return a part of the training data, as even over the classes as the data allow.

    # Arguments
        train: batches of `(images, labels)` in a fixed order.
        facts: what they hold.
        size: number of images; `None` for all.
        seed: seed of the draw.

    # Returns
        Batches of those images, kept in memory, and what they hold.

    # Raises
        InputError: if there are not so many images.
    """
    if size is None:
        return train, facts
    if size > facts.train_examples:
        raise InputError(
            f"`subset` must be at most the {facts.train_examples} training images, but got {size}."
        )
    labels = np.concatenate([np.asarray(labels) for _, labels in train.as_numpy_iterator()])
    chosen = tf.constant(np.sort(_even(labels, size, np.random.default_rng(seed))))
    member = tf.scatter_nd(chosen[:, None], tf.ones(size, tf.bool), [len(labels)])
    examples = train.unbatch().enumerate().filter(lambda index, _: member[index])
    images = list(examples.map(lambda _, example: example).batch(facts.batch_size))
    kept = tuple(tf.concat(parts, axis=0) for parts in zip(*images, strict=True))
    batches = tf.data.Dataset.from_tensor_slices(kept).batch(facts.batch_size)
    return batches, dataclasses.replace(facts, train_examples=size)


def _even(labels: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return `size` indices, taken from the classes in turn."""
    shuffled = rng.permutation(len(labels))
    turns = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        turns[members] = np.arange(len(members))
    # Of each turn all classes come before the next; within it the order is random.
    order = shuffled[np.argsort(turns[shuffled], kind="stable")]
    return order[:size]
