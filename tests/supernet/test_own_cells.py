"""Cells of one's own: fused where that is known to be equal, plain otherwise, and alike in both."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

import larq_nas
from larq_nas.layers import BinaryConv2D, classifier
from larq_nas.spaces.chooser import Chooser
from larq_nas.supernet.fuse import Fuse
from larq_nas.supernet.relax import Relax

Build = Callable[[Chooser, tf.Tensor], tf.Tensor]
CHANNELS = 4


def convolution(size: int = 3, filters: int = CHANNELS, **settings):
    def build(x: tf.Tensor, name: str) -> tf.Tensor:
        x = tf.keras.layers.BatchNormalization(center=False, scale=False, name=f"{name}_bn")(x)
        settings_ = {"kernel_quantizer": None, **settings}
        return BinaryConv2D(filters, size, name=f"{name}_conv", **settings_)(x)

    return build


def pool(strides: int = 1):
    return lambda x, name: tf.keras.layers.MaxPooling2D(3, strides, "same", name=name)(x)


def skip(x: tf.Tensor, name: str) -> tf.Tensor:
    return x


def one_input(choose: Chooser, x: tf.Tensor) -> tf.Tensor:
    operations = {"conv": convolution(), "skip": skip, "zero": None}
    return choose.cell("cell", [x], lambda _: operations, nodes=2)


def some_nodes(choose: Chooser, x: tf.Tensor) -> tf.Tensor:
    operations = {"conv": convolution(5), "pool": pool()}
    return choose.cell("cell", [x, x], lambda _: operations, nodes=3, concat=[3, np.int64(4)])


def two_paddings(choose: Chooser, x: tf.Tensor) -> tf.Tensor:
    operations = {"ones": convolution(), "minus": convolution(pad_values=-1.0)}
    return choose.cell("cell", [x], lambda _: operations, nodes=2)


def two_sizes(choose: Chooser, x: tf.Tensor) -> tf.Tensor:
    """The first input is halved by layers that are not known; the second is as the nodes."""
    small = tf.keras.layers.AveragePooling2D(name="small")(x)

    def halve(x: tf.Tensor, name: str) -> tf.Tensor:
        x = tf.keras.layers.Conv2D(CHANNELS, 2, 2, name=f"{name}_halve")(x)
        return convolution()(x, name)

    first = {"a": halve, "b": halve}
    others = {"a": convolution(), "b": pool()}
    return choose.cell("cell", [x, small], lambda state: others if state else first, nodes=2)


def nothing_from_a_state(choose: Chooser, x: tf.Tensor) -> tf.Tensor:
    some, none = {"a": convolution(), "b": skip}, {"a": None, "b": None}
    return choose.cell("cell", [x, x], lambda state: none if state == 1 else some, nodes=2)


def wider_before(choose: Chooser, x: tf.Tensor) -> tf.Tensor:
    """The first cell reads more channels than its nodes have; the second does not."""
    operations = {"a": convolution(), "b": convolution(1)}
    x = tf.keras.layers.Conv2D(6, 1, name="wide")(x)
    for _ in range(2):
        x = choose.cell("cell", [x], lambda _: operations, nodes=1)
    return x


def wider_behind(choose: Chooser, x: tf.Tensor) -> tf.Tensor:
    for filters in (CHANNELS, 6):
        operations = {"a": convolution(filters=filters), "b": convolution(1, filters)}
        x = choose.cell("cell", [x], lambda _, found=operations: found, nodes=1)
    return x


CELLS: dict[Build, int] = {
    one_input: 1,
    some_nodes: 1,
    two_paddings: 1,
    two_sizes: 1,
    nothing_from_a_state: 1,
    wider_before: 1,
    wider_behind: 1,
}


def network(cell: Build, choose: Chooser) -> tf.keras.Model:
    tf.keras.utils.set_random_seed(0)
    images = tf.keras.Input((8, 8, CHANNELS))
    return tf.keras.Model(images, classifier(cell(choose, images), 3))


def outputs_and_gradient(cell: Build, choose: Chooser) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return them with all kernels at values that do not depend on how they are stacked."""
    model = network(cell, choose)
    for weight in model.trainable_weights:
        *reads, _ = weight.shape
        each = (*reads, 1) if len(reads) == 3 else weight.shape  # of kernels, each filter the same
        drawn = np.random.default_rng(len(reads)).normal(size=each)
        weight.assign(np.broadcast_to(drawn, weight.shape))
    alphas = [mixture.alpha for mixture in choose.mixtures.values()]
    images = np.random.default_rng(1).normal(size=(2, 8, 8, CHANNELS)).astype("float32")
    with tf.GradientTape() as tape:
        y = model(images, training=True)
        loss = tf.reduce_sum(y**2)
    return y.numpy(), [gradient.numpy() for gradient in tape.gradient(loss, alphas)]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.__name__)
def test_a_cell_of_ones_own_is_that_of_the_plain_supernet(cell: Build) -> None:
    fuse, relax = Fuse(0.5), Relax(0.5)
    y, gradients = outputs_and_gradient(cell, fuse)
    expected, expected_gradients = outputs_and_gradient(cell, relax)
    assert fuse.fused == CELLS[cell]
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    for got, wanted in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4)
    assert fuse.choices == relax.choices
    assert fuse.prefixes == relax.prefixes


def test_why_a_cell_is_not_fused_is_known() -> None:
    choose = Fuse()
    network(wider_before, choose)
    assert choose.obstacles == {"cell0": "its inputs and nodes differ in channels, [4, 6]"}


def test_a_probability_of_zero_has_no_gradient() -> None:
    choose = Fuse(0.001)
    _, gradients = outputs_and_gradient(one_input, choose)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_a_seed_of_ones_own_draws_the_same_for_each_edge() -> None:
    def cell(choose: Chooser, x: tf.Tensor) -> tf.Tensor:
        seeded = tf.keras.initializers.GlorotUniform(seed=1)
        operations = {"conv": convolution(kernel_initializer=seeded), "skip": skip}
        return choose.cell("cell", [x], lambda _: operations, nodes=2)

    kernels = {}
    for choose in (Fuse(), Relax()):
        weights = network(cell, choose).trainable_weights
        kernels[type(choose)] = [w.numpy() for w in weights if len(w.shape) == 4]
    fused = np.split(kernels[Fuse][0], 3, axis=-1)
    for part, plain in zip(fused, kernels[Relax], strict=True):
        np.testing.assert_array_equal(part, plain)


def test_edges_are_drawn_apart_and_the_same_for_a_seed() -> None:
    first, again = (
        next(w.numpy() for w in network(one_input, Fuse()).trainable_weights if len(w.shape) == 4)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)
    parts = np.split(first, 3, axis=-1)
    assert len({part.tobytes() for part in parts}) == 3
    limit = np.sqrt(6 / (9 * CHANNELS + 9 * CHANNELS))
    assert 0.9 * limit < np.abs(first).max() <= limit


def test_settings_without_effect_are_told(digits) -> None:
    def space(choose: Chooser, input_shape, classes: int) -> tf.keras.Model:
        images = tf.keras.Input(input_shape)
        x = tf.keras.layers.Conv2D(4, 3, name="stem")(images)
        x = choose.op("block", x, {"pool": pool(), "skip": skip})
        return tf.keras.Model(images, classifier(x, classes))

    train, validation = digits
    searcher = larq_nas.searchers.Differentiable(rematerialize=True, precision="bfloat16")
    with (
        pytest.warns(
            UserWarning, match="`rematerialize=True` has no effect: the space has no cells"
        ),
        pytest.warns(UserWarning, match="`precision` bfloat16 has no effect"),
    ):
        larq_nas.search(
            train.take(2), validation, space, searcher, epochs=1, train_epochs=0, verbose=0
        )
