"""The networks of larq-zoo, smaller than published: they convert as they are, or are refused."""

from collections.abc import Callable

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from conftest import quick

import larq_nas
from larq_nas.errors import ConversionError

zoo = pytest.importorskip("larq_zoo")

KERNELS = ("default", "reference", "indirect")
REAL = (tf.keras.layers.Conv2D, tf.keras.layers.DepthwiseConv2D, tf.keras.layers.Dense)
FLOAT_OPERATIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def network(build: Callable[..., tf.keras.Model], size: int = 96) -> tf.keras.Model:
    """Return a network with random weights, its batch norms fitted to random images.

    Fresh from the factory, whole sums of signs tie with the threshold, and rounding decides.
    """
    tf.keras.utils.set_random_seed(0)
    model = build(weights=None, input_shape=(size, size, 3), num_classes=10)
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(images_of(model, seed=1), training=True)
    return model


def images_of(model: tf.keras.Model, seed: int = 0) -> np.ndarray:
    shape = (32, *model.input_shape[1:])
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype("float32")


def binary_layers(model: tf.keras.Model) -> list[str]:
    """Return the layers that say themselves that they quantize their inputs and weights."""
    kinds = (lq.layers.QuantConv2D, lq.layers.QuantDense)
    return [
        layer.name
        for layer in model.layers
        if isinstance(layer, kinds) and layer.input_quantizer and layer.kernel_quantizer
    ]


def one_bit_dorefa(weights: None, **settings) -> tf.keras.Model:
    factory = zoo.literature.dorefanet.DoReFaNetFactory
    return factory(
        weights=weights, input_tensor=None, include_top=True, activations_k_bit=1, **settings
    ).build()


@pytest.mark.parametrize(
    ("build", "layers"),
    quick(
        [
            (zoo.literature.BinaryDenseNet28, 23),
            (zoo.literature.BiRealNet, 16),
            (zoo.sota.QuickNetSmall, 16),
            (zoo.literature.RealToBinaryNet, 16),
        ],
        2,
    ),
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_network_runs_in_binary_as_it_is(build, layers: int) -> None:
    model = network(build)
    conversion = larq_nas.convert(model, images_of(model), kernels=KERNELS)
    names = binary_layers(model)
    runs_as = {row.layer: row.runs_as for row in conversion.audit.layers}
    operations = conversion.audit.operations
    real = [layer for layer in model.layers if isinstance(layer, REAL) and layer.name not in names]
    assert len(names) == operations["LceBconv2d"] == layers
    assert {runs_as[name] for name in names} == {"LceBconv2d"}
    assert sum(operations.get(kind, 0) for kind in FLOAT_OPERATIONS) == len(real)
    assert "LceDequantize" not in operations
    assert all(parity.exact >= 0.8 for parity in conversion.parity)
    assert all(parity.agreement >= 0.9 for parity in conversion.parity)


def test_two_bits_are_refused_with_the_layer_and_what_to_do() -> None:
    model = network(zoo.literature.DoReFaNet)
    with pytest.raises(ConversionError) as caught:
        larq_nas.convert(model, images_of(model))
    assert f"`{binary_layers(model)[0]}`" in str(caught.value)
    assert "its inputs have 2 bits" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_one_bit_runs_in_binary_only_rewritten() -> None:
    model = network(one_bit_dorefa)
    names = binary_layers(model)
    with pytest.raises(ConversionError, match="its inputs are 0 and 1, not signs"):
        larq_nas.convert(model, images_of(model), rewrite=False)
    conversion = larq_nas.convert(model, images_of(model), kernels=KERNELS)
    assert conversion.audit.operations["LceBconv2d"] == len(names) == 6
    assert sum("inputs of 0 and 1 run as signs" in line for line in conversion.rewrites) == 6
    assert all(parity.exact >= 0.8 for parity in conversion.parity)


@pytest.mark.slow
def test_images_too_small_for_zero_padding_are_right_on_every_kernel() -> None:
    """At 64 pixels the last block sees 2x2, and pads with zeros: the default kernel is wrong."""
    model = network(zoo.literature.BiRealNet, size=64)
    conversion = larq_nas.convert(model, images_of(model))
    assert any("padded with zeros" in line for line in conversion.rewrites)
    assert conversion.audit.fallbacks == []
    assert all(parity.exact >= 0.8 for parity in conversion.parity)
