"""Architectures on equal terms: trained alike on one data set, several times each."""

import dataclasses
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.comparing import Entry, Record, read_entries, summarize
from larq_nas.errors import DivergenceError, InputError, LarqNasError, callers_level, require_whole
from larq_nas.latency import Latency
from larq_nas.latency.here import measure_all_here
from larq_nas.pipeline.augment import Augment
from larq_nas.run import Run
from larq_nas.spaces import SpaceLike, resolve
from larq_nas.task import Task, check_seed, check_task
from larq_nas.train import run_of, train_task
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
    _require_seeds(seeds)
    training = resolve_recipe(recipe)
    task = check_task(train, validation, classes, augment, seeds[0], resolve(space), verbose)
    entries = read_entries(architectures, settings or {}, space, task.facts)
    place = Path(directory)
    record = Record(place, _terms(task, training, epochs, settings or {}))
    jobs = [
        _Job(entry, architecture, dataclasses.replace(task, seed=seed), folder)
        for seed in seeds
        for entry in entries
        for architecture, folder in zip(
            entry.architectures, entry.folders(place, seed), strict=True
        )
    ]
    for job in jobs:
        job.run(training, epochs).check()
    if verbose:
        _announce(entries, record, len(seeds), epochs)
    for job in jobs:
        job.train(training, epochs, verbose)
    rows = record.with_earlier(_rows(entries, jobs, {}))
    record.write(rows)
    if latency:
        rows = record.with_earlier(_rows(entries, jobs, _time(jobs, verbose)))
        record.write(rows)
    if verbose:
        record.show(rows)
    return rows


@dataclasses.dataclass
class _Job:
    """A training of a comparison."""

    entry: Entry
    architecture: Architecture
    task: Task
    folder: Path
    result: dict[str, Any] | None = None
    failure: str | None = None

    def run(self, recipe: Recipe, epochs: int) -> Run:
        return run_of(self.architecture, self.task, recipe, None, epochs, self.folder)

    def train(self, recipe: Recipe, epochs: int, verbose: int | str) -> None:
        """Train, or note why that has no end."""
        run, space = self.run(recipe, epochs), self.entry.space
        if verbose:
            print(f"{self.entry.label}, seed {self.task.seed}: `{self.folder}`", flush=True)
        try:
            train_task(self.architecture, space, self.task, recipe, None, epochs, run, (), verbose)
            self.result = json.loads(run.result.read_text(encoding="utf-8"))
        except DivergenceError as error:
            self.failure = str(error)
            warnings.warn(f"`{self.folder}` is left out: {error}", stacklevel=callers_level())
        tf.keras.backend.clear_session()


def _require_seeds(seeds: Sequence[int]) -> None:
    if not isinstance(seeds, list | tuple | range) or not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"`seeds` must be a list of different whole numbers, but got {seeds!r}.")
    for seed in seeds:
        check_seed(seed)


def _terms(task: Task, recipe: Recipe, epochs: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what all trainings share, but for the seed."""
    shared = {key: value for key, value in task.settings().items() if key != "seed"}
    return {**shared, "recipe": recipe.settings(), "epochs": epochs, "settings": dict(settings)}


def _announce(entries: Sequence[Entry], record: Record, seeds: int, epochs: int) -> None:
    for entry in entries:
        print(f"{entry.label}: {', '.join(entry.told)}", flush=True)
    others = [row["architecture"] for row in record.others([entry.label for entry in entries])]
    if others:
        print(f"Kept from earlier calls: {', '.join(others)}", flush=True)
    networks = sum(len(entry.architectures) for entry in entries)
    print(
        f"Comparison: {networks} networks, {seeds} seeds, {epochs} epochs each: "
        f"{networks * seeds * epochs:,} epochs in all",
        flush=True,
    )


def _time(jobs: Sequence[_Job], verbose: int | str) -> dict[Path, Latency]:
    """Return what the flatbuffers take, of one seed each: those of other seeds take as long."""
    folders: dict[int, Path] = {}
    for job in jobs:
        if (job.folder / "model.tflite").exists():
            folders.setdefault(id(job.architecture), job.folder)
    if verbose:
        print(f"Timing {len(folders)} flatbuffers, in turns", flush=True)
    flatbuffers = [(folder / "model.tflite").read_bytes() for folder in folders.values()]
    try:
        found = measure_all_here(flatbuffers)
    except LarqNasError as error:
        warnings.warn(f"No latencies: {error}", stacklevel=callers_level())
        return {}
    for warning in sorted({text for latency in found for text in latency.warnings}):
        warnings.warn(warning, stacklevel=callers_level())
    return dict(zip(folders.values(), found, strict=True))


def _rows(
    entries: Sequence[Entry], jobs: Sequence[_Job], timed: Mapping[Path, Latency]
) -> list[dict[str, Any]]:
    rows = []
    for entry in entries:
        own = [job for job in jobs if job.entry is entry]
        rows.append(
            summarize(
                entry.label,
                [job.result for job in own if job.result is not None],
                [timed.get(job.folder) for job in own],
                [job.failure for job in own if job.failure is not None],
            )
        )
    return rows
