"""Weight decay and colour jitter on and off, on one derived network (BNAS v2, section 2.4)."""

import argparse
import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import tensorflow as tf

import larq_nas
from larq_nas.data.streams import validation_stream
from larq_nas.methods import recipe as recipe_of

from record import record  # isort: skip  (beside this file)

SPLITS = {"train_split": "train[:4000]", "validation_split": "test[:2000]", "image_size": 16}
SIZE = {"cells": 5, "channels": 12}
# The paper's, which acts over 1,250,000 steps, and one that acts in as few as are taken here.
DECAYS = (0.0, 3e-5, 3e-3)


def measure(decay: float, jitter: bool, seed: int, epochs: int, folder: Path) -> dict[str, Any]:
    tf.keras.backend.clear_session()
    train, validation = larq_nas.datasets.load("cifar10", batch_size=64, **SPLITS)
    recipe = dataclasses.replace(
        recipe_of("bnas_v2"),
        weight_decay=decay,
        color_jitter=jitter,
        drop_path=0.0,
    )
    directory = folder / f"decay{decay:g}_jitter{jitter:d}_seed{seed}"
    model = larq_nas.train(
        larq_nas.Architecture.published("bnas_imagenet").with_settings(stem="cifar", **SIZE),
        train,
        validation,
        epochs=epochs,
        recipe=recipe,
        augment="standard",
        seed=seed,
        directory=directory,
        verbose=0,
    )
    result = json.loads((directory / "result.json").read_text())
    # On the images as they are: jittered ones are harder, whatever the network has learnt.
    learnt = model.evaluate(validation_stream(train), verbose=0, return_dict=True)
    print(f"{directory.name}: train {learnt}, test {result['accuracy']:.4f}", flush=True)
    return {
        "weight_decay": recipe.weight_decay,
        "color_jitter": jitter,
        "seed": seed,
        "train_accuracy": learnt["accuracy"],
        "train_loss": learnt["loss"],
        "test_accuracy": result["accuracy"],
        "test_loss": result["loss"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--directory", type=Path, default=Path("runs/regularization"))
    arguments = parser.parse_args()
    measured = [
        measure(decay, jitter, seed, arguments.epochs, arguments.directory)
        for seed in arguments.seeds
        for decay, jitter in itertools.product(DECAYS, (False, True))
    ]
    settings = {"architecture": "bnas_imagenet", "stem": "cifar", **SIZE, "data": "cifar10"}
    settings |= {**SPLITS, "batch_size": 64, "epochs": arguments.epochs, "augment": "standard"}
    record("regularization", {**settings, "seeds": arguments.seeds}, measured)


if __name__ == "__main__":
    main()
