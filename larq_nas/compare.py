"""Architectures on equal terms: trained alike on one data set, several times each."""

import statistics
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.comparing import (
    Entry,
    Job,
    Record,
    drawn_from,
    finished_before,
    jobs_of,
    read_entries,
    summarize,
)
from larq_nas.errors import InputError, LarqNasError, callers_level, require_whole
from larq_nas.latency.here import measure_all_here
from larq_nas.pipeline.augment import Augment
from larq_nas.spaces import SpaceLike
from larq_nas.task import Task, check_seed, check_task
from larq_nas.training.recipe import Recipe
from larq_nas.training.recipes import RecipeLike, resolve_recipe

__all__ = ["compare"]


def compare(
    architectures: Sequence[str | Path | Architecture],
    train: tf.data.Dataset,
    validation: tf.data.Dataset,
    *,
    directory: str | Path,
    seeds: Sequence[int] = (0, 1, 2),
    epochs: int = 100,
    recipe: RecipeLike = "bats",
    settings: Mapping[str, Any] | None = None,
    space: SpaceLike = "bats",
    classes: int | None = None,
    augment: str | Augment | None = None,
    latency: bool = True,
    verbose: int | str = "auto",
) -> list[dict[str, Any]]:
    """Train architectures alike, several times each, and compare what comes of them.

    Real cells, and networks by name, are binarized by one process, as in BATS' Table 5 (section 3),
    and all are trained by one recipe.
    Killed at any moment, the same call goes on; further architectures and seeds are added to what
    a call has left. In `directory` that is each run, `comparison.json`, `comparison.csv` and,
    where matplotlib is installed, `comparison.png`.

    !!! example
        ```python
        rows = larq_nas.compare(
            ["runs/digits", "bats", "darts_second_order", "random:5", "resnet18_cifar"],
            train,
            validation,
            settings={"cells": 5, "channels": 24},
            epochs=20,
            directory="runs/comparison",
        )
        ```

    # Arguments
        architectures: each the directory of a run, the file of an architecture, the name of a
            published one or of a backbone (`resnet18_cifar`), an `Architecture`, or
            `"random:5"`: five of `space`, which are one row.
        train: batches of `(images, labels)`, in a fixed order.
        validation: batches of `(images, labels)` that are only measured on.
        directory: where the runs and the comparison are kept.
        seeds: a training for each.
        epochs: number of epochs of each training.
        recipe: how all of them are trained, a `larq_nas.training.Recipe` or the name of one.
        settings: settings of spaces, such as `cells`, for each that has them.
        space: where random architectures are drawn from: by name in the settings of the
            published architecture of that name, otherwise as given.
        classes: number of classes; by default one more than the largest training label.
        augment: see `larq_nas.train`.
        latency: whether to time the flatbuffers on this machine.
        verbose: as in `tf.keras.Model.fit`; 0 prints nothing.

    # Returns
        A row for each of `architectures`, and for those of earlier calls: `accuracy` (the mean),
        `spread` (the standard deviation, `None` of a single run), `accuracies`, costs, and
        `microseconds`.

    # Raises
        InputError: if an argument or the data cannot be used; nothing was trained then.

    # References
        - [BATS: Binary ArchitecTure Search](https://arxiv.org/abs/2003.01711)
    """
    require_whole(epochs=epochs)
    _require(seeds, directory, settings)
    training, drawn, place = resolve_recipe(recipe), drawn_from(space), Path(directory)
    task = check_task(train, validation, classes, augment, seeds[0], drawn, verbose)
    record = Record(place, _terms(task, training, epochs, settings or {}))
    facts = task.facts
    entries = read_entries(architectures, settings or {}, drawn, facts, training, record.has_rows)
    jobs = [job for seed in seeds for entry in entries for job in jobs_of(entry, task, place, seed)]
    before = [job for entry in entries for job in finished_before(entry, task, place, seeds)]
    for job in (*jobs, *before):
        job.run(training, epochs).check()
    if verbose:
        _announce(entries, before, record, len(seeds), epochs)
    for job in jobs:
        job.read()
    with record:
        for job in jobs:
            job.train(training, epochs, verbose)
            rows = record.with_earlier(_rows(entries, [*jobs, *before], place))
            record.write(rows)
        if latency:
            _time(rows, place, verbose)
            record.write(rows)
    if verbose:
        record.show(rows)
    return rows


def _require(seeds: object, directory: object, settings: object) -> None:
    given = seeds if isinstance(seeds, list | tuple | range) else ()
    for seed in given:
        check_seed(seed)
    if not given or len(set(given)) < len(given):
        raise InputError(f"`seeds` must be a list of different whole numbers, but got {seeds!r}.")
    if not isinstance(directory, str | Path):
        raise InputError(f"`directory` must be the path of a folder, but got {directory!r}.")
    if settings is not None and not isinstance(settings, Mapping):
        raise InputError(f"`settings` must be a mapping of names to values, but got {settings!r}.")


def _terms(task: Task, recipe: Recipe, epochs: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what all trainings share, but for the seed."""
    shared = {key: value for key, value in task.settings().items() if key != "seed"}
    return {**shared, "recipe": recipe.settings(), "epochs": epochs, "settings": dict(settings)}


def _announce(
    entries: Sequence[Entry], before: Sequence[Job], record: Record, seeds: int, epochs: int
) -> None:
    for entry in entries:
        print(f"{entry.label}: {', '.join(entry.told)}", flush=True)
        known = sorted({job.task.seed for job in before if job.entry is entry})
        if known:
            print(f"{entry.label}: seeds {', '.join(map(str, known))} were done before", flush=True)
    others = [row["architecture"] for row in record.others([entry.label for entry in entries])]
    if others:
        print(f"Kept from earlier calls: {', '.join(others)}", flush=True)
    networks = sum(len(entry.architectures) for entry in entries)
    print(
        f"Comparison: {networks} networks, {seeds} seeds, {epochs} epochs each: "
        f"{networks * seeds * epochs:,} epochs in all",
        flush=True,
    )


def _rows(entries: Sequence[Entry], jobs: Sequence[Job], place: Path) -> list[dict[str, Any]]:
    """Return the rows of what has ended, and where their networks are, one seed of each."""
    rows = []
    for entry in entries:
        own = sorted((job for job in jobs if job.entry is entry), key=lambda job: job.task.seed)
        results = [job.result for job in own if job.result is not None]
        failures = [job.failure for job in own if job.failure is not None]
        networks: dict[int, str] = {}
        for job in own:
            if job.result is not None and job.flatbuffer.exists():
                path = job.flatbuffer.relative_to(place).as_posix()
                networks.setdefault(id(job.architecture), path)
        if results or failures:
            row = summarize(entry.label, results, failures)
            rows.append({**row, "flatbuffers": sorted(networks.values())})
    return rows


def _time(rows: Sequence[dict[str, Any]], place: Path, verbose: int | str) -> None:
    """Time the networks of all rows, those of earlier calls too, in turns: loads change."""
    paths = [path for row in rows for path in row["flatbuffers"] if (place / path).exists()]
    if verbose:
        print(f"Timing {len(paths)} flatbuffers, in turns", flush=True)
    try:
        found = measure_all_here([(place / path).read_bytes() for path in paths])
    except LarqNasError as error:
        warnings.warn(f"No latencies: {error}", stacklevel=callers_level())
        return
    for warning in sorted({text for latency in found for text in latency.warnings}):
        warnings.warn(warning, stacklevel=callers_level())
    timed = {path: one.microseconds for path, one in zip(paths, found, strict=True)}
    for row in rows:
        times = [timed[path] for path in row["flatbuffers"] if path in timed]
        row["microseconds"] = statistics.mean(times) if times else None
