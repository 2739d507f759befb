"""What a network is searched and trained for."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import tensorflow as tf

from larq_nas.pipeline.augment import Augment
from larq_nas.pipeline.check import DataFacts

if TYPE_CHECKING:
    from larq_nas.cost import Limits

__all__ = ["Task"]


@dataclass(frozen=True)
class Task:
    """Data that was checked, and how it is used.

    # Arguments
        train: batches of `(images, labels)` in a fixed order.
        validation: batches of `(images, labels)` that are only measured on.
        facts: what they hold.
        seed: seed of everything random.
        augment: random changes to the training images.
        limits: what the found network may cost at most, if anything.
    """

    train: tf.data.Dataset
    validation: tf.data.Dataset
    facts: DataFacts
    seed: int = 0
    augment: Augment | None = None
    limits: "Limits | None" = None
