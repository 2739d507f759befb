"""What several tests share: small spaces, random architectures, a little data."""

import gc
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from larq_nas.choices import Expansion
from larq_nas.cost.profile import Structure
from larq_nas.graph.calls import functional
from larq_nas.layers import Domain, building_in
from larq_nas.searchers.dms.widths import Dimensions
from larq_nas.spaces import Bats, Space
from larq_nas.supernet.relax import Relax
from larq_nas.training.loop import forgetting_graphs

# Between collections, tests make millions of objects that stay until their module ends.
gc.set_threshold(50_000, 20, 50)

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module", autouse=True)
def _forget_networks() -> Iterator[None]:
    """Free what is kept of every network that was built: gigabytes, over all tests."""
    with forgetting_graphs():
        yield
    tf.keras.backend.clear_session()
    gc.collect()


def quick(cases: Iterable[Any], *shown: int) -> list[Any]:
    """Return the cases of a test, all but those of the given numbers marked as slow."""
    return [
        case
        if i in shown
        else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for i, case in enumerate(cases)
    ]


def dimensions_of(expansions: Mapping[str, Expansion], **changes: Any) -> Dimensions:
    """Return widths as DMS-A starts with them."""
    settings = {"initial_ratio": 1.5, "scale": 1.0, "half_step": 0.4}
    settings |= {"least_mean": 0.3, "least_ratio": 0.25, **changes}
    return Dimensions(expansions, **settings)


class PerOperation:
    """Predicts latencies as a table does: so much for each operation, and for its work."""

    def predict(self, structure: Structure, answers: Any = None) -> SimpleNamespace:
        work = sum(call.binary_macs for call in structure.count(answers))
        return SimpleNamespace(microseconds=3.0 * len(structure.operators) + work / 1000)


def random_architecture(
    space: Space, seed: int, input_shape: tuple[int, int, int] = (8, 8, 1)
) -> larq_nas.Architecture:
    return larq_nas.Architecture.random(space, input_shape, 10, seed)


def one_hot_supernet(
    architecture: larq_nas.Architecture, space: Space, domain: Domain
) -> tf.keras.Model:
    choose = Relax(0.2)
    with building_in(domain):
        supernet = randomize(space.build(choose, (8, 8, 1), 10))
    for name, mixture in choose.mixtures.items():
        choice = choose.choices[name]
        alpha = np.zeros(mixture.alpha.shape)
        alpha[:, choice.operations.index("zero")] = 1e3
        for operation, i in choice.decode(architecture.choices[name]):
            alpha[i] = 0
            alpha[i, choice.operations.index(operation)] = 1e3
        mixture.alpha.assign(alpha)
    return supernet


def randomize(model: tf.keras.Model, seed: int = 0) -> tf.keras.Model:
    """Give every weight a random value, with batch-norm statistics that fit."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        name = weight.name.rsplit("/", maxsplit=1)[-1]
        values = generator.normal(size=weight.shape)
        if name.startswith("kernel"):
            values /= np.sqrt(np.prod(weight.shape[:-1]))
        elif name.startswith(("scale", "gamma", "moving_variance")):
            values = generator.uniform(0.5, 1.5, weight.shape)
        weight.assign(values * (0.1 if name.startswith("scale") else 1.0))
    images = [_numbers_for(tensor, generator) for tensor in functional(model).inputs]
    averaging = [layer for layer in model._flatten_layers() if hasattr(layer, "momentum")]
    momenta = [layer.momentum for layer in averaging]
    for layer in averaging:
        layer.momentum = 0.0
    model(images if len(images) > 1 else images[0], training=True)
    for layer, momentum in zip(averaging, momenta, strict=True):
        layer.momentum = momentum
    return model


def _numbers_for(tensor: tf.Tensor, generator: np.random.Generator) -> np.ndarray:
    shape = (64, *tensor.shape[1:])
    if tensor.dtype.is_floating:
        return generator.normal(size=shape).astype("float32")
    return generator.integers(0, 8, shape).astype(tensor.dtype.as_numpy_dtype)


@pytest.fixture(autouse=True)
def _latent_weights() -> Iterator[None]:
    """Find what leaves Larq's quantized scope switched on: other tests would train signs."""
    yield
    assert not lq.context.should_quantize()


@pytest.fixture
def small_space() -> Bats:
    return Bats(cells=2, channels=8, nodes=1)


@pytest.fixture
def digits() -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """A part of the digits, in a fixed order."""
    train, validation = larq_nas.datasets.load("digits", batch_size=32)
    return train.take(6), validation.take(2)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(64, 8, 8, 1)).astype("float32")


def choose_pool(choose: Any, images: tf.Tensor) -> tf.Tensor:
    """Ask one question, without weights."""
    pools = {
        "max": lambda x, name: tf.keras.layers.MaxPool2D(2, name=name)(x),
        "average": lambda x, name: tf.keras.layers.AveragePooling2D(2, name=name)(x),
    }
    return choose.op("pool", images, pools)


def one_choice(choose: Any, shape: Any, classes: int) -> tf.keras.Model:
    """A space of one's own, as small as one is."""
    images = tf.keras.Input(shape)
    x = tf.keras.layers.Flatten()(choose_pool(choose, images))
    return tf.keras.Model(images, tf.keras.layers.Dense(classes)(x))


def run_files(directory: Path) -> dict[str, bytes]:
    """Return what a run leaves that must be the same when it is resumed."""
    names = ("architecture.json", "history.csv", "result.json", "model.tflite")
    return {name: (directory / name).read_bytes() for name in names}


class Interrupt(tf.keras.callbacks.Callback):
    """Stops as a killed process would, at a batch of a `fit`."""

    def __init__(self, fit: int, epoch: int) -> None:
        super().__init__()
        self._fit, self._epoch, self._now = fit, epoch, 0

    def on_train_begin(self, logs=None) -> None:
        self._fit -= 1

    def on_epoch_begin(self, epoch: int, logs=None) -> None:
        self._now = epoch

    def on_train_batch_end(self, batch: int, logs=None) -> None:
        if self._fit == 0 and self._now == self._epoch and batch == 1:
            raise KeyboardInterrupt
