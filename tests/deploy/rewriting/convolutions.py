"""Binary convolutions to rewrite, and what their conversions must be."""

import larq as lq
import numpy as np
import tensorflow as tf
from conftest import randomize

import larq_nas
from larq_nas.deploy.export import export_lowered, run
from larq_nas.deploy.flatbuffer import operators
from larq_nas.deploy.operations import KERNELS as OPTIONS
from larq_nas.deploy.rewriting import lower
from larq_nas.layers import classifier

layers = tf.keras.layers
KERNELS = ("default", "reference", "indirect")
SIGNS = {
    "input_quantizer": "ste_sign",
    "kernel_quantizer": "ste_sign",
    "kernel_constraint": "weight_clip",
}


def conv(filters: int = 40, kernel_size: int = 3, **settings) -> lq.layers.QuantConv2D:
    defaults = {**SIGNS, "padding": "same", "pad_values": 1.0, "use_bias": False}
    return lq.layers.QuantConv2D(filters, kernel_size, **{**defaults, **settings})


def on_zero_one(quantizer, **settings) -> lq.layers.QuantConv2D:
    return conv(input_quantizer=quantizer, pad_values=0.0, **settings)


def model_of(block, shape=(9, 10, 36), seed: int = 0) -> tf.keras.Model:
    inputs = tf.keras.Input(shape)
    model = randomize(tf.keras.Model(inputs, classifier(block(inputs), 4)), seed)
    for layer in model.layers:  # negative scales turn filters in the converter
        if isinstance(layer, layers.BatchNormalization) and seed:
            sign = np.random.default_rng(seed).choice([-1.0, 1.0], layer.gamma.shape)
            layer.gamma.assign(layer.gamma * sign)
    return model


def converted(model: tf.keras.Model, **settings) -> larq_nas.Conversion:
    """Return the conversion, exact on all kernels and without a convolution in float."""
    conversion = larq_nas.convert(model, **{"kernels": KERNELS, **settings})
    assert all(parity.exact >= 0.98 for parity in conversion.parity)
    assert {"CONV_2D", "LceDequantize"}.isdisjoint(conversion.audit.operations)
    assert conversion.audit.fallbacks == []
    return conversion


def exact_kinds(model: tf.keras.Model, images: np.ndarray) -> list[str]:
    """Return the operations of a flatbuffer that gives Keras's numbers on all kernels."""
    flatbuffer = export_lowered(lower(model))
    expected = model(images).numpy()
    for kernel in KERNELS:
        (got,) = run(flatbuffer, images, kernel, **OPTIONS[kernel])
        np.testing.assert_allclose(got.reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)
    return [operator.kind for operator in operators(flatbuffer)]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(8, *shape)).astype("float32")
