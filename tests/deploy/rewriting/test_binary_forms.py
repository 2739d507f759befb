"""Layers that would run in float run as a binary convolution that gives the same numbers."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from convolutions import SIGNS, conv, converted, model_of

import larq_nas
from larq_nas.deploy.rewriting import lower

layers = tf.keras.layers


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (
            lambda x: layers.Reshape((1, 1, 20))(
                lq.layers.QuantDense(20, activation="relu", **SIGNS)(layers.Flatten()(x))
            ),
            "QuantDense runs as a binary convolution",
        ),
        (lambda x: lq.layers.QuantDense(20, **SIGNS)(x), "QuantDense runs"),
        (
            lambda x: layers.Reshape((9, 10, 18))(
                lq.layers.QuantConv1D(18, 3, padding="same", pad_values=1.0, **SIGNS)(
                    layers.Reshape((90, 36))(x)
                )
            ),
            "QuantConv1D runs as a binary convolution",
        ),
    ],
    ids=["vector", "image", "rows"],
)
def test_dense_and_one_dimensional_layers_run_as_convolutions(block, reason: str) -> None:
    model = model_of(block)
    conversion = converted(model)
    assert reason in conversion.rewrites[0]
    assert conversion.audit.operations["LceBconv2d"] == 1
    rows = [row for row in conversion.audit.layers if row.binary]
    before = larq_nas.convert(model, rewrite=False, allow_float=[row.layer for row in rows])
    assert len(conversion.flatbuffer) < len(before.flatbuffer)


def test_convolutions_that_share_a_dilated_tensor_run_in_binary() -> None:
    def block(x: tf.Tensor) -> tf.Tensor:
        return layers.Add()([conv(36, dilation_rate=2)(x) for _ in range(2)])

    conversion = converted(model_of(block))
    assert conversion.audit.operations["LceBconv2d"] == 2
    assert all("dilates inside the convolution" in line for line in conversion.rewrites)


def test_vanishing_scales_are_moved_behind_the_convolution() -> None:
    layer = conv(8, kernel_quantizer="magnitude_aware_sign", name="decayed")
    model = model_of(lambda x: layer(x))
    values = layer.get_weights()[0]
    values[..., 3] = 0.0
    values[..., 4] *= 1e-9
    layer.set_weights([values])
    with pytest.raises(larq_nas.errors.ConversionError, match=r"`decayed` .*vanishing scales"):
        larq_nas.convert(model, rewrite=False)
    (line,) = converted(model).rewrites
    assert "scales of 2 filters below 1e-6" in line


def test_filters_that_the_converter_turned_are_recognized() -> None:
    """A negative batch norm between two convolutions turns the signs of a filter."""
    model = model_of(lambda x: conv()(layers.BatchNormalization()(conv()(x))), seed=1)
    assert converted(model).rewrites == []


def test_nested_shared_and_several_output_layers_are_computed_as_keras_does() -> None:
    inner_input = tf.keras.Input((9, 10, 36))
    inner = tf.keras.Model(inner_input, conv(36, dilation_rate=2)(inner_input), name="inner")

    def block(x: tf.Tensor) -> tf.Tensor:
        first, second = tf.split(layers.Dropout(0.5)(inner(inner(x))), 2, axis=-1)
        return layers.Concatenate()([second, first, tf.nn.relu(second) + 1.0])

    model = model_of(block)
    lowered = lower(model)
    assert len(lower(model, offsets=False).rewrites) == 2
    images = np.random.default_rng(0).normal(size=(8, 9, 10, 36)).astype("float32")
    np.testing.assert_allclose(lowered(images)[0], model(images), atol=1e-5)
    assert converted(model).audit.operations["LceBconv2d"] == 2
