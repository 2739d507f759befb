"""Binary convolutions in 16 bits."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from conftest import quick

import larq_nas
from larq_nas.errors import InputError
from larq_nas.layers import BINARY_SEARCH, BinaryConv2D, building_in, computing_in
from larq_nas.methods import recipe as recipe_of
from larq_nas.spaces import Bnas
from larq_nas.supernet.fuse import Fuse
from larq_nas.supernet.relax import Relax


def operations(function: tf.types.experimental.ConcreteFunction, kind: str) -> list[tf.Operation]:
    return [one for one in function.graph.get_operations() if one.type == kind]


def test_sums_of_up_to_256_signs_lose_nothing() -> None:
    layer = BinaryConv2D(8, 3)
    x = tf.random.stateless_normal((2, 6, 6, 24), (0, 1))
    exact = layer(x)
    with computing_in("bfloat16"):
        low = layer(x)
    assert low.dtype == tf.float32
    assert np.abs(exact).max() > 30
    np.testing.assert_array_equal(low, exact)


def test_convolutions_multiply_in_16_bits_within_the_block_alone() -> None:
    layer = BinaryConv2D(8, 3)
    layer.build((None, 6, 6, 4))

    @tf.function
    def run(x: tf.Tensor) -> tf.Tensor:
        with computing_in("bfloat16"):
            return layer(x)

    @tf.function
    def other(x: tf.Tensor) -> tf.Tensor:
        return layer(x)

    shape = tf.TensorSpec((1, 6, 6, 4))
    found = [operations(f.get_concrete_function(shape), "Conv2D")[0] for f in (run, other)]
    assert [one.outputs[0].dtype for one in found] == [tf.bfloat16, tf.float32]


@pytest.mark.parametrize("chooser", quick([Fuse, Relax], 1))
def test_gradients_of_a_supernet_are_those_of_float32(chooser) -> None:
    tf.keras.utils.set_random_seed(0)
    choose = chooser()
    with building_in(BINARY_SEARCH):
        model = Bnas(cells=2, channels=5, nodes=2).build(choose, (8, 8, 3), 4)
    images = tf.random.stateless_normal((8, 8, 8, 3), (0, 1))
    variables = model.trainable_weights
    found = []
    for precision in ("float32", "bfloat16"):
        with tf.GradientTape() as tape, computing_in(precision):
            loss = tf.reduce_mean(model(images, training=True) ** 2)
        found.append([tf.convert_to_tensor(g) for g in tape.gradient(loss, variables)])
    assert any((exact.numpy() != low.numpy()).any() for exact, low in zip(*found, strict=True))
    for variable, exact, low in zip(variables, *found, strict=True):
        assert low.dtype == tf.float32
        similar = tf.reduce_sum(exact * low) / (tf.norm(exact) * tf.norm(low) + 1e-12)
        assert tf.norm(exact) < 1e-6 or similar > 0.9, variable.name  # signs turn with rounding


@pytest.mark.slow
def test_a_search_in_16_bits_ends_in_a_network_of_float32() -> None:
    train, validation = larq_nas.datasets.load("digits")
    model = larq_nas.search(
        train.take(6),
        validation,
        space=larq_nas.spaces.Bats(cells=1, channels=4, groups=1, nodes=1),
        searcher=larq_nas.searchers.Differentiable(precision="bfloat16"),
        recipe=dataclasses.replace(recipe_of("bats"), precision="bfloat16"),
        epochs=1,
        train_epochs=2,
        verbose=0,
    )
    assert {weight.dtype for weight in model.weights if weight.dtype.is_floating} == {tf.float32}
    assert larq_nas.convert(model, validation).parity[0].agreement == 1


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(InputError, match=r"bfloat16"), computing_in("float16"):
        pass
    with pytest.raises(InputError, match=r"bfloat16"):
        larq_nas.searchers.Differentiable(precision="float16")
    with pytest.raises(InputError, match=r"bfloat16"):
        dataclasses.replace(recipe_of("bats"), precision="half")
