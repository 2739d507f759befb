"""Training on several devices and in several processes."""

import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import tensorflow as tf

from larq_nas.data.validation import DataFacts
from larq_nas.errors import InputError, LarqNasError, ProcessLostError, warn
from larq_nas.log import log
from larq_nas.run_directory import RunDirectory


def require_strategy(strategy: object, batch_size: int) -> None:
    """Raise `InputError` for a strategy that cannot be used, or a batch it cannot divide."""
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
        warn(
            f"Batch norm of {len(apart)} layers, such as `{apart[0]}`, is over the part of a batch "
            "that a replica has: make them with `synchronized=True`, or by "
            "`larq_nas.layers.batch_norm`."
        )


def require_halves(strategy: tf.distribute.Strategy | None, facts: DataFacts) -> None:
    """Raise `InputError` if halves of the data are smaller than a batch, and not divided."""
    half = facts.train_examples // 2
    count = strategy.num_replicas_in_sync if strategy else 1
    if half < facts.batch_size and half % count:
        raise InputError(
            f"`strategy` has {count} replicas, which do not divide the {half} images that "
            "train the weights, or the architecture parameters: batch it by a multiple of "
            f"{count}, {half} or less."
        )


def building_on(strategy: tf.distribute.Strategy | None) -> AbstractContextManager[Any]:
    """Create variables on all devices of `strategy` within a `with` block."""
    return nullcontext() if strategy is None else strategy.scope()


def shared_out(batches: tf.data.Dataset, strategy: tf.distribute.Strategy) -> Any:
    """Return the same batches, of which each replica is given its part of the first axis."""
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
    """Return batches of `(images, labels, weights, counted)` of one size.

    What the last one lacks is not counted, by a 0: replicas can share it, and none is without
    images, of which convolutions give wrong shapes.
    """

    def filled(part: tf.Tensor) -> tf.Tensor:
        missing = [[0, size - tf.shape(part)[0]], *[[0, 0]] * (part.shape.rank - 1)]
        return tf.ensure_shape(tf.pad(part, missing), (size, *part.shape[1:]))

    def whole(images: tf.Tensor, labels: tf.Tensor, *weights: tf.Tensor) -> Any:
        ones = tf.ones(tf.shape(labels)[:1], tf.float32)
        return tuple(filled(part) for part in (images, labels, *(weights or (ones,)), ones))

    return examples.unbatch().batch(size).map(whole, num_parallel_calls=tf.data.AUTOTUNE)


def is_distributed() -> bool:
    """Return whether what is built now is for several replicas."""
    return bool(tf.distribute.has_strategy())


def averaged(gradients: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
    """Return the means of gradients over all replicas: those of the whole batch."""
    found = [gradient for gradient in gradients if gradient is not None]
    context = tf.distribute.get_replica_context()
    means = iter(context.all_reduce(tf.distribute.ReduceOp.MEAN, found))
    return [None if gradient is None else next(means) for gradient in gradients]


_JOBS = ("chief", "worker")
_WAIT_SECONDS = 60.0


def require_one_directory(strategy: object, directory: str | Path | None) -> None:
    """Raise `InputError` if several processes have no directory to share."""
    if process_count(strategy) > 1 and directory is None:
        raise InputError(
            "`directory` must be given with a strategy of several processes: one that all of them "
            "can read."
        )


def verbose_here(strategy: object, directory: str | Path | None, verbose: int | str) -> int | str:
    """Return the `verbose` of this process: the chief reports for all."""
    if verbose not in ("auto", 0, 1, 2):
        raise InputError(f'`verbose` must be "auto", 0, 1 or 2, but got {verbose!r}.')
    if process_index(strategy) == 0:
        return verbose
    if verbose:
        count = process_count(strategy)
        log.info(f"One of {count} processes; the chief writes `{directory}`")
    return 0


@contextmanager
def working_in(
    run: RunDirectory, strategy: tf.distribute.Strategy | None
) -> Iterator[RunDirectory]:
    """Yield the run for this process to work in: the chief's own, or a copy for the others.

    A copy has what was done before, so that all go on from the same, and takes what is
    computed by all alike, so that it is written once. All end together.
    """
    if strategy is None or process_count(strategy) == 1:
        with run:
            yield run
    elif process_index(strategy) == 0:
        with run:
            _meet(strategy)  # there is something to copy
            _meet(strategy)  # it was copied, and may change
            yield run
            _meet(strategy)
    else:
        _meet(strategy)
        run.wait_for_chief(_WAIT_SECONDS)
        with RunDirectory.copy_of(run) as copy:
            _meet(strategy)
            try:
                yield copy
            except LarqNasError as error:
                # It names the files of the run, not those of its copy.
                named = str(error).replace(str(copy.directory), str(run.directory))
                raise type(error)(named) from error
            _meet(strategy)


@contextmanager
def noticing_lost_processes(
    strategy: tf.distribute.Strategy | None, run: RunDirectory
) -> Iterator[None]:
    """Raise `ProcessLostError` if another process ends while this one waits for it.

    All of them must do the same, and find the same in the directory to go on from.
    """
    count = process_count(strategy)
    if strategy is None or count == 1:
        yield
        return
    try:
        _require_alike(run, strategy)
        yield
    except tf.errors.OpError as error:
        # Only what they compute together fails when one of them does.
        if "collective" not in error.message.lower() or isinstance(error, tf.errors.InternalError):
            raise
        raise ProcessLostError(
            f"Another of the {count} processes has ended or cannot be reached: see what it said, "
            "and start all of them again; what was saved by then is gone on from, in "
            f"`{run.directory}`."
        ) from None


def process_count(strategy: object) -> int:
    """Return the number of processes of a strategy."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    cluster = strategy.cluster_resolver.cluster_spec()
    return max(1, sum(cluster.num_tasks(job) for job in cluster.jobs if job in _JOBS))


def process_index(strategy: object) -> int:
    """Return the place of this process among those of a strategy, the chief's being 0."""
    if process_count(strategy) == 1:
        return 0
    assert isinstance(strategy, tf.distribute.Strategy)
    resolver: Any = strategy.cluster_resolver
    has_chief = "chief" in resolver.cluster_spec().jobs
    return int(resolver.task_id) + (has_chief and resolver.task_type == "worker")


def _require_alike(run: RunDirectory, strategy: tf.distribute.Strategy) -> None:
    settings = zlib.crc32(json.dumps(run.settings, sort_keys=True).encode()) & 0xFFFFFF
    if not _is_alike(settings, strategy):
        raise InputError(
            "All processes must be given the same data and settings, but these differ: make the "
            "call the same in each."
        )
    if not _is_alike(run.digest(), strategy):
        raise InputError(
            f"`{run.directory}` must hold the same for all processes: let it be one directory "
            "that they share, and start them again."
        )


def _meet(strategy: tf.distribute.Strategy) -> None:
    """Wait until all processes are here."""
    _summed(1, strategy)


def _is_alike(number: int, strategy: tf.distribute.Strategy) -> bool:
    """Return whether a number of 24 bits is the same in all processes."""
    # The square of a sum is the number of summands times the sum of squares, or less.
    squares = strategy.num_replicas_in_sync * _summed(number * number, strategy)
    return _summed(number, strategy) ** 2 == squares


def _summed(number: int, strategy: tf.distribute.Strategy) -> int:
    @tf.function
    def summed() -> tf.Tensor:
        return strategy.run(
            lambda: tf.distribute.get_replica_context().all_reduce(
                tf.distribute.ReduceOp.SUM, tf.constant(number, tf.int64)
            )
        )

    return int(strategy.experimental_local_results(summed())[0])
