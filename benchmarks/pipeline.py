"""How much of a step is spent waiting for data: CIFAR-10, augmented, searched on and trained on."""

import argparse
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

import larq_nas
from larq_nas.data.augmentation import pad_crop_flip
from larq_nas.data.streams import Stream, bilevel_stream, training_stream
from larq_nas.data.validation import check_data
from larq_nas.process_state import seed_everything
from larq_nas.training.loop import exact

from record import record  # isort: skip  (beside this file)
from search_step import BNAS, supernet  # isort: skip

Step = Callable[[Any], float]


def waiting(stream: Stream, step: Step, epochs: int) -> list[dict[str, float]]:
    """Return for each epoch the seconds spent on waiting for batches, and on steps.

    The first epoch also decodes the images and traces the step; later ones shuffle anew.
    """
    seed_everything(0)
    found = []
    batches = iter(stream.from_epoch(0, epochs))
    for _ in range(epochs):
        waited = worked = 0.0
        for _ in range(stream.steps):
            start = time.perf_counter()
            batch = next(batches)
            got = time.perf_counter()
            step(batch)
            waited += got - start
            worked += time.perf_counter() - got
        found.append({"waited": waited, "worked": worked, "share": waited / (waited + worked)})
    return found


def search_step() -> Step:
    supernet_ = supernet(BNAS, "fused")
    step = tf.function(lambda pair: supernet_.train_step(pair)["loss"])
    return lambda pair: float(step(pair))


def train_step() -> Step:
    network = larq_nas.Architecture.published("bnas_cifar").with_settings(cells=8, channels=16)
    model = network.build((32, 32, 3), 10)
    model.compile("adam", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    step = tf.function(lambda pair: model.train_step(pair)["loss"])
    return lambda pair: float(step(pair))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--search-images", type=int, default=480)
    parser.add_argument("--train-images", type=int, default=4000)
    arguments = parser.parse_args()
    cases = {
        "search": (arguments.search_images, BNAS["batch"], bilevel_stream, search_step),
        "training": (arguments.train_images, 64, training_stream, train_step),
    }
    measured = {}
    for name, (images, batch, stream_of, step_of) in cases.items():
        data = larq_nas.datasets.load(
            "cifar10",
            batch_size=batch,
            train_split=f"train[:{images}]",
            validation_split="test[:1000]",
        )
        stream = stream_of(data[0], check_data(*data), 0, pad_crop_flip)
        with exact():
            found = waiting(stream, step_of(), arguments.epochs)
        shares = ", ".join(f"{one['share']:.2%}" for one in found)
        print(f"{name}, batches of {batch}: {shares} of an epoch is spent waiting for data")
        measured[name] = {"batch": batch, "images": images, "epochs": found}
    record("pipeline", {**BNAS, "epochs": arguments.epochs}, measured)


if __name__ == "__main__":
    main()
