"""BATS' Tables 3 and 4 in small: what temperature and domain of a search do to what is found."""

import argparse
import json
from pathlib import Path
from typing import Any

import tensorflow as tf

import larq_nas
from larq_nas.choices import share_parameter_free
from larq_nas.choosers import Relax
from larq_nas.searchers import Differentiable
from larq_nas.training.history import read_history

from record import record  # isort: skip  (beside this file)

DATA: dict[str, Any] = {
    "train_split": "train[:4000]",
    "validation_split": "test[:4000]",
    "image_size": 16,
}
SPACE = larq_nas.spaces.Bats(cells=5, channels=12, search_channels=8)
TABLES: dict[str, dict[str, dict[str, Any]]] = {
    "temperature": {f"T={value}": {"temperature": value} for value in (1.0, 0.5, 0.2)},
    "domain": {
        f"{weights} weights, {activations} activations": {
            "weights": weights,
            "activations": activations,
        }
        for weights, activations in (
            ("real", "real"),
            ("binary", "binary"),
            ("binary", "real"),
            ("real", "binary"),
        )
    },
}


def measure(
    label: str, settings: dict[str, Any], seed: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Search, train what is found, and return both in figures; or go on where that was."""
    tf.keras.backend.clear_session()
    train, validation = larq_nas.datasets.load("cifar10", batch_size=48, **DATA)
    directory = arguments.folder / f"{label.replace(' ', '_').replace(',', '')}_seed{seed}"
    learning_rate = arguments.architecture_learning_rate
    larq_nas.search(
        train,
        validation,
        SPACE,
        Differentiable(**settings, architecture_learning_rate=learning_rate),
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
    SPACE.build(choose, (16, 16, 3), 10)
    chosen = {
        name: choose.choices[name].decode(value) for name, value in architecture.choices.items()
    }
    return share_parameter_free(choose.choices, chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--train-epochs", type=int, default=20)
    parser.add_argument("--architecture-learning-rate", type=float, default=3e-3)
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
