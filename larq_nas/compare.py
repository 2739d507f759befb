"""Architectures on equal terms: trained alike on one data set, several times each."""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.comparing import Entry, read_entries, summarize, table
from larq_nas.errors import DivergenceError, InputError, require_whole
from larq_nas.files import write_atomically, write_table
from larq_nas.latency import Latency
from larq_nas.latency.here import measure_all_here
from larq_nas.pipeline.augment import Augment
from larq_nas.pipeline.check import check_data
from larq_nas.report.comparison import plot_comparison
from larq_nas.spaces import SpaceLike, resolve
from larq_nas.task import check_seed
from larq_nas.train import train as train_one
from larq_nas.training.recipe import RecipeLike, resolve_recipe

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

    Every one is binarized by the same process, as in BATS' Table 5, and trained by one recipe.
    Killed at any moment, the same call goes on. In `directory` it leaves each run,
    `comparison.json`, `comparison.csv` and, where matplotlib is installed, `comparison.png`.

    !!! example
        ```python
        rows = larq_nas.compare(
            ["runs/digits", "bats", "darts_second_order", "random:5", "resnet18_cifar"],
            train,
            validation,
            settings={"cells": 5, "channels": 16},
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
        space: where random architectures are drawn from.
        classes: number of classes; by default one more than the largest training label.
        augment: see `larq_nas.train`.
        latency: whether to time the flatbuffers on this machine.
        verbose: as in `tf.keras.Model.fit`; 0 prints nothing.

    # Returns
        A row for each of `architectures`: `accuracy` (the mean), `spread` (the standard
        deviation, `None` of a single run), `accuracies`, costs, and `microseconds`.

    # Raises
        InputError: if an argument or the data cannot be used; nothing was trained then.

    # References
        - [BATS: Binary ArchitecTure Search](https://arxiv.org/abs/2003.01711)
    """
    require_whole(epochs=epochs)
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"`seeds` must be different whole numbers, but got {seeds!r}.")
    for seed in seeds:
        check_seed(seed)
    training = resolve_recipe(recipe)
    facts = check_data(train, validation, classes, crops=augment is not None)
    resolved = resolve(space)
    shape, number = facts.input_shape, facts.classes
    entries = read_entries(architectures, settings or {}, resolved, shape, number)
    if verbose:
        _announce(entries, len(seeds), epochs)
    place = Path(directory)
    results: dict[Path, dict[str, Any]] = {}
    failures: dict[Path, str] = {}
    for seed in seeds:
        for entry in entries:
            pairs = zip(entry.architectures, entry.folders(place, seed), strict=True)
            for architecture, folder in pairs:
                try:
                    train_one(
                        architecture,
                        train,
                        validation,
                        epochs=epochs,
                        recipe=training,
                        classes=number,
                        augment=augment,
                        directory=folder,
                        seed=seed,
                        verbose=verbose,
                    )
                    text = (folder / "result.json").read_text(encoding="utf-8")
                    results[folder] = json.loads(text)
                except DivergenceError as error:
                    failures[folder] = str(error)
                    warnings.warn(f"`{folder}` is left out: {error}", stacklevel=2)
                tf.keras.backend.clear_session()
    timed = _time(list(results), verbose) if latency else {}
    rows = []
    for entry in entries:
        folders = [folder for seed in seeds for folder in entry.folders(place, seed)]
        ended = [folder for folder in folders if folder in results]
        rows.append(
            summarize(
                entry.label,
                [results[folder] for folder in ended],
                [timed.get(folder) for folder in ended],
                [failures[folder] for folder in folders if folder in failures],
            )
        )
    _write(rows, place, verbose)
    return rows


def _announce(entries: Sequence[Entry], seeds: int, epochs: int) -> None:
    for entry in entries:
        if entry.changes:
            print(f"{entry.label}: {', '.join(entry.changes)}", flush=True)
    networks = sum(len(entry.architectures) for entry in entries)
    print(
        f"Comparison: {networks} networks, {seeds} seeds, {epochs} epochs each: "
        f"{networks * seeds * epochs:,} epochs in all",
        flush=True,
    )


def _time(folders: Sequence[Path], verbose: int | str) -> dict[Path, Latency]:
    """Return what the flatbuffers take; those of one network with other seeds take the same."""
    flatbuffers = {folder: folder / "model.tflite" for folder in folders}
    written = [folder for folder, path in flatbuffers.items() if path.exists()]
    if verbose:
        print(f"Timing {len(written)} flatbuffers, in turns", flush=True)
    found = measure_all_here([flatbuffers[folder].read_bytes() for folder in written])
    for warning in {text for latency in found for text in latency.warnings}:
        warnings.warn(warning, stacklevel=3)
    return dict(zip(written, found, strict=True))


def _write(rows: Sequence[Mapping[str, Any]], directory: Path, verbose: int | str) -> None:
    write_atomically(directory / "comparison.json", json.dumps({"rows": rows}, indent=1) + "\n")
    flat = [{k: v for k, v in row.items() if not isinstance(v, list)} for row in rows]
    write_table(directory / "comparison.csv", flat)
    plotted = plot_comparison(rows, directory / "comparison.png")
    if verbose:
        print(table(rows), flush=True)
        if not plotted:
            print("No plot: matplotlib is not installed; pip install 'larq_nas[plots]'", flush=True)
        print(f"written: {directory}", flush=True)
