"""What a search found beside published cells, random ones and ResNet-18, trained alike."""

import argparse
from pathlib import Path

import larq_nas

from record import record  # isort: skip  (beside this file)

DATA = {
    "train_split": "train[:2400]",
    "validation_split": "test[:2000]",
    "image_size": 16,
    "batch_size": 48,
}
# The settings that the cells were searched in. ResNet-18 as wide as this takes as many binary MACs.
SETTINGS = {"cells": 3, "channels": 12, "groups": 1, "activation": "relu", "expansion": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("searched", type=Path, help="the directory of a search of space bats")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=Path("runs/comparison"))
    arguments = parser.parse_args()
    train, validation = larq_nas.datasets.load("cifar10", **DATA)
    rows = larq_nas.compare(
        [arguments.searched, "bats", "random:5", "resnet18_cifar"],
        train,
        validation,
        directory=arguments.folder,
        seeds=arguments.seeds,
        epochs=arguments.epochs,
        settings=SETTINGS,
        augment="standard",
        verbose=2,
    )
    settings = {"seeds": arguments.seeds, "epochs": arguments.epochs, **DATA, **SETTINGS}
    rows = [{**rows[0], "architecture": "searched"}, *rows[1:]]
    for row in rows:
        del row["flatbuffers"]
    record("comparison", settings, rows)


if __name__ == "__main__":
    main()
