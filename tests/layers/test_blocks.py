from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from larq_nas import layers
from larq_nas.layers.scale import LowerBound


def build(block, shape=(8, 8, 4)) -> tf.keras.Model:
    inputs = tf.keras.Input(shape)
    return tf.keras.Model(inputs, block(inputs))


def kinds(model: tf.keras.Model) -> list[str]:
    return [type(layer).__name__ for layer in model.layers[1:]]


def test_order_and_identity_of_a_binary_conv() -> None:
    model = build(lambda x: layers.binary_conv(x, 4, 3, name="a"))
    assert kinds(model) == ["BatchNormalization", "BinaryConv2D", "Scale", "Add"]
    model = build(lambda x: layers.binary_conv(x, 4, 3, name="a", strides=2, activation="prelu"))
    assert kinds(model) == ["BatchNormalization", "BinaryConv2D", "Scale", "PReLU"]
    assert model.output_shape == (None, 4, 4, 4)


def test_domains_build_the_same_network_more_or_less_binary() -> None:
    block = lambda x: layers.binary_conv(x, 4, 3, name="a")  # noqa: E731
    with layers.building_in(layers.SEARCH):
        searched = build(block)
    assert kinds(searched) == ["BatchNormalization", "BinaryConv2D", "Add"]
    assert searched.layers[1].gamma is None
    assert searched.layers[2].kernel_quantizer is None
    with layers.building_in(layers.REAL_WEIGHTS):
        real = build(block)
    assert real.layers[1].gamma is not None
    assert build(block).layers[2].kernel_quantizer is not None


@pytest.mark.parametrize("binarization", ["sign", "dorefa", "dms"])
def test_only_weights_that_stop_to_learn_beyond_1_are_clipped(
    binarization: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """DoReFa-Net and DMS name no clipping, and their gradients need none: Larq's warning errs."""
    model = build(lambda x: layers.sign_conv(x, 4, 3, name="a", binarization=binarization))
    model.save(tmp_path / "model.keras")
    for each in (model, tf.keras.models.load_model(tmp_path / "model.keras")):
        clipped = each.get_layer("a_conv").kernel.constraint is not None
        assert clipped == (binarization == "sign")
    assert "kernel_constraint" not in caplog.text


def test_scaling_after_relu_equals_equation_1() -> None:
    """relu(alpha * conv) = alpha * relu(conv) for a positive scale."""
    model = build(lambda x: layers.binary_conv(x, 6, 3, name="a"))
    scale = np.random.default_rng(0).uniform(0.1, 2, 6).astype("float32")
    model.get_layer("a_scale").scale.assign(scale)
    x = np.random.default_rng(1).normal(size=(2, 8, 8, 4)).astype("float32")
    conv = model.get_layer("a_conv")
    conv.activation = None
    raw = conv(model.get_layer("a_bn")(x)).numpy()
    conv.activation = tf.keras.activations.relu
    np.testing.assert_allclose(model(x), np.maximum(raw * scale, 0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("size", "filters"), [(8, 4), (7, 4), (8, 5), (1, 2)])
def test_factorized_reduce_halves(size: int, filters: int) -> None:
    model = build(lambda x: layers.factorized_reduce(x, filters, name="a"), (size, size, 4))
    assert model.output_shape == (None, -(-size // 2), -(-size // 2), filters)


def test_factorized_reduce_reads_every_other_pixel() -> None:
    model = build(lambda x: layers.factorized_reduce(x, 2, name="a"), (4, 4, 1))
    for side in ("even", "odd"):
        conv = model.get_layer(f"a_{side}_conv")
        conv.activation = tf.keras.activations.linear
        conv.kernel.assign(tf.ones_like(conv.kernel))
    x = np.where(np.arange(16).reshape(1, 4, 4, 1) % 3 == 0, 1.0, -1.0).astype("float32")
    y = model(x).numpy()[0]
    np.testing.assert_array_equal(y[..., 0], x[0, ::2, ::2, 0])
    np.testing.assert_array_equal(y[..., 1], x[0, 1::2, 1::2, 0])


def test_scales_stay_where_they_convert() -> None:
    np.testing.assert_allclose(LowerBound(1e-6)(tf.constant([-1.0, 0.0, 2.0])), [1e-6, 1e-6, 2.0])
