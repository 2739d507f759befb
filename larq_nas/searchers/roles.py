"""On what processes and devices a searcher runs, and what a process does that only helps."""

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import tensorflow as tf

from larq_nas.errors import InputError
from larq_nas.run import Run
from larq_nas.searchers import Differentiable, Evolution, Ready, Searcher
from larq_nas.searchers.evolving import Evolving
from larq_nas.tuning import current_role

__all__ = ["require_one_device", "require_role", "work"]


def require_one_device(searcher: Searcher, strategy: object) -> None:
    """Raise `InputError` for a strategy that the searcher does not train on."""
    if isinstance(strategy, tf.distribute.Strategy) and not isinstance(searcher, Differentiable):
        raise InputError(
            f"Searcher `{searcher.name}` trains on one device: leave `strategy` out, and give it "
            "to larq_nas.train for the network that was found."
        )


def require_role(searcher: Searcher, directory: str | Path | None) -> None:
    """Raise `InputError` if processes of keras-tuner are to do what one does."""
    role = current_role()
    if role == "alone":
        return
    if not isinstance(searcher, Evolution):
        raise InputError(
            f"KERASTUNER_ORACLE_IP is set in the environment, but searcher `{searcher.name}` runs "
            "in one process: unset it."
        )
    if directory is None:
        raise InputError(
            f"`directory` must be given to a {role}: one that all processes of the search share."
        )


def work(
    prepared: Ready,
    run: Run,
    callbacks: Sequence[tf.keras.callbacks.Callback],
    verbose: int | str,
) -> NoReturn:
    """Train candidates for a chief, and end the process: the chief returns the network."""
    if verbose:
        print(f"Worker: waiting for the chief of `{run.directory}`", flush=True)
    run.wait_for_chief()
    assert isinstance(prepared, Evolving)
    prepared.work(run, callbacks)
    if verbose:
        print("Worker: the search has ended; the chief trains the found network", flush=True)
    raise SystemExit(0)
