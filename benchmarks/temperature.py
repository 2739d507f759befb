"""How hard the choices of a search get, at temperatures 0.2 and 1, same seed and data."""

import argparse
import tempfile
from pathlib import Path

import larq_nas
from larq_nas.data.data import Data
from larq_nas.data.validation import check_data
from larq_nas.run_directory import RunDirectory
from larq_nas.searchers import Differentiable
from larq_nas.spaces import Bats
from larq_nas.training import Recipe
from larq_nas.training.loop import read_history

from record import record  # isort: skip  (beside this file)

COLUMNS = ("epoch", "max_probability", "entropy", "skips_and_pools", "accuracy", "search_accuracy")


def measure(temperature: float, seed: int, epochs: int) -> list[dict[str, float]]:
    train, validation = larq_nas.datasets.load("digits", batch_size=32)
    task = Data(train, validation, check_data(train, validation), seed)
    with tempfile.TemporaryDirectory() as folder:
        searcher = Differentiable(temperature=temperature)
        prepared = searcher.prepare(Bats(cells=3, channels=8), task, None, epochs, Recipe())
        with RunDirectory(Path(folder) / "run", {}) as run:
            prepared.run(run, verbose=2)
            rows = read_history(run.history)
    return [{name: float(row[name]) for name in COLUMNS if name in row} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    measured = []
    for seed in arguments.seeds:
        for temperature in (0.2, 1.0):
            rows = measure(temperature, seed, arguments.epochs)
            measured.append({"temperature": temperature, "seed": seed, "epochs": rows})
            print(f"temperature {temperature}, seed {seed}: {rows[-1]}", flush=True)
    settings = {"space": "bats", "cells": 3, "channels": 8, "data": "digits", "batch_size": 32}
    record("temperature", {**settings, **vars(arguments)}, measured)


if __name__ == "__main__":
    main()
