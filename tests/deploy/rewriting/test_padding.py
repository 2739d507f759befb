"""Paddings that the kernels do not have are computed exactly, and predicted."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from conftest import randomize
from convolutions import KERNELS, SIGNS, conv, exact_kinds, model_of, normal

import larq_nas
from larq_nas.cost import profile
from larq_nas.cost.profile import read_structure
from larq_nas.deploy.export import export_lowered, run
from larq_nas.deploy.flatbuffer import operators
from larq_nas.deploy.operations import KERNELS as OPTIONS
from larq_nas.deploy.rewriting import lower

layers = tf.keras.layers


def causal(**settings) -> lq.layers.QuantConv1D:
    return lq.layers.QuantConv1D(24, 3, **{**SIGNS, "padding": "causal", **settings})


def padded_signs(x: tf.Tensor, value: float, rows=(1, 1), **settings) -> tf.Tensor:
    paddings = [(0, 0), rows, rows, (0, 0)]
    signs = tf.pad(lq.quantizers.SteSign()(x), paddings, constant_values=value)
    return conv(input_quantizer=None, padding="valid", pad_values=0.0, **settings)(signs)


def real(layer: tf.keras.layers.Layer, pad: int = 1):
    return lambda x: layer(layers.ZeroPadding2D(pad)(x))


PADDED = {
    "causal": (lambda x: causal()(x), (20, 36)),
    "causal, dilated, scaled": (
        lambda x: causal(dilation_rate=2, kernel_quantizer="magnitude_aware_sign")(x),
        (20, 36),
    ),
    "causal, norm, causal": (
        lambda x: causal()(layers.BatchNormalization()(causal(activation="relu")(x))),
        (20, 36),
    ),
    "causal, 0 and 1": (lambda x: causal(input_quantizer=lq.quantizers.DoReFa(1))(x), (20, 36)),
    "causal, groups": (lambda x: causal(groups=2)(x), (20, 36)),
    "causal, 0 and 1 by a layer": (
        lambda x: causal(input_quantizer=None)(lq.quantizers.DoReFa(1)(x)),
        (20, 36),
    ),
    "-1": (lambda x: conv(pad_values=-1.0)(x), (9, 10, 36)),
    "-1, strides, norm": (
        lambda x: conv(pad_values=-1.0)(
            layers.BatchNormalization()(conv(pad_values=-1.0, strides=2)(x))
        ),
        (9, 10, 36),
    ),
    "-1, groups": (
        lambda x: conv(pad_values=-1.0, groups=2, name="b")(layers.BatchNormalization(name="a")(x)),
        (9, 10, 36),
    ),
    "-1 around a sign": (
        lambda x: conv(pad_values=-1.0, input_quantizer=None)(lq.quantizers.SteSign()(x)),
        (9, 10, 36),
    ),
    "small": (lambda x: conv(pad_values=0.0)(x), (2, 2, 36)),
    "small, relu, norm": (
        lambda x: layers.BatchNormalization()(conv(pad_values=0.0, activation="relu")(x)),
        (2, 3, 36),
    ),
    "a pixel": (
        lambda x: conv(pad_values=0.0)(layers.BatchNormalization()(conv(pad_values=0.0)(x))),
        (1, 1, 36),
    ),
    "a row": (lambda x: conv(pad_values=0.0)(x), (1, 9, 36)),
    "wide": (lambda x: conv(kernel_size=5, dilation_rate=2, pad_values=0.0)(x), (8, 8, 36)),
    "signs, stride": (lambda x: padded_signs(x, 1.0, strides=2), (10, 8, 36)),
    "signs": (lambda x: padded_signs(x, 1.0), (10, 8, 36)),
    "signs in zeros": (lambda x: padded_signs(x, 0.0, strides=2), (10, 8, 36)),
    "signs in -1 on one side": (lambda x: padded_signs(x, -1.0, (2, 0)), (10, 8, 36)),
    "real, stride": (real(layers.Conv2D(16, 3, 2)), (10, 8, 36)),
    "real, 7": (real(layers.Conv2D(16, 7, 2), 3), (32, 32, 3)),
    "real, stride 3": (real(layers.Conv2D(16, 3, 3)), (10, 8, 36)),
    "real, odd and even": (real(layers.Conv2D(16, 3, 2)), (9, 8, 36)),
    "real, odd": (real(layers.Conv2D(16, 3, 2)), (9, 9, 36)),
    "real, no stride": (real(layers.Conv2D(16, 3)), (10, 8, 36)),
    "depthwise": (real(layers.DepthwiseConv2D(3, 2)), (10, 8, 36)),
    "separable": (real(layers.SeparableConv2D(16, 3, 2)), (10, 8, 36)),
    "real, two readers": (
        lambda x: layers.Add()(
            [
                layers.Conv2D(8, 3, 2, name=name)(layers.ZeroPadding2D(1, name=f"pad_{name}")(x))
                for name in "ab"
            ]
        ),
        (10, 8, 36),
    ),
}


class PadsDropsConvolves(layers.Layer):
    """A pad, a dropout and a strided convolution in one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.convolve = layers.Dropout(0.5), layers.Conv2D(8, 3, strides=2)

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        padded = tf.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
        return self.convolve(self.drop(padded, training=training))


def between(*middle: tf.keras.layers.Layer, last: tf.keras.layers.Layer | None = None):
    return lambda: [
        layers.ZeroPadding2D(1, name="pad"),
        *middle,
        last or layers.Conv2D(8, 3, strides=2),
    ]


FOLDED = {
    "dropout": between(layers.Dropout(0.3)),
    "noise": between(layers.GaussianNoise(0.1)),
    "linear": between(layers.Activation("linear")),
    "reshape": between(layers.Reshape((18, 18, 3)), layers.Dropout(0.1)),
    "permutation": between(layers.Permute((2, 1, 3))),
    "rescaling": between(layers.Rescaling(2.0)),
    "rescaling with an offset": between(layers.Rescaling(2.0, 1.0)),
    "scale": between(layers.Lambda(lambda t: t * 3.0)),
    "scales": between(layers.Lambda(lambda t: t * tf.constant([1.0, 2.0, 3.0]))),
    "offset": between(layers.Lambda(lambda t: t + 1.0)),
    "function": lambda: [
        layers.Lambda(lambda t: tf.pad(t, [(0, 0), (1, 1), (1, 1), (0, 0)]) + 0.0),
        layers.Conv2D(8, 3, strides=2),
    ],
    "depthwise": between(layers.Dropout(0.1), last=layers.DepthwiseConv2D(3, strides=2)),
    "own layer": lambda: [PadsDropsConvolves()],
    "norm": between(layers.BatchNormalization()),
    "relu": between(layers.ReLU()),
}


@pytest.mark.parametrize("make", FOLDED.values(), ids=list(FOLDED))
def test_what_is_between_a_pad_and_a_convolution_does_not_move_the_pad(make) -> None:
    model = tf.keras.Sequential([tf.keras.Input((16, 16, 3)), *make()])
    kinds = exact_kinds(model, normal(16, 16, 3))
    assert "PAD" in kinds
    assert abs(profile(model).flatbuffer_bytes - len(export_lowered(lower(model)))) <= 512


def test_the_pad_is_named_through_what_the_converter_folds() -> None:
    model = tf.keras.Sequential([tf.keras.Input((16, 16, 3)), *FOLDED["dropout"]()])
    with pytest.raises(larq_nas.errors.ConversionError, match="`pad` pads it on both sides"):
        larq_nas.convert(model, normal(16, 16, 3), rewrite=False)


@pytest.mark.parametrize(("block", "shape"), PADDED.values(), ids=list(PADDED))
def test_every_padding_is_exact_and_predicted(block, shape) -> None:
    inputs = tf.keras.Input(shape)
    model = randomize(tf.keras.Model(inputs, block(inputs)))
    lowered, costs = lower(model), profile(model)
    flatbuffer = export_lowered(lowered)
    images = np.random.default_rng(0).normal(size=(8, *shape)).astype("float32")
    expected = model(images).numpy()
    for kernel in KERNELS:
        (got,) = run(flatbuffer, images, kernel, **OPTIONS[kernel])
        np.testing.assert_allclose(got.reshape(expected.shape), expected, atol=1e-3)
    kinds = [operator.kind for operator in operators(flatbuffer)]
    binary = [row for row in costs.layers if row.binary]
    assert kinds.count("LceBconv2d") == sum(row.groups for row in binary)
    assert costs.fallbacks == []
    assert "LceDequantize" not in kinds
    predicted = [operator.kind for operator in read_structure(model).operators]
    assert sorted(predicted) == sorted(kinds)
    assert abs(costs.flatbuffer_bytes - len(flatbuffer)) <= max(0.01 * len(flatbuffer), 512)


def test_a_padding_that_is_no_sign_is_named_alike_by_costs_and_conversion() -> None:
    model = model_of(lambda x: conv(pad_values=0.5, name="half")(x))
    (row,) = profile(model).fallbacks
    assert row.fallback == "it pads with 0.5, which is no sign; pad with 1, -1 or 0"
    with pytest.raises(larq_nas.errors.ConversionError) as caught:
        larq_nas.convert(model)
    assert f"Binary layer `half` would run in float: {row.fallback}" in str(caught.value)
