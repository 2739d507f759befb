"""Predictions for layers and ways of calling them that the search spaces do not have."""

from collections.abc import Callable

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from conftest import randomize
from runtime import convert

from larq_nas.cost import profile

LAYERS = tf.keras.layers
SIGN = lq.quantizers.SteSign
CONSTANT = np.random.default_rng(0).normal(size=(16, 16, 32)).astype("float32")


def quant_conv(filters: int, kernel_size: int = 3, **changes) -> tf.keras.layers.Layer:
    settings = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "padding": "same"}
    settings |= {"pad_values": 1, "use_bias": False, "kernel_constraint": "weight_clip", **changes}
    return lq.layers.QuantConv2D(filters, kernel_size, **settings)


def build(function: Callable, shape=(16, 16, 32)) -> tf.keras.Model:
    images = tf.keras.Input(shape, name="image")
    return tf.keras.Model(images, function(images))


def shared_real(x: tf.Tensor) -> tf.Tensor:
    conv = LAYERS.Conv2D(64, 3, padding="same")
    return conv(conv(conv(LAYERS.Conv2D(64, 1)(x))))


def shared_binary(x: tf.Tensor) -> tf.Tensor:
    conv, norm = quant_conv(32), LAYERS.BatchNormalization()
    return norm(conv(norm(conv(norm(conv(x))))))


def two_dilated(x: tf.Tensor) -> tf.Tensor:
    real = LAYERS.Conv2D(32, 3, padding="same", dilation_rate=2)(x)
    return LAYERS.Add()([real, quant_conv(32, dilation_rate=2)(x)])


def two_paddings(x: tf.Tensor) -> tf.Tensor:
    zeros = quant_conv(32, dilation_rate=2, pad_values=0)(x)
    return LAYERS.Add()([zeros, quant_conv(32, dilation_rate=2)(x)])


CASES: dict[str, tuple[Callable, tuple[int, ...], int]] = {
    "a sign apart": (lambda x: quant_conv(32, input_quantizer=None)(SIGN()(x)), (16, 16, 32), 1),
    "a pool between": (
        lambda x: quant_conv(32, input_quantizer=None)(LAYERS.MaxPool2D()(SIGN()(x))),
        (16, 16, 32),
        0,
    ),
    "a crop between": (
        lambda x: quant_conv(32, input_quantizer=None)(LAYERS.Cropping2D(1)(SIGN()(x))),
        (16, 16, 32),
        0,
    ),
    "weights of 0 and 1": (
        lambda x: quant_conv(32, kernel_quantizer=lq.quantizers.SteHeaviside())(x),
        (16, 16, 32),
        0,
    ),
    "a real and a binary dilation": (two_dilated, (16, 16, 32), 1),
    "dilations of two paddings": (two_paddings, (16, 16, 32), 2),
    "a shared layer": (shared_real, (16, 16, 32), 0),
    "a shared binary layer": (shared_binary, (16, 16, 32), 3),
    "a constant": (lambda x: x + tf.constant(CONSTANT), (16, 16, 32), 0),
    "groups of 32": (lambda x: quant_conv(32, groups=2)(x), (16, 16, 64), 1),
    "arithmetic with numbers": (
        lambda x: quant_conv(32)(quant_conv(32)(x) * 0.5 + 1.0),
        (16, 16, 32),
        2,
    ),
    "swish": (
        lambda x: LAYERS.Conv2D(8, 1)(LAYERS.Activation("swish")(LAYERS.Conv2D(32, 3)(x))),
        (16, 16, 32),
        0,
    ),
    "a binary depthwise layer": (
        lambda x: lq.layers.QuantDepthwiseConv2D(
            3,
            input_quantizer="ste_sign",
            depthwise_quantizer="ste_sign",
            depthwise_constraint="weight_clip",
            padding="same",
            pad_values=1,
        )(x),
        (16, 16, 32),
        0,
    ),
    "one dimension": (lambda x: LAYERS.Conv1D(16, 3, padding="same")(x), (128, 32), 0),
    "a mean": (
        lambda x: LAYERS.Average()(
            [LAYERS.Conv2D(32, 1)(x), LAYERS.Conv2D(32, 3, padding="same")(x), x]
        ),
        (16, 16, 32),
        0,
    ),
    "relu6": (
        lambda x: LAYERS.Activation(tf.nn.relu6)(LAYERS.BatchNormalization()(quant_conv(32)(x))),
        (16, 16, 32),
        1,
    ),
    "zeros around, then ReLU": (
        lambda x: quant_conv(32)(
            LAYERS.BatchNormalization()(LAYERS.ReLU()(quant_conv(32, pad_values=0)(x)))
        ),
        (16, 16, 32),
        2,
    ),
    "zeros around a convolution with ReLU": (
        lambda x: LAYERS.BatchNormalization()(quant_conv(32, pad_values=0, activation="relu")(x)),
        (16, 16, 32),
        1,
    ),
    "zeros around, then batch norm": (
        lambda x: quant_conv(32)(LAYERS.BatchNormalization()(quant_conv(32, pad_values=0)(x))),
        (16, 16, 32),
        2,
    ),
    "a product": (
        lambda x: LAYERS.Multiply()([LAYERS.Conv2D(32, 1)(x), x]),
        (16, 16, 32),
        0,
    ),
}


@pytest.mark.parametrize(("function", "shape", "binary"), CASES.values(), ids=list(CASES))
def test_bytes_and_memory_are_those_of_the_flatbuffer(
    function: Callable, shape: tuple[int, ...], binary: int
) -> None:
    model = build(function, shape)
    costs, real = profile(model), convert(randomize(model))
    assert abs(costs.flatbuffer_bytes - real.bytes) <= max(0.03 * real.bytes, 512)
    assert costs.activation_bytes == real.peak
    assert real.kinds.count("LceBconv2d") == binary
    deployed = [row for row in costs.layers if row.binary and not row.fallback]
    assert len(deployed) == binary


def test_zero_padding_is_told() -> None:
    model = build(lambda x: quant_conv(32, pad_values=0)(x))
    assert "1 binary layers pad with zeros" in str(profile(model))


def test_a_model_of_two_outputs() -> None:
    images = tf.keras.Input((8, 8, 16))
    first = quant_conv(16)(images)
    second = quant_conv(16)(LAYERS.BatchNormalization()(first))
    costs = profile(tf.keras.Model(images, [first, second]))
    assert costs.binary_macs == 2 * 64 * 9 * 16 * 16
    # The first output stays, as numbers.
    assert costs.activation_bytes >= 2 * 4 * 8 * 8 * 16


class Doubled(tf.keras.layers.Conv2D):
    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return super().call(super().call(inputs))


@pytest.mark.parametrize(
    "layer",
    [
        Doubled(16, 3, padding="same", name="odd"),
        LAYERS.Conv2D(8, 3, data_format="channels_first", padding="same", name="odd"),
        LAYERS.BatchNormalization(axis=1, name="odd"),
        LAYERS.Lambda(lambda x: x + 1, name="odd"),
    ],
)
def test_what_a_layer_really_does_must_be_known(layer: tf.keras.layers.Layer) -> None:
    costs = profile(tf.keras.Sequential([tf.keras.Input((16, 16, 16)), layer]))
    assert costs.unknown == ("odd",)
    assert costs.parameters.get(32, 0) == layer.count_params()
    assert costs.flatbuffer_bytes >= 4 * layer.count_params()
