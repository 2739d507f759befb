"""Training on several devices or machines at once, each with a part of every batch."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from larq_nas.errors import InputError, callers_level
from larq_nas.pipeline.check import DataFacts

__all__ = [
    "averaged",
    "building_on",
    "is_distributed",
    "replicas",
    "require_halves",
    "require_strategy",
    "shared_out",
    "warn_if_apart",
    "whole_batches",
]


def require_strategy(strategy: object, batch_size: int) -> None:
    """Raise `InputError` for a strategy that cannot be used, or a batch it cannot divide.

    # Arguments
        strategy: what was given, if anything.
        batch_size: images in a batch, of all replicas together.
    """
    if tf.distribute.has_strategy():
        raise InputError(
            "larq_nas was called within the scope of a strategy: call it outside, and give the "
            "strategy as `strategy`."
        )
    if strategy is None:
        return
    if not isinstance(strategy, tf.distribute.Strategy):
        raise InputError(f"`strategy` must be a tf.distribute.Strategy, but got {strategy!r}.")
    several = tf.distribute.MultiWorkerMirroredStrategy
    usable = (tf.distribute.MirroredStrategy, tf.distribute.OneDeviceStrategy, several)
    if not isinstance(strategy, usable):
        raise InputError(
            "`strategy` must be a MirroredStrategy, a OneDeviceStrategy or a "
            f"MultiWorkerMirroredStrategy, but got {type(strategy).__name__}."
        )
    resolver = strategy.cluster_resolver
    if resolver and resolver.task_type not in (None, "", "chief", "worker"):
        raise InputError(
            f"TF_CONFIG must make this process a chief or a worker, but got {resolver.task_type}: "
            "the chief evaluates."
        )
    count = strategy.num_replicas_in_sync
    if batch_size % count:
        raise InputError(
            f"`strategy` has {count} replicas, which do not divide batches of {batch_size} "
            f"images: batch the data by a multiple of {count}."
        )


def warn_if_apart(network: tf.keras.Model, strategy: tf.distribute.Strategy | None) -> None:
    """Warn of batch norms that are over what a replica has of a batch."""
    if strategy is None or strategy.num_replicas_in_sync == 1:
        return
    apart = [
        layer.name
        for layer in network._flatten_layers(include_self=False)
        if isinstance(layer, tf.keras.layers.BatchNormalization)
        and not getattr(layer, "synchronized", False)
    ]
    if apart:
        warnings.warn(
            f"Batch norm of {len(apart)} layers, such as `{apart[0]}`, is over the part of a batch "
            "that a replica has: make them with `synchronized=True`, or by "
            "`larq_nas.layers.batch_norm`.",
            stacklevel=callers_level(),
        )


def require_halves(strategy: tf.distribute.Strategy | None, facts: DataFacts) -> None:
    """Raise `InputError` if halves of the data are smaller than a batch, and not divided."""
    half = facts.train_examples // 2
    count = strategy.num_replicas_in_sync if strategy else 1
    if half < facts.batch_size and half % count:
        raise InputError(
            f"`strategy` has {count} replicas, which do not divide the {half} images of each half "
            f"of the data: batch it by a multiple of {count}, {half} or less."
        )


@contextmanager
def building_on(strategy: tf.distribute.Strategy | None) -> Iterator[None]:
    """Create variables on all devices of `strategy` within a `with` block."""
    if strategy is None:
        yield
        return
    with strategy.scope():
        yield


def shared_out(batches: tf.data.Dataset, strategy: tf.distribute.Strategy) -> Any:
    """Return the same batches, of which each replica is given its part.

    # Arguments
        batches: nested tensors, the first axis of each divided by the replicas.
        strategy: has the replicas.
    """
    count = strategy.num_replicas_in_sync

    def of_pipeline(context: tf.distribute.InputContext) -> tf.data.Dataset:
        here = count // context.num_input_pipelines
        first = context.input_pipeline_id * here

        def part(x: tf.Tensor) -> tf.Tensor:
            size = x.shape[0] // count
            return tf.reshape(x, (count, size, *x.shape[1:]))[first : first + here]

        def parts(*batch: Any) -> tf.data.Dataset:
            return tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(part, batch))

        return batches.flat_map(parts).prefetch(tf.data.AUTOTUNE)

    return strategy.distribute_datasets_from_function(of_pipeline)


def whole_batches(examples: tf.data.Dataset, size: int) -> tf.data.Dataset:
    """Return batches of `(images, labels, weights)` of one size.

    What the last one lacks has a weight of 0: replicas can share it, and none is without
    images, of which convolutions give wrong shapes.

    # Arguments
        examples: batches of `(images, labels)` of any size.
        size: number of images in a batch.
    """

    def whole(images: tf.Tensor, labels: tf.Tensor) -> Any:
        weights = tf.ones(tf.shape(labels), tf.float32)
        return tuple(_filled(part, size) for part in (images, labels, weights))

    return examples.unbatch().batch(size).map(whole, num_parallel_calls=tf.data.AUTOTUNE)


def _filled(part: tf.Tensor, size: int) -> tf.Tensor:
    missing = [[0, size - tf.shape(part)[0]], *[[0, 0]] * (part.shape.rank - 1)]
    return tf.ensure_shape(tf.pad(part, missing), (size, *part.shape[1:]))


def is_distributed() -> bool:
    """Return whether what is built now is for several replicas."""
    return bool(tf.distribute.has_strategy())


def replicas() -> int:
    """Return the number of replicas of what is computed now."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def averaged(gradients: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
    """Return the means of gradients over all replicas: those of the whole batch."""
    found = [gradient for gradient in gradients if gradient is not None]
    context = tf.distribute.get_replica_context()
    means = iter(context.all_reduce(tf.distribute.ReduceOp.MEAN, found))
    return [None if gradient is None else next(means) for gradient in gradients]
