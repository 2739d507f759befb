"""Whether a search in bfloat16 is that in float32: what it chooses, by seed and precision."""

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import larq_nas
from larq_nas.layers import ComputedIn
from larq_nas.spaces import Bnas
from larq_nas.training.loop import read_history

from record import record  # isort: skip  (beside this file)

SPLITS = {"train_split": "train[:4000]", "validation_split": "test[:1000]", "image_size": 16}
SPACE = Bnas(cells=3, channels=8)
FIGURES = ("accuracy", "search_accuracy", "entropy", "zero", "skips_and_pools")
PRECISIONS: tuple[ComputedIn, ...] = ("float32", "bfloat16")


def measure(precision: ComputedIn, seed: int, epochs: int, folder: Path) -> dict[str, Any]:
    tf.keras.backend.clear_session()
    data = larq_nas.datasets.load("cifar10", batch_size=50, **SPLITS)
    directory = folder / f"{precision}_seed{seed}"
    searcher = {"precision": precision, "architecture_learning_rate": 0.01}
    start = time.perf_counter()
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
    seconds = time.perf_counter() - start
    rows = [row for row in read_history(directory / "history.csv") if row["stage"] == "search"]
    return {
        "precision": precision,
        "seed": seed,
        "seconds": seconds,
        "history": {name: [float(row[name]) for row in rows] for name in FIGURES},
        "probabilities": last_probabilities(directory / "probabilities.csv"),
    }


def last_probabilities(path: Path) -> list[float]:
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    last = max(int(row["epoch"]) for row in rows)
    return [float(row["probability"]) for row in rows if int(row["epoch"]) == last]


def distances(measured: list[dict[str, Any]], key: str, other: str) -> list[float]:
    """Return how far probabilities are apart in the mean, of pairs with equal `key` only."""
    return [
        float(np.abs(np.subtract(a["probabilities"], b["probabilities"])).mean())
        for index, a in enumerate(measured)
        for b in measured[index + 1 :]
        if a[key] == b[key] and a[other] != b[other]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--folder", type=Path, default=Path("runs/precision"))
    arguments = parser.parse_args()
    measured = [
        measure(precision, seed, arguments.epochs, arguments.folder)
        for seed in arguments.seeds
        for precision in PRECISIONS
    ]
    for precision in PRECISIONS:
        of_it = [one for one in measured if one["precision"] == precision]
        for name in FIGURES:
            print(precision, name, [round(one["history"][name][-1], 3) for one in of_it])
    print("mean distance of probabilities, one seed, two precisions:")
    print(distances(measured, "seed", "precision"))
    print("one precision, two seeds:", distances(measured, "precision", "seed"))
    settings = {**SPLITS, **SPACE.settings(), "epochs": arguments.epochs}
    record("precision", settings, measured)


if __name__ == "__main__":
    main()
