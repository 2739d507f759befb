"""What int8 costs in accuracy and saves in bytes: CIFAR-10's test images, before and after."""

import argparse
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf

import larq_nas
from larq_nas.data.augmentation import pad_crop_flip
from larq_nas.deploy.export import run
from larq_nas.deploy.int8.report import accuracy
from larq_nas.deploy.operations import KERNELS, Kernel
from larq_nas.layers import binary_conv, classifier, stem
from larq_nas.process_state import seed_everything

from record import record  # isort: skip  (beside this file)

KERNEL: Kernel = "indirect"
WIDTHS = (64, 128, 256)


def network() -> tf.keras.Model:
    """Return six binary convolutions with shortcuts, between a real first and last layer."""
    images = tf.keras.Input((32, 32, 3))
    x = tf.keras.layers.MaxPool2D(2, name="stem_pool")(stem(images, 32))
    for stage, width in enumerate(WIDTHS):
        x = binary_conv(x, width, 3, name=f"stage{stage}_1", strides=1 if stage == 0 else 2)
        x = binary_conv(x, width, 3, name=f"stage{stage}_2")
    return tf.keras.Model(images, classifier(x, 10), name="binary_resnet")


def trained(examples: int, epochs: int, seed: int) -> tf.keras.Model:
    seed_everything(seed)
    train, test = larq_nas.datasets.load("cifar10", 100, train_split=f"train[:{examples}]")

    def change(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        number = tf.random.uniform((2,), maxval=2**31 - 1, dtype=tf.int32)
        return pad_crop_flip(images, number), labels

    batches = train.unbatch().shuffle(examples, seed=seed).batch(100).map(change)
    model = network()
    steps = epochs * examples // 100
    model.compile(
        tf.keras.optimizers.Adam(tf.keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(batches, epochs=epochs, validation_data=test.take(20), verbose=2)
    return model


def converted(
    model: tf.keras.Model,
    which: Literal["ends", "all"] | None,
    train: tf.data.Dataset,
    images: np.ndarray,
    labels: np.ndarray,
) -> dict[str, Any]:
    """Return what a conversion, calibrated on training images, does on test images."""
    conversion = larq_nas.convert(model, train, examples=512, kernels=[KERNEL], int8=which)
    print(conversion, flush=True)
    outputs = run(conversion.flatbuffer, images, KERNEL, **KERNELS[KERNEL])[0]
    return {
        "accuracy": accuracy(outputs, labels),
        "bytes": len(conversion.flatbuffer),
        "operations": conversion.audit.operations,
        "stays_float": conversion.int8.stays_float if conversion.int8 else {},
        "classes": outputs.argmax(axis=1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=20000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, help="Keeps the trained network, or reads it.")
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if arguments.model and arguments.model.exists():
        model = tf.keras.models.load_model(arguments.model, compile=False)
    else:
        model = trained(arguments.examples, arguments.epochs, arguments.seed)
        if arguments.model:
            model.save(arguments.model)
    train, test = larq_nas.datasets.load("cifar10", 100)
    pairs = list(test.as_numpy_iterator())
    images, labels = (np.concatenate(part) for part in zip(*pairs, strict=True))
    expected = model.predict(images, batch_size=100, verbose=0)
    noise = np.random.default_rng(0).uniform(-1 / 255, 1 / 255, images.shape)
    moved = model.predict(images + noise.astype("float32"), batch_size=100, verbose=0)
    measured: dict[str, Any] = {
        "keras": {"accuracy": accuracy(expected, labels)},
        # What this network makes of images that differ by half a level of grey, in float.
        "keras_half_a_grey_level": {
            "accuracy": accuracy(moved, labels),
            "agreement": float(np.mean(moved.argmax(axis=1) == expected.argmax(axis=1))),
        },
    }
    for which in (None, "ends", "all"):
        measured[which or "float"] = row = converted(model, which, train, images, labels)
        row["agreement"] = float(np.mean(row.pop("classes") == expected.argmax(axis=1)))
        print(which or "float", row, flush=True)
    del arguments.model
    settings = {**vars(arguments), "data": "cifar10", "test": len(images), "kernel": KERNEL}
    record("int8", {**settings, "parameters": model.count_params()}, measured)


if __name__ == "__main__":
    main()
