"""Several processes that train one network; one of them, the chief, keeps the run."""

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow as tf

from larq_nas.errors import InputError, LarqNasError, ProcessLostError
from larq_nas.run import Run

__all__ = [
    "noticing_lost_processes",
    "process_count",
    "process_index",
    "require_one_directory",
    "verbose_here",
    "working_in",
]

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
    if process_index(strategy) == 0:
        return verbose
    if verbose:
        count = process_count(strategy)
        print(f"One of {count} processes; the chief writes `{directory}`", flush=True)
    return 0


@contextmanager
def working_in(run: Run, strategy: tf.distribute.Strategy | None) -> Iterator[Run]:
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
        with Run.copy_of(run) as copy:
            _meet(strategy)
            with _named_after(run, copy):
                yield copy
            _meet(strategy)


@contextmanager
def noticing_lost_processes(strategy: tf.distribute.Strategy | None, run: Run) -> Iterator[None]:
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


@contextmanager
def _named_after(run: Run, copy: Run) -> Iterator[None]:
    """Let errors name the files of `run`, not those of its copy."""
    try:
        yield
    except LarqNasError as error:
        raise type(error)(str(error).replace(str(copy.directory), str(run.directory))) from error


def _require_alike(run: Run, strategy: tf.distribute.Strategy) -> None:
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
