"""Layers whose inputs are 0 and 1 run as layers on signs."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from convolutions import conv, converted, model_of, on_zero_one

import larq_nas
from larq_nas.quantizers import LearnedStep, StandardizedSign

layers = tf.keras.layers


def three(make_quantizer, **settings):
    """Three convolutions on 0 and 1, with batch norms: the chain of VGG."""

    def block(x: tf.Tensor) -> tf.Tensor:
        for _ in range(3):
            x = layers.BatchNormalization()(on_zero_one(make_quantizer(), **settings)(x))
        return x

    return block


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "block",
    [
        three(lambda: lq.quantizers.DoReFa(1), kernel_quantizer="magnitude_aware_sign"),
        three(lambda: LearnedStep(0.7), kernel_quantizer=StandardizedSign()),
        three(lambda: lq.quantizers.SteHeaviside(), padding="valid"),
        three(lambda: lq.quantizers.DoReFa(1), strides=2, use_bias=True, activation="relu"),
    ],
    ids=["Shen's", "DMS's", "heaviside, valid", "bias, relu, strides"],
)
def test_zero_one_activations_run_in_binary_and_bits_pass_between(block, seed: int) -> None:
    model = model_of(block, seed=seed)
    conversion = converted(model)
    assert conversion.audit.operations["LceBconv2d"] == 3
    lines = [line for line in conversion.rewrites if "adds nothing" not in line]
    assert len(lines) == 3
    assert all("inputs of 0 and 1 run as signs" in line for line in lines)
    names = [layer.name for layer in model.layers if isinstance(layer, lq.layers.QuantConv2D)]
    before = larq_nas.convert(model, rewrite=False, allow_float=names)
    assert len(conversion.flatbuffer) < 0.15 * len(before.flatbuffer)


def test_the_flip_to_signs_folds_into_thresholds() -> None:
    block = three(lambda: lq.quantizers.DoReFa(1))
    operations = converted(model_of(block)).audit.operations
    # One affine and one quantize at the entrance; between the convolutions nothing but bits.
    assert operations["LceQuantize"] == operations["MUL"] == operations["ADD"] == 1


def test_a_zero_one_quantizer_that_is_a_layer_goes_into_the_convolution() -> None:
    def block(x: tf.Tensor) -> tf.Tensor:
        return conv(input_quantizer=None, pad_values=0.0)(lq.quantizers.DoReFa(1)(x))

    assert converted(model_of(block)).audit.operations["LceBconv2d"] == 1


def test_zero_one_inputs_padded_with_ones_are_refused_with_the_cause() -> None:
    model = model_of(lambda x: conv(input_quantizer=lq.quantizers.DoReFa(1), name="a")(x))
    with pytest.raises(larq_nas.errors.ConversionError, match=r"`a` would .* pad with zeros"):
        larq_nas.convert(model)


def test_rewriting_leaves_the_model_as_it_was() -> None:
    model = model_of(three(lambda: lq.quantizers.DoReFa(1)))
    weights = [weight.copy() for weight in model.get_weights()]
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    larq_nas.convert(model)
    assert nodes == [len(layer._inbound_nodes) for layer in model.layers]
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
