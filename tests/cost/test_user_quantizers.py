"""Quantizers of a user's own: what is predicted of them is what the converter makes of them."""

from collections.abc import Callable

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from conftest import randomize

import larq_nas
from larq_nas.cost import profile
from larq_nas.errors import ConversionError
from larq_nas.graph.quantizers import sign_of_zero

LAYERS = tf.keras.layers


def sign(x: tf.Tensor) -> tf.Tensor:
    return tf.where(x >= 0, 1.0, -1.0)


def sign_below(x: tf.Tensor) -> tf.Tensor:
    return tf.where(x > 0, 1.0, -1.0)


def mean_scaled(v: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.abs(v)) * sign(v)


def filter_scaled(v: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.abs(v), axis=(0, 1, 2), keepdims=True) * sign_below(v)


def centred(v: tf.Tensor) -> tf.Tensor:
    return sign(v - tf.reduce_mean(v, axis=(0, 1, 2)))


def centred_and_scaled(v: tf.Tensor) -> tf.Tensor:
    centre = v - tf.reduce_mean(v, axis=(0, 1, 2))
    return tf.reduce_mean(tf.abs(centre), axis=(0, 1, 2)) * sign_below(centre)


def with_gradient(v: tf.Tensor) -> tf.Tensor:
    return v + tf.stop_gradient(mean_scaled(v) - v)


class Threshold(lq.quantizers.Quantizer):
    """The sign of what is above a learned threshold of each channel."""

    def build(self, shape) -> None:
        self.threshold = self.add_weight("threshold", (shape[-1],), initializer="random_normal")
        super().build(shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return lq.math.sign(x - 0.01 * self.threshold)


def network(kernel_quantizer="ste_sign", input_quantizer="ste_sign") -> tf.keras.Model:
    settings = {"padding": "same", "pad_values": 1.0, "use_bias": False}
    x = image = tf.keras.Input((8, 8, 3))
    x = LAYERS.Conv2D(32, 3, padding="same")(x)
    for name in ("one", "two"):
        x = LAYERS.BatchNormalization()(x)
        quantizers = [
            given() if isinstance(given, type) else given
            for given in (input_quantizer, kernel_quantizer)
        ]
        x = lq.layers.QuantConv2D(
            64, 3, input_quantizer=quantizers[0], kernel_quantizer=quantizers[1], name=name,
            kernel_constraint="weight_clip", **settings
        )(x)  # fmt: skip
    return tf.keras.Model(image, LAYERS.Dense(4)(LAYERS.GlobalAveragePooling2D()(x)))


def check(model: tf.keras.Model) -> larq_nas.deploy.Conversion:
    """Both layers are binary in prediction and conversion, and the bytes agree."""
    costs, conversion = profile(randomize(model)), larq_nas.convert(model, examples=8)
    assert costs.fallbacks == []
    assert costs.deployed_binary_macs == 64 * 9 * 64 * (32 + 64)
    assert [row.layer for row in conversion.audit.layers if row.binary] == ["one", "two"]
    size = len(conversion.flatbuffer)
    assert abs(costs.flatbuffer_bytes - size) <= max(0.01 * size, 512)
    return conversion


@pytest.mark.parametrize(
    "quantizer",
    [
        sign,
        sign_below,
        tf.sign,
        mean_scaled,
        filter_scaled,
        centred,
        centred_and_scaled,
        with_gradient,
        Threshold,
    ],
)
def test_kernels_that_are_binary_by_own_functions(quantizer: Callable) -> None:
    check(network(kernel_quantizer=quantizer))


def straight_through(x: tf.Tensor) -> tf.Tensor:
    return x + tf.stop_gradient(sign(x) - x)


def straight_through_clip(x: tf.Tensor) -> tf.Tensor:
    clipped = tf.clip_by_value(x, -1.0, 1.0)
    return tf.stop_gradient(sign(x) - clipped) + clipped


def straight_through_below(x: tf.Tensor) -> tf.Tensor:
    return x + tf.stop_gradient(sign_below(x) - x)


def cast(x: tf.Tensor) -> tf.Tensor:
    return tf.cast(x >= 0, tf.float32) * 2 - 1


OWN_SIGNS = [sign, sign_below, straight_through, straight_through_clip, cast]
OWN_SIGNS += [straight_through_below]


@pytest.mark.parametrize("quantizer", OWN_SIGNS)
def test_signs_of_inputs_written_by_hand_run_as_larqs(quantizer: Callable) -> None:
    conversion = check(network(input_quantizer=quantizer))
    told = f"`one`: its input quantizer `{quantizer.__name__}` is a sign, and runs as Larq's"
    assert any(line.startswith(told) for line in conversion.rewrites)
    assert "GREATER" not in conversion.audit.operations


@pytest.mark.parametrize("function", OWN_SIGNS)
@pytest.mark.parametrize("whole", [True, False], ids=["Lambda", "operations"])
def test_signs_before_a_layer_written_by_hand_run_as_larqs(function: Callable, whole: bool) -> None:
    image = tf.keras.Input((8, 8, 32))
    x = LAYERS.BatchNormalization()(image)
    x = LAYERS.Lambda(function)(x) if whole else function(x)
    conv = lq.layers.QuantConv2D(
        32, 3, kernel_quantizer="ste_sign", kernel_constraint="weight_clip", use_bias=False
    )
    model = randomize(tf.keras.Model(image, LAYERS.BatchNormalization()(conv(x))))
    costs, conversion = profile(model), larq_nas.convert(model, examples=8)
    assert costs.deployed_binary_macs == 36 * 9 * 32 * 32
    assert conversion.audit.operations["LceBconv2d"] == 1
    assert abs(costs.flatbuffer_bytes - len(conversion.flatbuffer)) <= 512


def test_the_sign_of_a_learned_threshold_is_binary_where_the_converter_sees_it() -> None:
    assert check(network(input_quantizer=Threshold)).rewrites == []


def test_zeros_are_minus_one_where_the_function_says_so() -> None:
    """Behind a ReLU half of the numbers are 0; no comparison is left."""
    x = image = tf.keras.Input((8, 8, 3))
    x = LAYERS.ReLU()(LAYERS.Conv2D(32, 3)(x))
    conv = lq.layers.QuantConv2D(
        32, 3, input_quantizer=sign_below, kernel_quantizer="ste_sign", use_bias=False
    )
    model = randomize(tf.keras.Model(image, LAYERS.BatchNormalization()(conv(x))))
    conversion = larq_nas.convert(model, examples=8)
    assert conversion.audit.operations["LceBconv2d"] == 1
    assert abs(profile(model).flatbuffer_bytes - len(conversion.flatbuffer)) <= 512


def scaled_sign(x: tf.Tensor) -> tf.Tensor:
    return 0.5 * sign(x)


def centred_sign(x: tf.Tensor) -> tf.Tensor:
    return sign(x - tf.reduce_mean(x))


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"input_quantizer": tf.sign}, "gives another number than 1 for 0"),
        ({"input_quantizer": scaled_sign}, "gives other numbers than -1 and 1"),
        ({"input_quantizer": lq.quantizers.SteTern}, "gives three values"),
        ({"input_quantizer": lambda: lq.quantizers.DoReFa(2)}, "have 2 bits"),
        ({"kernel_quantizer": lambda: lq.quantizers.SteTern()}, "holds zeros"),
        ({"kernel_quantizer": tf.tanh}, "not one scale times"),
    ],
)
def test_cost_and_conversion_name_the_same_cause(changes: dict, cause: str) -> None:
    made = {k: v() if getattr(v, "__name__", "") == "<lambda>" else v for k, v in changes.items()}
    model = randomize(network(**made))
    told = profile(model).fallbacks[0].fallback
    assert cause in told
    with pytest.raises(ConversionError, match=r"Binary layer `one`") as caught:
        larq_nas.convert(model, examples=8)
    assert told in str(caught.value)


def test_a_sign_is_told_from_functions_that_are_like_one() -> None:
    assert sign_of_zero(sign) == 1
    assert sign_of_zero(sign_below) == -1
    for function in (centred_sign, scaled_sign, tf.sign, tf.tanh, lambda x: sign(x - 1e-3)):
        assert sign_of_zero(function, (8, 8, 4)) is None
    by_channel = tf.constant(np.linspace(-1, 1, 4).astype("float32"))
    assert sign_of_zero(lambda x: sign(x - by_channel), (8, 8, 4)) is None
    assert sign_of_zero(lambda x: sign(x + 0 * by_channel), (8, 8, 4)) == 1
