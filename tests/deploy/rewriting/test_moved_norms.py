"""Batch norms and activations before a sign move, or become one offset."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from convolutions import KERNELS, conv, converted, model_of, on_zero_one

import larq_nas
from larq_nas.deploy.rewriting import lower
from larq_nas.layers import Scale

layers = tf.keras.layers


def test_a_batch_norm_behind_a_concatenation_goes_into_the_convolutions() -> None:
    def block(x: tf.Tensor) -> tf.Tensor:
        parts = [conv(20)(x), conv(12)(x)]
        return conv()(layers.BatchNormalization(name="norm")(layers.Concatenate()(parts)))

    model = model_of(block, seed=1)
    conversion = converted(model)
    assert {"MUL", "ADD"}.isdisjoint(conversion.audit.operations)
    assert any("`norm` is computed before" in line for line in conversion.rewrites)
    before = larq_nas.convert(model, rewrite=False)
    assert len(conversion.flatbuffer) < len(before.flatbuffer)


def pooled(x: tf.Tensor) -> tf.Tensor:
    return conv()(layers.BatchNormalization(name="norm")(layers.MaxPool2D()(conv()(x))))


def test_a_batch_norm_behind_a_max_pool_goes_before_it() -> None:
    operations = converted(model_of(pooled)).audit.operations
    assert operations["LceBMaxPool2d"] == 1
    assert {"MUL", "ADD", "MAX_POOL_2D"}.isdisjoint(operations)


def test_a_batch_norm_that_turns_the_order_stays_behind_the_pool() -> None:
    conversion = converted(model_of(pooled, seed=1))
    assert conversion.rewrites == []
    assert conversion.audit.operations["MUL"] == conversion.audit.operations["ADD"] == 1


def test_a_tensor_that_others_read_keeps_its_batch_norm() -> None:
    def block(x: tf.Tensor) -> tf.Tensor:
        joined = layers.Concatenate()([conv(18)(x), conv(18)(x)])
        return layers.Add()([joined, conv(36)(layers.BatchNormalization()(joined))])

    assert not any("computed before" in line for line in converted(model_of(block)).rewrites)
    assert converted(model_of(block, seed=1)).rewrites == []


def increasing(number: int) -> list[tf.keras.layers.Layer]:
    """Return layers that keep the order of numbers, and between which signs are read."""
    slope = tf.keras.initializers.Constant(0.25)
    return [
        [layers.BatchNormalization()],
        [layers.PReLU(slope, shared_axes=[1, 2])],
        [layers.LeakyReLU(0.1), layers.BatchNormalization()],
        [layers.BatchNormalization(), layers.ReLU(), layers.BatchNormalization()],
        [Scale(), layers.PReLU(slope, shared_axes=[1, 2]), layers.Dropout(0.1)],
    ][number]


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("source", ["image", "convolution", "real"])
def test_what_keeps_the_order_is_an_offset_before_signs(number: int, source: str) -> None:
    def block(x: tf.Tensor) -> tf.Tensor:
        if source != "image":
            x = conv()(x) if source == "convolution" else layers.Conv2D(40, 3, name="real")(x)
        for layer in increasing(number):
            x = layer(x)
        return conv(name="reader")(x)

    model = model_of(block)
    for layer in model.layers:
        if isinstance(layer, layers.PReLU):
            layer.alpha.assign(np.random.default_rng(0).uniform(0.1, 0.4, layer.alpha.shape))
    conversion = larq_nas.convert(model, kernels=KERNELS)
    assert all(parity.exact >= 0.98 for parity in conversion.parity)
    operations = conversion.audit.operations
    assert {"MUL", "PRELU", "LEAKY_RELU", "RELU"}.isdisjoint(operations)
    # Nothing but a positive slope or scale needs no offset; one behind a convolution is its own.
    assert operations.get("ADD", 0) == (source == "image" and number not in (1, 4))
    before = larq_nas.convert(model, rewrite=False, kernels=KERNELS)
    assert len(conversion.flatbuffer) <= len(before.flatbuffer)
    assert (conversion.rewrites == []) == (source != "image" and number == 0)


def test_the_offset_is_exact_at_every_threshold() -> None:
    """Integers, as binary convolutions give them, reach thresholds that are integers."""
    norm = layers.BatchNormalization()
    model = model_of(lambda x: conv(name="reader")(norm(layers.MaxPool2D(1)(x))))
    generator = np.random.default_rng(0)
    norm.moving_mean.assign(generator.integers(-20, 20, 36))
    norm.beta.assign(np.where(np.arange(36) % 3, 0.0, generator.normal(size=36)))
    norm.gamma.assign(np.where(np.arange(36) % 5, generator.uniform(0.1, 3, 36), 0.0))
    lowered = lower(model)
    (rewrite,) = lowered.rewrites.values()
    assert rewrite.signs_only
    whole = generator.integers(-25, 25, (64, 9, 10, 36)).astype("float32")
    thresholds = -rewrite.compute(np.zeros(36, "float32"))
    # Scales of 0 give one sign for all numbers.
    assert (np.abs(thresholds) > 1e29).tolist() == (norm.gamma.numpy() == 0).tolist()
    near = np.where(norm.gamma == 0, 0, thresholds) * np.ones((64, 1, 1, 1), "float32")
    beside = np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))
    for images in (whole, near, *beside):
        expected = norm(images).numpy() >= 0
        np.testing.assert_array_equal(rewrite.compute(images) >= 0, expected)


def test_what_turns_the_order_or_is_read_otherwise_stays() -> None:
    def read_twice(x: tf.Tensor) -> tf.Tensor:
        y = layers.BatchNormalization()(x)
        return layers.Add()([y, conv(36)(y)])

    def turned(x: tf.Tensor) -> tf.Tensor:
        return conv(36)(layers.LeakyReLU(0.0)(layers.Add()([x, conv(36)(x)])))

    def zero_one(x: tf.Tensor) -> tf.Tensor:
        return on_zero_one(lq.quantizers.DoReFa(1))(layers.BatchNormalization()(x))

    for block in (read_twice, turned, zero_one):
        assert not any("signs are read" in line for line in lower(model_of(block)).reasons)
    batch_norm = model_of(lambda x: conv()(layers.BatchNormalization()(x)), seed=1)
    assert converted(batch_norm).rewrites == []
