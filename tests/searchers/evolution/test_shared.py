"""One trace for all candidates gives what networks of their own do."""

import dataclasses
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest
import tensorflow as tf
from conftest import quick

from larq_nas.data.data import Data, read_data
from larq_nas.errors import DivergenceError, InputError
from larq_nas.searchers import Evolution
from larq_nas.searchers.evolution.candidates import (
    CandidateTraining,
    Inheritance,
    Plan,
    Rebuilt,
    Shared,
)
from larq_nas.spaces import ModelWidths, Space, resolve
from larq_nas.spaces.chooser import Widest
from larq_nas.training.recipe import Recipe

RATIOS = (0.125, 0.25, 0.5)


@pytest.fixture(scope="module")
def task() -> Data:
    def colored(images: tf.Tensor, labels: tf.Tensor) -> Any:
        return tf.repeat(tf.image.resize(images, (16, 16)), 3, -1), labels

    data = [part.map(colored) for part in larq_nas.datasets.load("digits", batch_size=20)]
    space = resolve("resnet18_cifar")
    return read_data(data[0].take(5), data[1].take(3), 10, "standard", 0, space, 0)


def pair(space: Space, task: Data, recipe: Recipe, epochs: int = 1) -> tuple[Shared, Rebuilt]:
    choose = Widest()
    tf.keras.utils.set_random_seed(1)
    wide = space.build(choose, task.facts.input_shape, 10)
    source = Inheritance(wide, choose)
    training = CandidateTraining(task, epochs, recipe)
    return Shared(space, training, source), Rebuilt(space, training, source)


def plan(number: int, epochs: int = 1) -> Plan:
    return Plan(number, (epochs,))


def model_of_ones_own() -> tf.keras.Model:
    import larq as lq

    x = images = tf.keras.Input((16, 16, 3))
    x = tf.keras.layers.Conv2D(16, 3, padding="same", name="stem")(x)
    x = tf.keras.layers.BatchNormalization(scale=False, center=False, name="stem_bn")(x)
    y = lq.layers.QuantConv2D(
        16, 3, padding="same", pad_values=1.0, strides=1, use_bias=False, name="inner",
        input_quantizer="ste_sign", kernel_quantizer="magnitude_aware_sign",
    )(x)  # fmt: skip
    y = tf.keras.layers.PReLU(shared_axes=[1, 2], name="prelu")(y)
    x = tf.keras.layers.Add(name="sum")([x, tf.keras.layers.BatchNormalization(name="bn")(y)])
    x = tf.keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return tf.keras.Model(images, tf.keras.layers.Dense(10, name="dense")(x), name="own")


def gated_model() -> tf.keras.Model:
    """With a gate, what Keras draws at random, and a quantized dense layer before batch norm."""
    import larq as lq

    layers = tf.keras.layers
    signs = {
        "input_quantizer": "ste_sign",
        "kernel_quantizer": "ste_sign",
        "kernel_constraint": "weight_clip",
        "use_bias": False,
    }
    x = images = tf.keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, 4, padding="same", name="stem")(x)
    x = lq.layers.QuantConv2D(8, 3, padding="same", name="a", **signs)(x)
    x = layers.SpatialDropout2D(0.2, name="spatial")(layers.BatchNormalization(name="a_bn")(x))
    gate = layers.Dense(4, "relu", name="squeeze")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Multiply(name="gated")([x, layers.Dense(8, "sigmoid", name="excite")(gate)])
    x = lq.layers.QuantConv2D(8, 3, padding="same", name="b", **signs)(x)
    x = layers.GaussianNoise(0.1, name="noise")(layers.BatchNormalization(name="b_bn")(x))
    x = lq.layers.QuantDense(16, name="dense", **signs)(layers.Flatten(name="flat")(x))
    x = layers.Dropout(0.3, name="drop")(layers.BatchNormalization(name="dense_bn")(x))
    return tf.keras.Model(images, layers.Dense(10, name="logits")(x), name="gated")


SPACES = {
    "gated": (lambda: ModelWidths(gated_model(), (0.5, 1)), Recipe(stages=("binary",))),
    "vgg": (
        lambda: resolve("vgg_small", {"ratios": (0.03125, 0.0625)}),
        Recipe(stages=("binary",)),
    ),
    "resnet": (
        lambda: resolve("resnet18_cifar", {"ratios": RATIOS}),
        Recipe(0.05, stages=("binary",), optimizer="sgd", weight_decay=1e-4, clip_norm=5.0),
    ),
    "own": (lambda: ModelWidths(model_of_ones_own(), RATIOS), Recipe(stages=("binary",))),
}


@pytest.mark.parametrize("name", quick(SPACES, 0))
def test_candidates_of_one_trace_are_those_of_networks_of_their_own(name: str, task: Data) -> None:
    make, recipe = SPACES[name]
    space = make()
    shared, rebuilt = pair(space, task, recipe)
    rng = np.random.default_rng(0)
    choose = Widest()
    space.build(choose, task.facts.input_shape, 10)
    for number in range(2):
        values = {key: float(rng.choice(one.ratios)) for key, one in choose.expansions.items()}
        assert shared.measure(values, plan(number)) == rebuilt.measure(values, plan(number))
        expected, found = rebuilt.weights(), shared.weights()
        assert expected.keys() == found.keys()
        for key, weight in expected.items():
            np.testing.assert_array_equal(found[key], weight, err_msg=key)


@pytest.mark.slow
def test_what_a_candidate_reaches_does_not_depend_on_those_before(task: Data) -> None:
    space = resolve("vgg_small", {"ratios": (0.03125, 0.0625)})
    shared, _ = pair(space, task, Recipe(stages=("binary",)))
    small, large = (dict.fromkeys(space.layers, ratio) for ratio in (0.03125, 0.0625))
    first = shared.measure(small, plan(4))
    shared.measure(large, plan(5))
    assert shared.measure(small, plan(4)) == first
    assert shared.measure(small, plan(6)) != first


@pytest.mark.slow
def test_without_epochs_inherited_weights_are_measured_with_statistics_of_their_own(
    task: Data,
) -> None:
    space = resolve("vgg_small", {"ratios": (0.03125, 0.0625)})
    plain = dataclasses.replace(task, augment=None)
    shared, rebuilt = pair(space, plain, Recipe(stages=("binary",)), epochs=0)
    values = dict.fromkeys(space.layers, 0.03125)
    assert shared.measure(values, plan(0, 0)) == rebuilt.measure(values, plan(0, 0))
    network = rebuilt._network
    images = np.concatenate([x for x, _ in plain.train.as_numpy_iterator()])
    stem = tf.keras.Model(network.input, network.get_layer("conv1_conv").output)(images).numpy()
    mean = network.get_layer("conv1_bn").moving_mean.numpy()
    np.testing.assert_allclose(mean, stem.mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-5)


def test_a_loss_that_is_not_finite_is_an_error_with_its_value(task: Data) -> None:
    space = resolve("vgg_small", {"ratios": (0.03125, 0.0625)})
    shared, _ = pair(space, task, Recipe(1e30, stages=("binary",), optimizer="sgd"))
    with pytest.raises(DivergenceError, match="its loss is nan"):
        shared.measure(dict.fromkeys(space.layers, 0.0625), plan(0))
    # The next candidate starts afresh.
    assert shared._optimizer.iterations > 0


def test_a_subset_is_even_over_the_classes_and_the_same_for_a_seed(task: Data) -> None:
    parts = [dataclasses.replace(task, seed=seed).subset(40) for seed in (3, 3, 4)]
    labels = [np.concatenate([y for _, y in part.train.as_numpy_iterator()]) for part in parts]
    images = [np.concatenate([x for x, _ in part.train.as_numpy_iterator()]) for part in parts]
    assert parts[0].facts.train_examples == 40 == len(labels[0])
    assert np.bincount(labels[0], minlength=10).tolist() == [4] * 10
    np.testing.assert_array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])
    everything = np.concatenate([x for x, _ in task.train.as_numpy_iterator()])
    assert all((everything == image).all(axis=(1, 2, 3)).any() for image in images[0])


def test_a_subset_larger_than_the_data_is_refused(task: Data) -> None:
    searcher = Evolution(subset=101)
    apart = task.to_search(searcher.held_out(100))
    with pytest.raises(InputError, match="`subset` must be at most the 100 training images"):
        searcher.prepare(resolve("vgg_small"), apart, None, 1, Recipe())
