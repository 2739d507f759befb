"""What the exact rewritings of a conversion save: operations, bytes, and time on this machine."""

import larq_nas  # isort: skip  (it prepares TensorFlow)
import argparse
from collections import Counter
from collections.abc import Callable
from typing import Any

import larq_zoo
import numpy as np
import tensorflow as tf

from larq_nas.deploy.export import export_lowered, run
from larq_nas.deploy.flatbuffer import operators
from larq_nas.deploy.operations import KERNELS, Kernel
from larq_nas.deploy.rewriting import Lowered, lower
from larq_nas.latency.measure import measure_all_here
from larq_nas.spaces import Bats
from larq_nas.spaces.chooser import Sample

from record import record  # isort: skip  (beside this file)
from trained import calibrate, randomize  # isort: skip

KERNEL: Kernel = "indirect"
SEED, IMAGES, CALIBRATION, RUNS, CLASSES = 0, 8, 8, 15, 10


def published(name: str, **settings: Any) -> Callable[[], tf.keras.Model]:
    return lambda: (
        larq_nas.Architecture.published(name).with_settings(**settings).build((32, 32, 3), CLASSES)
    )


def demo() -> tf.keras.Model:
    """Return a network as a search on the digits finds them."""
    space, choose = Bats(), Sample.seeded(SEED)
    return space.build(choose, (8, 8, 1), CLASSES)


class Offset(tf.keras.layers.Layer):
    """An offset for each channel, as RSign and RPReLU are made of."""

    def build(self, shape: Any) -> None:
        self.offset = self.add_weight("offset", (shape[-1],))

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x + self.offset


def reactnet(blocks: int = 4, channels: int = 32) -> tf.keras.Model:
    """Return a network of blocks as in ReActNet: every other one halves the image."""
    inputs = tf.keras.Input((32, 32, 3))
    stem = tf.keras.layers.Conv2D(channels, 3, padding="same", use_bias=False)(inputs)
    x = tf.keras.layers.BatchNormalization()(stem)
    for number in range(blocks):
        strides = 1 + number % 2
        shortcut = tf.keras.layers.AveragePooling2D()(x) if strides > 1 else x
        x = _rprelu(tf.keras.layers.Add()([_binary(x, 3, strides), shortcut]))
        sums = [tf.keras.layers.Add()([_binary(x, 1), x]) for _ in range(strides)]
        x = _rprelu(tf.keras.layers.Concatenate()(sums) if strides > 1 else sums[0])
    pooled = tf.keras.layers.GlobalAveragePooling2D()(x)
    return tf.keras.Model(inputs, tf.keras.layers.Dense(CLASSES)(pooled))


def _binary(x: tf.Tensor, kernel_size: int, strides: int = 1) -> tf.Tensor:
    layer = larq_nas.layers.BinaryConv2D(x.shape[-1], kernel_size, strides=strides)
    return tf.keras.layers.BatchNormalization()(layer(Offset()(x)))


def _rprelu(x: tf.Tensor) -> tf.Tensor:
    slope = tf.keras.initializers.Constant(0.25)
    return Offset()(tf.keras.layers.PReLU(slope, shared_axes=[1, 2])(Offset()(x)))


NETWORKS: dict[str, Callable[[], tf.keras.Model]] = {
    "QuickNetSmall": lambda: larq_zoo.sota.QuickNetSmall(weights=None),
    "QuickNet": lambda: larq_zoo.sota.QuickNet(weights=None),
    "ReActNet": reactnet,
    "BATS": published("bats", cells=5, channels=32, groups=1, activation="relu"),
    "BATS, groups and PReLU": published("bats", cells=5),
    "BNAS": published("bnas_cifar", cells=5, channels=32),
    "DARTS, binary": published("darts_second_order", cells=5, channels=32, precision="binary"),
    "digits": demo,
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("networks", nargs="*", help=f"some of {', '.join(NETWORKS)}")
    names = arguments.parse_args().networks or list(NETWORKS)
    rows = {}
    for name in names:
        rows[name] = measure(NETWORKS[name])
        print(line(name, rows[name]), flush=True)
        tf.keras.backend.clear_session()
    if names == list(NETWORKS):
        settings = {"kernel": KERNEL, "seed": SEED, "images": IMAGES, "runs": RUNS}
        record("rewrites", {**settings, "weights": "random, scales positive"}, rows)


def measure(build: Callable[[], tf.keras.Model]) -> dict[str, Any]:
    """Return the figures of a network as it is, and rewritten."""
    tf.keras.utils.set_random_seed(SEED)
    model = build()
    randomize(model, SEED)
    for layer in model._flatten_layers():
        if isinstance(layer, tf.keras.layers.BatchNormalization) and layer.scale:
            layer.gamma.assign(tf.abs(layer.gamma))
    shape = model.input_shape[1:]
    generator = np.random.default_rng(SEED)
    images = generator.uniform(-1, 1, (CALIBRATION + IMAGES, *shape)).astype("float32")
    calibrate(model, images[:CALIBRATION])
    images = images[CALIBRATION:]
    ways = [lower(model, rewrite=False), lower(model)]
    flatbuffers = [export_lowered(way) for way in ways]
    times = measure_all_here(flatbuffers, kernel=KERNEL, runs=RUNS)
    rows = [
        {
            **figures(flatbuffer),
            **exactness(way, flatbuffer, images),
            "milliseconds": latency.milliseconds,
            "spread": latency.spread,
        }
        for way, flatbuffer, latency in zip(ways, flatbuffers, times, strict=True)
    ]
    return {"before": rows[0], "after": rows[1], "rewrites": kinds(ways[1])}


def figures(flatbuffer: bytes) -> dict[str, Any]:
    counts = Counter(operator.kind for operator in operators(flatbuffer))
    real = sum(number for kind, number in counts.items() if not kind.startswith("Lce"))
    return {"bytes": len(flatbuffer), "float_operations": real, "operations": dict(counts)}


def exactness(way: Lowered, flatbuffer: bytes, images: np.ndarray) -> dict[str, float]:
    """Return on which share of the images the outputs and the classes are Keras's.

    Rounding can turn a sign, in Keras too: then no image of a deep network is exact either way.
    """
    expected = way.model.predict(images, batch_size=8, verbose=0)
    got = run(flatbuffer, images, KERNEL, **KERNELS[KERNEL])[0].reshape(expected.shape)
    worst = np.abs(got - expected).max(axis=-1)
    return {
        "worst": float(worst.max() / expected.std()),
        "exact": float(np.mean(worst <= 1e-3 * expected.std())),
        "agreement": float(np.mean(got.argmax(axis=-1) == expected.argmax(axis=-1))),
    }


def kinds(lowered: Lowered) -> dict[str, int]:
    """Return how often each rewriting was applied."""
    # What is in backticks are names of layers.
    texts = ["".join(reason.split("`")[::2]).strip(" ,:") for reason in lowered.reasons]
    return dict(Counter(" ".join(text.replace(", ", "").split()) for text in texts))


def line(name: str, row: dict[str, Any]) -> str:
    before, after = row["before"], row["after"]
    changes = [
        f"{what} {before[what]:,} to {after[what]:,} ({after[what] / before[what] - 1:+.1%})"
        for what in ("float_operations", "bytes")
    ]
    took = after["milliseconds"] / before["milliseconds"] - 1
    return (
        f"{name}: {', '.join(changes)}, {before['milliseconds']:.3f} to "
        f"{after['milliseconds']:.3f} ms ({took:+.1%}); exact {before['exact']:.0%} to "
        f"{after['exact']:.0%}"
    )


if __name__ == "__main__":
    main()
