"""The options of `larq-nas search` that are about evolutions, and its many processes."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from larq_nas.cli.common import named
from larq_nas.errors import InputError, require_whole
from larq_nas.searchers import Searcher
from larq_nas.tuning import current_role, launch

__all__ = ["evolution_options", "launch_workers"]

_OPTIONS = (
    click.option("--population", type=int, help="Candidates of a generation [default: 32]."),
    click.option(
        "--candidate-epochs", type=int, help="Epochs each candidate is trained for [default: 10]."
    ),
    click.option(
        "--widest-epochs",
        type=int,
        help="Epochs of the widest network, which candidates start from [default: 150].",
    ),
    click.option("--subset", type=int, help="Images that candidates train on; by default all."),
    click.option(
        "--trade-off",
        type=float,
        help="Evolution: points of accuracy given for the operations of the original network "
        "[default: 4]; dimension: loss for each MiB above --memory-target [default: 0.01].",
    ),
    click.option("--strategy", help="genetic, aging or random [default: genetic]."),
    click.option(
        "--objectives",
        callback=lambda _, __, text: None if text is None else tuple(named(text)),
        help="What to maximize, such as accuracy,memory for a Pareto front [default: fitness].",
    ),
    click.option("--keep", type=int, help="Candidates whose weights are kept [default: 3]."),
    click.option(
        "--shared/--rebuilt",
        default=None,
        help="One trace for all candidates, or a network for each: the same results, slower.",
    ),
    click.option(
        "--worker-timeout",
        type=float,
        help="Seconds after which a silent worker's candidate is given to another [default: 60].",
    ),
    click.option(
        "--workers",
        type=int,
        help="Processes on this machine that train candidates at the same time.",
    ),
)


def evolution_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give `command` the options of an evolution."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def launch_workers(workers: int | None, searcher: Searcher, directory: Path) -> None:
    """Run this command again as a chief and workers, and end with the chief's status.

    # Arguments
        workers: number of workers; `None` goes on in this process.
        searcher: must be one that many processes can run.
        directory: directory of the run.
    """
    if workers is None or current_role() != "alone":
        return
    require_whole(workers=workers)
    if searcher.name != "evolution":
        raise InputError(f"`--workers` needs `--searcher evolution`, but got {searcher.name}.")
    command = [sys.executable, "-m", "larq_nas.cli", *sys.argv[1:]]
    raise SystemExit(launch(command, workers, directory))
