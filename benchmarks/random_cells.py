"""A searched cell against random cells of its space, all trained alike on CIFAR-10."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import larq_nas
from larq_nas.spaces.chooser import Sample
from larq_nas.training.loop import read_history

from record import record  # isort: skip  (beside this file)

SPLITS = {"train_split": "train[:4000]", "validation_split": "test[:2000]", "image_size": 16}
SIZE = {"cells": 5, "channels": 12}
SEARCHED = Path(__file__).parent / "results" / "diversity.json"
TRANSFER_FACTOR = 3.0
KINDS = ("searched", "without regularizer", "random", "zeros weakened", "random reduction")


def architectures(count: int, searches: Path) -> dict[str, larq_nas.Architecture]:
    """Return the cells found with the regularizer, those found without, and random ones.

    Then the found ones again, to see what the zeros of their reduction cells do: derived with
    the transfer factor of the paper, and with the reduction cells of the random ones.
    """
    cells: dict[str, Any] = {}
    for run in json.loads(SEARCHED.read_text())["measured"]:
        kind = "searched" if run["diversity"] else "without regularizer"
        cells[f"{kind} {run['seed']}"] = run["cells"]
    for seed in range(count):
        choose = Sample.seeded(seed)
        larq_nas.spaces.Bnas(**SIZE).build(choose, (16, 16, 3), 10)
        cells[f"random {seed}"] = choose.values
    for name in [name for name in cells if name.startswith("searched")]:
        seed = name.split()[-1]
        run = searches / f"diversity1_seed{seed}"
        again = larq_nas.derive(run, transfer_factor=TRANSFER_FACTOR)
        cells[f"zeros weakened {seed}"] = again.choices
        cells[f"random reduction {seed}"] = {
            choice: cells[f"random {seed}" if choice.startswith("reduction") else name][choice]
            for choice in cells[name]
        }
    return {name: larq_nas.Architecture("bnas", SIZE, found) for name, found in cells.items()}


def measure(
    name: str, architecture: larq_nas.Architecture, seed: int, epochs: int, folder: Path
) -> dict[str, Any]:
    tf.keras.backend.clear_session()
    data = larq_nas.datasets.load("cifar10", batch_size=64, **SPLITS)
    directory = folder / f"{name.replace(' ', '_')}_seed{seed}"
    larq_nas.train(
        architecture,
        *data,
        epochs=epochs,
        recipe="bnas_v2",
        augment="standard",
        seed=seed,
        directory=directory,
        verbose=0,
    )
    result = json.loads((directory / "result.json").read_text())
    last = read_history(directory / "history.csv")[-1]
    print(f"{name}, seed {seed}: {result['accuracy']:.4f}", flush=True)
    kept = {key: result["costs"][key] for key in ("parameters", "binary_macs", "macs")}
    figures = {"train_accuracy": float(last["accuracy"]), "test_accuracy": result["accuracy"]}
    return {"name": name, "seed": seed, **figures, **kept, "choices": dict(architecture.choices)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--random", type=int, default=5)
    parser.add_argument("--searches", type=Path, default=Path("runs/diversity"))
    parser.add_argument("--directory", type=Path, default=Path("runs/random_cells"))
    arguments = parser.parse_args()
    measured = [
        measure(name, architecture, seed, arguments.epochs, arguments.directory)
        for seed in arguments.seeds
        for name, architecture in architectures(arguments.random, arguments.searches).items()
    ]
    for kind in KINDS:
        found = [row["test_accuracy"] for row in measured if row["name"].rpartition(" ")[0] == kind]
        print(f"{kind}: mean {np.mean(found):.4f}, deviation {np.std(found, ddof=1):.4f}")
    settings = {"space": "bnas", **SIZE, "data": "cifar10", **SPLITS, "batch_size": 64}
    settings |= {"recipe": "bnas_v2", "augment": "standard", "epochs": arguments.epochs}
    settings |= {"transfer_factor": TRANSFER_FACTOR}
    record("random_cells", {**settings, "seeds": arguments.seeds}, measured)


if __name__ == "__main__":
    main()
