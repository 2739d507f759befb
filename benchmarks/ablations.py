"""BATS' Tables 3 and 4 in small: what temperature and domain of a search do to what is found."""

import argparse
import json
from pathlib import Path
from typing import Any

import tensorflow as tf

import larq_nas
from larq_nas.choices import share_parameter_free
from larq_nas.supernet.relax import Relax
from larq_nas.training.loop import read_history

from record import record  # isort: skip  (beside this file)

DATA: dict[str, Any] = {
    "train_split": "train[:2400]",
    "validation_split": "test[:2000]",
    "image_size": 12,
}
SPACE = larq_nas.spaces.Bats(cells=3, nodes=3, channels=12, search_channels=8)
# The last of each is what the paper searches with: one run for both tables.
TABLES: dict[str, dict[str, dict[str, Any]]] = {
    "temperature": {
        "T=1": {"temperature": 1.0},
        "T=0.5": {"temperature": 0.5},
        "T=0.2, 0.15 in reductions": {},
    },
    "domain": {
        "real weights, real activations": {"activations": "real"},
        "binary weights, binary activations": {"weights": "binary"},
        "binary weights, real activations": {"weights": "binary", "activations": "real"},
        "real weights, binary activations": {},
    },
}


def measure(
    label: str, settings: dict[str, Any], seed: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Search, train what is found, and return both in figures; or go on where that was."""
    tf.keras.backend.clear_session()
    train, validation = larq_nas.datasets.load("cifar10", batch_size=48, **DATA)
    name = "_".join(f"{key}={value}" for key, value in settings.items()) or "published"
    directory = arguments.folder / f"{name}_seed{seed}"
    learning_rate = arguments.architecture_learning_rate
    larq_nas.search(
        train,
        validation,
        SPACE,
        {**settings, "architecture_learning_rate": learning_rate},
        epochs=arguments.epochs,
        train_epochs=arguments.train_epochs,
        augment="standard",
        seed=seed,
        directory=directory,
        verbose=2,
    )
    history = read_history(directory / "history.csv")
    architecture = larq_nas.Architecture.load(directory / "architecture.json")
    result = json.loads((directory / "result.json").read_text())
    return {
        "label": label,
        "seed": seed,
        "parameter_free": parameter_free(architecture),
        "cells": dict(architecture.choices),
        "accuracy": result["accuracy"],
        "binary_macs": result["costs"]["binary_macs"],
        "search": [row for row in history if row["stage"] == "search"],
    }


def parameter_free(architecture: larq_nas.Architecture) -> float:
    """Return the share of the chosen operations that have no weights."""
    choose = Relax()
    SPACE.build(choose, (DATA["image_size"], DATA["image_size"], 3), 10)
    chosen = {
        name: choose.choices[name].decode(value) for name, value in architecture.choices.items()
    }
    return share_parameter_free(choose.choices, chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--train-epochs", type=int, default=6)
    parser.add_argument("--architecture-learning-rate", type=float, default=1e-2)
    parser.add_argument("--folder", type=Path, default=Path("runs/ablations"))
    arguments = parser.parse_args()
    rows = []
    for seed in arguments.seeds:
        for label, settings in TABLES[arguments.table].items():
            rows.append(measure(label, settings, seed, arguments))
            shown = {key: rows[-1][key] for key in ("label", "seed", "parameter_free", "accuracy")}
            print(shown, flush=True)
    settings = {name: value for name, value in vars(arguments).items() if name != "folder"}
    record(f"ablation_{arguments.table}", {**settings, **DATA, **SPACE.settings()}, rows)


if __name__ == "__main__":
    main()
