"""Choose among several networks that were found, by a training of each."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from larq_nas.architecture import Architecture, read_ranking
from larq_nas.cost import Limits
from larq_nas.errors import DivergenceError, warn
from larq_nas.files import write_table
from larq_nas.log import log
from larq_nas.run_directory import RunDirectory
from larq_nas.training.loop import forgetting_graphs

__all__ = ["best_of_ranking", "best_of_seeds", "ranked"]

Measure: TypeAlias = Callable[[Architecture, RunDirectory], Mapping[str, float]]
"""Trains a network in a directory, and returns its accuracy and loss on images held out."""

_MEASURED = ("accuracy", "loss")


def best_of_seeds(
    seeds: Sequence[int],
    run: RunDirectory,
    find: Callable[[int, RunDirectory], Architecture],
    measure: Measure,
    verbose: int | str,
) -> Architecture:
    """Return the best of what searches of several seeds find, each in a run of its own.

    # Raises
        DivergenceError: if each of them raised one; otherwise those that did are left out.
    """
    rows: list[dict[str, Any]] = []
    found: list[Architecture] = []
    for number, seed in enumerate(seeds, 1):
        if verbose:
            log.info(f"Search {number} of {len(seeds)}, seed {seed}")
        settings = {**run.settings, "seed": seed}
        try:
            place = run.directory / f"seed{seed}"
            part = RunDirectory(place, settings, continues=run.continues)
            with forgetting_graphs(), part:
                if not part.architecture.exists():
                    find(seed, part).save(part.architecture)
                architecture = Architecture.load(part.architecture)
                figures = measure(architecture, part.part("pick"))
        except DivergenceError as error:
            # The searches of the other seeds may have taken days.
            if number == len(seeds) and not rows:
                raise
            warn(f"Seed {seed} is left out: {error}")
            continue
        found.append(architecture)
        rows.append({"seed": seed, **{name: f"{figures[name]:.6g}" for name in _MEASURED}})
        write_table(run.seeds, rows)
    best = max(range(len(rows)), key=lambda i: (float(rows[i]["accuracy"]), -i))
    if verbose:
        told = ", ".join(f"{row['seed']}: {float(row['accuracy']):.2%}" for row in rows)
        log.info(f"Seeds on the images held out: {told}; seed {rows[best]['seed']} goes on")
    return found[best]


def ranked(
    architecture: Architecture, run: RunDirectory, limits: Limits | None
) -> list[Architecture]:
    """Return different architectures, the best first, which is the one that was found.

    # Raises
        InputError: if the searcher has left none.
    """
    found = {json.dumps(architecture.choices, sort_keys=True): architecture}
    for one in read_ranking(run.ranking):
        if limits and not limits.allow(one.choices):
            warn("A candidate of the ranking is left out, as it is over the budget.")
            continue
        found.setdefault(json.dumps(one.choices, sort_keys=True), one)
    return list(found.values())


def best_of_ranking(
    best: Sequence[Architecture],
    run: RunDirectory,
    measure: Measure,
    verbose: int | str,
) -> Architecture:
    """Return the best of several architectures after a whole training of each.

    # Raises
        DivergenceError: if each of these diverged; otherwise those that did are left out.
    """
    if len(best) == 1:
        warn("`retrain` has no effect: the search has ranked one candidate.")
        return best[0]
    rows: list[dict[str, Any]] = []
    for number, architecture in enumerate(best, 1):
        if verbose:
            log.info(f"Training the best candidates: {number} of {len(best)}")
        try:
            with forgetting_graphs():
                figures = measure(architecture, run.part(f"retrain/{number}"))
        except DivergenceError as error:
            if number == len(best) and not rows:
                raise
            warn(f"Candidate {number} of the ranking is left out: {error}")
            continue
        row = {"rank": number, **{name: f"{figures[name]:.6g}" for name in _MEASURED}}
        choices = {n: json.dumps(v).strip('"') for n, v in architecture.choices.items()}
        rows.append({**row, **choices})
        write_table(run.retrained, rows)
    chosen = max(rows, key=lambda row: (float(row["accuracy"]), -row["rank"]))["rank"]
    if verbose:
        told = ", ".join(f"{row['rank']}: {float(row['accuracy']):.2%}" for row in rows)
        log.info(f"By rank, on the images held out: {told}; number {chosen} goes on")
    return best[chosen - 1]
