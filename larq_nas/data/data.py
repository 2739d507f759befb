"""Validated training and validation data, and how they are used."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from larq_nas.data.augmentation import Augment, check_augment, describe, resolve_augment
from larq_nas.data.validation import DataFacts, check_data
from larq_nas.errors import InputError
from larq_nas.log import log
from larq_nas.training.distribution import require_strategy

if TYPE_CHECKING:
    from larq_nas.cost import Limits
    from larq_nas.spaces import Space

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

    def settings(self) -> dict[str, Any]:
        """Return what a run keeps of it."""
        # The range of values follows from the rest, and need not be the same on each pass.
        data = {k: v for k, v in dataclasses.asdict(self.facts).items() if k != "value_range"}
        # One replica of a strategy is not the same: its supernets are not fused.
        shared = {"replicas": self.strategy.num_replicas_in_sync} if self.strategy else {}
        return {"data": data, "augment": describe(self.augment), "seed": self.seed, **shared}


def check_seed(seed: int) -> None:
    """Raise `InputError` for a seed, or a policy of Keras, that cannot be used."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < _SEEDS:
        raise InputError(f"`seed` must be a whole number from 0 to {_SEEDS - 1}, but got {seed!r}.")
    policy = tf.keras.mixed_precision.global_policy().name
    if policy != "float32":
        raise InputError(f"Keras's precision policy must be float32 to convert, but is {policy}.")


def read_data(
    train: tf.data.Dataset,
    validation: tf.data.Dataset,
    classes: int | None,
    augment: str | Augment | None,
    seed: int,
    space: "Space",
    verbose: int | str,
    strategy: tf.distribute.Strategy | None = None,
) -> Data:
    """Return the data of data that was looked at once, or raise `InputError`."""
    augmentation = resolve_augment(augment)
    if verbose:
        log.info("Checking the data: every image and label once")
    facts = check_data(train, validation, classes, crops=augmentation is not None)
    space.check(facts.input_shape)
    check_augment(augmentation, facts.input_shape, facts.train_shape)
    if strategy is tf.distribute.get_strategy():
        strategy = None  # TensorFlow's default, which is none
    require_strategy(strategy, min(facts.batch_size, facts.train_examples))
    names = getattr(train, "class_names", None)
    return Data(
        train,
        validation,
        facts,
        seed,
        augmentation,
        strategy=strategy,
        class_names=None if names is None else tuple(map(str, names)),
        preprocessing=str(getattr(train, "preprocessing", "")),
    )
