"""What a process of test_distribution.py does: steps, or a search, on one or several replicas.

How many is its first argument, `None` without a strategy, or `processes` for what `TF_CONFIG` in
its environment says.
"""

import os
import sys
from pathlib import Path

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import tensorflow as tf

from larq_nas.layers import DropPath, building_in
from larq_nas.searchers.differentiable.model import BilevelModel
from larq_nas.spaces import Bats
from larq_nas.supernet.relax import Relax
from larq_nas.training.distribution import building_on, shared_out
from larq_nas.training.loop import exact
from larq_nas.training.recipe import optimizer

SPACE = Bats(
    cells=2, channels=4, nodes=1, operations=("group_conv_3x3", "max_pool_3x3", "identity")
)
BATCH = 8


def batches() -> tf.data.Dataset:
    generator = np.random.default_rng(0)
    images = generator.normal(size=(2, 5 * BATCH, 8, 8, 1)).astype("float32")
    labels = generator.integers(0, 4, (2, 5 * BATCH))
    pairs = tuple((images[half], labels[half]) for half in (0, 1))
    return tf.data.Dataset.from_tensor_slices(pairs).batch(BATCH, drop_remainder=True)


def take(strategy: tf.distribute.Strategy | None) -> dict[str, np.ndarray]:
    """Return all weights after five steps."""
    tf.keras.utils.set_random_seed(0)
    with building_on(strategy):
        choose = Relax(0.5)
        with building_in(SPACE.search_domain):
            supernet = SPACE.build(choose, (8, 8, 1), 4)
        model = BilevelModel(supernet, choose.mixtures, 3e-4, 1e-3)
        model.compile(optimizer("sgd", 0.05), tf.keras.optimizers.Adam(0.01))
    model.set_searching(True)
    with exact():
        data = shared_out(batches(), strategy) if strategy else batches()
        model.fit(data, epochs=1, steps_per_epoch=5, verbose=0)
    weights = {weight.name: weight.numpy() for weight in supernet.weights}
    return {**weights, "kept": kept(strategy)}


def kept(strategy: tf.distribute.Strategy | None) -> np.ndarray:
    """Return which images of a batch a layer does not drop."""
    tf.keras.utils.set_random_seed(0)
    with building_on(strategy):
        layer = DropPath(name="drop")
        layer.build((BATCH, 1))
        layer.rate.assign(0.5)
    images = tf.data.Dataset.from_tensors(tf.ones((BATCH, 1)))
    if strategy is None:
        return layer(next(iter(images)), training=True).numpy()

    @tf.function
    def step(own: tf.Tensor) -> tf.Tensor:
        return strategy.gather(strategy.run(layer, (own,), {"training": True}), axis=0)

    return step(next(iter(shared_out(images.map(lambda x: (x,)), strategy)))[0]).numpy()


def from_one_file(path: Path) -> tf.data.Dataset:
    """Return images of one file, 33 of them in batches of 32: one replica lacks the last."""
    _, validation = larq_nas.datasets.load("digits", batch_size=32)
    images, labels = next(iter(validation.unbatch().batch(33)))
    path.write_bytes(images.numpy().tobytes())
    records = tf.data.FixedLengthRecordDataset(str(path), path.stat().st_size // 33)
    pixels = records.map(lambda record: tf.reshape(tf.io.decode_raw(record, tf.float32), (8, 8, 1)))
    pixels = pixels.apply(tf.data.experimental.assert_cardinality(33))
    return tf.data.Dataset.zip((pixels, tf.data.Dataset.from_tensor_slices(labels))).batch(32)


def search(directory: str, strategy: tf.distribute.Strategy | None) -> None:
    train, _ = larq_nas.datasets.load("digits", batch_size=32)
    larq_nas.search(
        train.take(6),
        from_one_file(Path(f"{directory}.{os.getpid()}.images")),
        SPACE,
        epochs=3,
        train_epochs=2,
        directory=directory,
        strategy=strategy,
        verbose=2,
    )


if __name__ == "__main__":
    strategy = None
    if sys.argv[1] == "processes":
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    elif sys.argv[1] != "None":
        count = int(sys.argv[1])
        device = tf.config.list_physical_devices("CPU")[0]
        devices = [tf.config.LogicalDeviceConfiguration()] * count
        tf.config.set_logical_device_configuration(device, devices)
        strategy = tf.distribute.MirroredStrategy([f"CPU:{n}" for n in range(count)])
    if Path(sys.argv[2]).suffix == ".npz":
        np.savez(sys.argv[2], **{name.replace("/", "|"): v for name, v in take(strategy).items()})
    else:
        search(sys.argv[2], strategy)
