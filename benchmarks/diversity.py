"""What BNAS searches choose, with the diversity regularizer and without, epoch by epoch."""

import argparse
import csv
import json
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

import tensorflow as tf

import larq_nas
from larq_nas.spaces import Bnas
from larq_nas.training.loop import read_history

from record import record  # isort: skip  (beside this file)

SPLITS = {"train_split": "train[:10000]", "validation_split": "test[:1000]", "image_size": 16}
SPACE = Bnas(cells=3, channels=8)
WEIGHTS = (0.0, 1.0)
# The paper's 50 epochs, in fewer: alphas go as far as in its 391 steps at 3e-4 each, and the
# regularizer is annealed in the same share of the search.
EPOCHS, TAU = 50, 7.7
FAR = EPOCHS * 391 * 3e-4
STEPS = 100
FIGURES = ("entropy", "flip_ratio", "accuracy", "search_accuracy", "zero", "skips_and_pools")


def measure(weight: float, seed: int, epochs: int, folder: Path) -> dict[str, Any]:
    tf.keras.backend.clear_session()
    data = larq_nas.datasets.load("cifar10", batch_size=50, **SPLITS)
    searcher = {
        "diversity": weight,
        "diversity_annealing": TAU * epochs / EPOCHS,
        "architecture_learning_rate": FAR / (STEPS * epochs),
    }
    directory = folder / f"diversity{weight:g}_seed{seed}"
    larq_nas.search(
        *data,
        SPACE,
        searcher,
        epochs=epochs,
        train_epochs=0,
        seed=seed,
        directory=directory,
        verbose=2,
    )
    rows = [row for row in read_history(directory / "history.csv") if row["stage"] == "search"]
    return {
        "diversity": weight,
        "seed": seed,
        "operations": chosen_by_epoch(directory / "probabilities.csv"),
        "probabilities": mean_by_epoch(directory / "probabilities.csv"),
        "history": {name: [float(row[name]) for row in rows] for name in FIGURES},
        "cells": json.loads((directory / "architecture.json").read_text())["choices"],
    }


def read_edges(path: Path) -> list[dict[str, list[dict[str, float]]]]:
    """Return for each epoch the probabilities on the edges of each choice."""
    found: dict[int, dict[str, dict[int, dict[str, float]]]] = {}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            choice = found.setdefault(int(row["epoch"]), {}).setdefault(row["choice"], {})
            choice.setdefault(int(row["input"]), {})[row["operation"]] = float(row["probability"])
    return [
        {name: list(edges.values()) for name, edges in found[epoch].items()}
        for epoch in sorted(found)
    ]


def chosen_by_epoch(path: Path) -> list[dict[str, int]]:
    """Return how often each operation would be chosen after each epoch, in both kinds of cells."""
    counted = []
    for choices in read_edges(path):
        counts: Counter[str] = Counter()
        for edges in choices.values():
            strongest = sorted(edges, key=lambda edge: -max(edge.values()))[:2]
            counts.update(max(edge, key=lambda name: edge[name]) for edge in strongest)
        counted.append(dict(counts))
    return counted


def mean_by_epoch(path: Path) -> list[dict[str, float]]:
    """Return the mean probability of each operation over all edges after each epoch."""
    means = []
    for choices in read_edges(path):
        edges = [edge for of_choice in choices.values() for edge in of_choice]
        means.append({name: fmean(edge[name] for edge in edges) for name in edges[0]})
    return means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--weights", type=float, nargs="+", default=WEIGHTS)
    parser.add_argument("--directory", type=Path, default=Path("runs/diversity"))
    arguments = parser.parse_args()
    measured = [
        measure(weight, seed, arguments.epochs, arguments.directory)
        for seed in arguments.seeds
        for weight in arguments.weights
    ]
    space = {"space": SPACE.name, **SPACE.settings()}
    settings = {**space, "data": "cifar10", **SPLITS, "batch_size": 50}
    settings |= {"epochs": arguments.epochs, "seeds": arguments.seeds}
    record("diversity", settings, measured)


if __name__ == "__main__":
    main()
