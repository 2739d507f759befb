"""Several processes that train one network; one of them, the chief, keeps the run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow as tf

from larq_nas.errors import InputError, ProcessLostError
from larq_nas.run import Run

__all__ = ["noticing_lost_processes", "require_one_directory", "verbose_here", "working_in"]

_JOBS = ("chief", "worker")


def require_one_directory(
    strategy: tf.distribute.Strategy | None, directory: str | Path | None
) -> None:
    """Raise `InputError` if several processes have no directory to share."""
    if _count(strategy) > 1 and directory is None:
        raise InputError(
            "`directory` must be given with a strategy of several processes: one that all of them "
            "can read."
        )


def verbose_here(
    strategy: tf.distribute.Strategy | None, directory: str | Path | None, verbose: int | str
) -> int | str:
    """Return the `verbose` of this process: the chief reports for all."""
    if _is_chief(strategy):
        return verbose
    if verbose:
        print(f"One of {_count(strategy)} processes; the chief writes `{directory}`", flush=True)
    return 0


@contextmanager
def working_in(run: Run, strategy: tf.distribute.Strategy | None) -> Iterator[Run]:
    """Yield the run for this process to work in: the chief's own, or a copy for the others.

    A copy has what was done before, so that all go on from the same, and takes what is
    computed by all alike, so that it is written once.
    """
    if strategy is None or _count(strategy) == 1:
        with run:
            yield run
    elif _is_chief(strategy):
        with run:
            _meet(strategy)  # there is something to copy
            _meet(strategy)  # it was copied, and may change
            yield run
    else:
        _meet(strategy)
        run.wait_for_chief()
        with Run.copy_of(run) as copy:
            _meet(strategy)
            yield copy


@contextmanager
def noticing_lost_processes(strategy: tf.distribute.Strategy | None, run: Run) -> Iterator[None]:
    """Raise `ProcessLostError` if another process has ended while this one waits for it."""
    try:
        yield
    except tf.errors.OpError as error:
        # Only what they compute together fails when one of them does.
        if _count(strategy) == 1 or "collective" not in error.message.lower():
            raise
        raise ProcessLostError(
            f"Another of the {_count(strategy)} processes has ended or cannot be reached: see what "
            "it said, start all of them again, and the same call goes on from the last checkpoint "
            f"in `{run.directory}`."
        ) from error


def _count(strategy: tf.distribute.Strategy | None) -> int:
    # What is no strategy is refused when the data is checked.
    resolver = getattr(strategy, "cluster_resolver", None)
    if resolver is None:
        return 1
    cluster = resolver.cluster_spec()
    return max(1, sum(cluster.num_tasks(job) for job in cluster.jobs if job in _JOBS))


def _is_chief(strategy: tf.distribute.Strategy | None) -> bool:
    if strategy is None or _count(strategy) == 1:
        return True
    resolver: Any = strategy.cluster_resolver
    first = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return bool(resolver.task_type == first and resolver.task_id == 0)


def _meet(strategy: tf.distribute.Strategy) -> None:
    """Wait until all processes are here."""

    @tf.function
    def summed() -> tf.Tensor:
        return strategy.run(
            lambda: tf.distribute.get_replica_context().all_reduce(
                tf.distribute.ReduceOp.SUM, tf.ones(())
            )
        )

    strategy.experimental_local_results(summed())
