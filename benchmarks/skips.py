"""How large gradients are at the first cells, with the skips between cells and without."""

import argparse
from typing import Any

import numpy as np
import tensorflow as tf

import larq_nas
from larq_nas.data.streams import training_stream
from larq_nas.data.validation import check_data
from larq_nas.layers import BinaryConv2D
from larq_nas.methods import recipe as recipe_of
from larq_nas.process_state import seed_everything
from larq_nas.training.recipe import descend, learning_rate, optimizer, xnor_quantizers

from record import record  # isort: skip  (beside this file)

SPLITS = {"train_split": "train[:5000]", "validation_split": "test[:1000]", "image_size": 16}
SIZE = {"cells": 20, "channels": 8}
CELLS = (0, 1, 2, 6, 13, 19)
RECIPE = recipe_of("bnas")
EVERY = 10


def measure(skips: bool, seed: int, epochs: int) -> dict[str, Any]:
    tf.keras.backend.clear_session()
    seed_everything(seed)
    train, validation = larq_nas.datasets.load("cifar10", batch_size=64, **SPLITS)
    facts = check_data(train, validation, 10)
    architecture = larq_nas.Architecture.published("bnas_cifar").with_settings(skips=skips, **SIZE)
    model = architecture.build(facts.input_shape, 10)
    stream = training_stream(train, facts, seed, None)
    rate = learning_rate(RECIPE.schedule, RECIPE.rate(facts.batch_size), epochs * stream.steps)
    training = optimizer(RECIPE.optimizer, rate)
    training.build(model.trainable_variables)
    quantizers = xnor_quantizers(model, model.trainable_variables)
    groups = [_weights_of(model, cell) for cell in CELLS]

    @tf.function
    def step(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            losses = tf.keras.losses.sparse_categorical_crossentropy(labels, logits, True)
            loss = tf.reduce_mean(losses)
        variables = model.trainable_variables
        gradients = tape.gradient(loss, variables)
        by_weight = {v.ref(): g for v, g in zip(variables, gradients, strict=True)}
        norms = [tf.linalg.global_norm([by_weight[w.ref()] for w in group]) for group in groups]
        descend(
            training,
            gradients,
            variables,
            decay=RECIPE.weight_decay,
            clip_norm=RECIPE.clip_norm,
            quantizers=quantizers,
        )
        return loss, norms

    rows = []
    for number, (images, labels) in enumerate(stream.from_epoch(0, epochs)):
        loss, norms = step(images, labels)
        if number % EVERY == 0:
            rows.append([float(loss), *(float(norm) for norm in norms)])
    model.compile(loss=tf.keras.losses.SparseCategoricalCrossentropy(True), metrics=["accuracy"])
    test = model.evaluate(validation, verbose=0, return_dict=True)
    return {"skips": skips, "seed": seed, "rows": np.round(rows, 6).tolist(), "test": test}


def _weights_of(model: tf.keras.Model, cell: int) -> list[tf.Variable]:
    """Return the binary kernels of a cell's operations."""
    return [
        layer.trainable_weights[0]
        for layer in model.layers
        if isinstance(layer, BinaryConv2D) and layer.name.startswith(f"cell{cell}_")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    measured = []
    for seed in arguments.seeds:
        for skips in (True, False):
            measured.append(measure(skips, seed, arguments.epochs))
            last = measured[-1]
            print(f"skips {skips}, seed {seed}: {last['rows'][-1]}, {last['test']}", flush=True)
    settings = {"architecture": "bnas_cifar", **SIZE, "data": "cifar10", **SPLITS}
    settings |= {"batch_size": 64, "recipe": RECIPE.settings(), "every": EVERY}
    settings["columns"] = ["loss", *(f"norm of cell {cell}" for cell in CELLS)]
    record("skips", {**settings, **vars(arguments)}, measured)


if __name__ == "__main__":
    main()
