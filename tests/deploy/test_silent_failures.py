"""What Larq Compute Engine does without a word, planted one by one: the gate names each.

Number 8, the slow default kernel on x86, is in tests/latency/test_measure.py; number 10, int8
that is none, in tests/deploy/int8/.
"""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from conftest import quick, randomize

import larq_nas
from larq_nas.errors import ConversionError
from larq_nas.layers import BinaryConv2D, classifier

layers = tf.keras.layers
BINARY = {
    "input_quantizer": "ste_sign",
    "kernel_quantizer": "ste_sign",
    "kernel_constraint": "weight_clip",
    "padding": "same",
    "pad_values": 1.0,
}


def model_of(block, shape=(8, 8, 32)) -> tf.keras.Model:
    inputs = tf.keras.Input(shape)
    return randomize(tf.keras.Model(inputs, classifier(block(inputs), 4)))


def refused(model: tf.keras.Model, **settings) -> str:
    """Return the line with which a conversion as it stands is refused."""
    with pytest.raises(ConversionError) as caught:
        larq_nas.convert(model, rewrite=False, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def conv(name: str, filters: int = 32, **settings) -> lq.layers.QuantConv2D:
    return lq.layers.QuantConv2D(filters, 3, name=name, **{**BINARY, **settings})


def test_1_a_dilation_that_two_layers_share() -> None:
    model = model_of(
        lambda x: layers.Add()([conv(name, dilation_rate=2)(x) for name in ("one", "two")])
    )
    assert "`one` (and 1 more layers) would run in float" in refused(model)
    assert "space-to-batch transform that another layer shares" in refused(model)


def test_2_zero_padding_around_an_image_smaller_than_the_kernel() -> None:
    model = model_of(lambda x: conv("wide", dilation_rate=4, pad_values=0.0)(conv("good")(x)))
    for kernel in ("default", "indirect"):
        line = refused(model, kernels=(kernel,))
        assert "layer `wide` is the first that differs" in line
        assert "pads with zeros an image of (8, 8) smaller than its kernel" in line
    assert larq_nas.convert(model, kernels=("reference",)).parity[0].exact == 1.0


@pytest.mark.parametrize("binary", [True, False])
def test_3_padding_by_hand_before_a_stride(binary: bool) -> None:
    settings = {"input_quantizer": None, "padding": "valid", "pad_values": 0.0}
    strided = (
        conv("strided", strides=2, **settings)
        if binary
        else layers.Conv2D(32, 3, 2, name="strided")
    )

    def block(x: tf.Tensor) -> tf.Tensor:
        if binary:
            borders = [(0, 0), (1, 1), (1, 1), (0, 0)]
            signs = lq.quantizers.SteSign()(x)
            return strided(tf.pad(signs, borders, constant_values=1.0))
        return strided(layers.ZeroPadding2D(1)(x))

    model = model_of(block)
    line = refused(model)
    assert "layer `strided` is the first that differs on the default kernel" in line
    assert "pads it on both sides before a stride" in line


def test_4_a_quantizer_with_three_values() -> None:
    model = model_of(lambda x: conv("ternary", input_quantizer="ste_tern")(x))
    assert "`ternary` would run in float: its input quantizer" in refused(model)
    assert "gives three values" in refused(model)
    accepted = refused(model, allow_float=["ternary"])  # it runs in binary then, and wrong
    assert "Layer `ternary` would run in binary, but its input quantizer gives other" in accepted


@pytest.mark.parametrize(
    ("quantizer", "where", "value", "cause"),
    [
        ("magnitude_aware_sign", np.s_[..., 0], 1e-8, "vanishing scales"),
        (tf.sign, np.s_[0, 0, 0, 0], 0.0, "holds zeros"),
    ],
)
def test_5_scales_that_vanish_and_zeros_in_a_kernel(quantizer, where, value, cause: str) -> None:
    layer = conv("weak", kernel_quantizer=quantizer, use_bias=False)
    model = model_of(layer)
    weights = layer.get_weights()[0]
    weights[where] = value
    layer.set_weights([weights])
    assert "`weak` would run in float: its quantized kernel" in refused(model)
    assert cause in refused(model)


def test_6_groups_that_are_not_of_32_channels() -> None:
    model = model_of(conv("grouped", groups=8))
    assert "`grouped` would run in float: its groups are not of 32 channels" in refused(model)


def test_7_groups_that_the_default_kernel_does_not_load() -> None:
    model = model_of(conv("grouped", 64, groups=2), (8, 8, 64))
    line = refused(model)
    assert "The default kernel cannot run the model" in line
    assert "`grouped`" in line
    assert "groups" in line
    larq_nas.convert(model, rewrite=False, kernels=("reference", "indirect"))
    assert larq_nas.convert(model).audit.operations["LceBconv2d"] == 2


def test_9_channels_masked_before_the_sign() -> None:
    mask = np.ones(32, "float32")
    mask[20:] = 0.0

    def block(x: tf.Tensor) -> tf.Tensor:
        return BinaryConv2D(8, 3, name="masked")(x * tf.constant(mask))

    lines = larq_nas.convert(model_of(block)).warnings
    assert any("`masked` takes the sign of 12 of 32 channels that are always 0" in x for x in lines)
    assert larq_nas.convert(model_of(lambda x: BinaryConv2D(8, 3)(x))).warnings == []


def test_9_masked_after_sign_and_padding_is_the_narrow_network() -> None:
    """What a mask must do, so that the supernet of widths is the network derived from it."""
    generator = np.random.default_rng(0)
    x = tf.constant(generator.normal(size=(2, 8, 8, 32)).astype("float32"))
    kernel = np.sign(generator.normal(size=(3, 3, 32, 8))).astype("float32")
    mask = (np.arange(32) < 20).astype("float32")

    def padded(signs: tf.Tensor) -> tf.Tensor:
        return tf.pad(signs, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=1.0)

    sign = lq.math.sign
    narrow = tf.nn.conv2d(padded(sign(x[..., :20])), kernel[:, :, :20], 1, "VALID")
    after = tf.nn.conv2d(padded(sign(x)) * mask, kernel, 1, "VALID")
    before = tf.nn.conv2d(padded(sign(x * tf.constant(mask))), kernel, 1, "VALID")
    np.testing.assert_array_equal(after, narrow)
    assert np.abs(before - narrow).max() > 1


def steps(x: tf.Tensor) -> tf.Tensor:
    return layers.Reshape((8, 256))(conv("binary")(x))


LSTMS = {
    "plain": lambda: layers.LSTM(5, name="blamed"),
    "sequences": lambda: layers.LSTM(5, return_sequences=True, name="blamed"),
    "both ways": lambda: layers.Bidirectional(layers.LSTM(5), name="blamed"),
    "backwards": lambda: layers.LSTM(5, go_backwards=True, name="blamed"),
}


@pytest.mark.parametrize("lstm", quick(LSTMS, 0, 2))
def test_11_an_lstm_that_is_not_unrolled(lstm: str) -> None:
    def block(x: tf.Tensor) -> tf.Tensor:
        # One that is right stands before the one that is not.
        first = layers.LSTM(5, unroll=True, return_sequences=True)(steps(x))
        x = LSTMS[lstm]()(first)
        return layers.Reshape((1, 1, -1))(x)

    line = refused(model_of(block))
    assert "Recurrent layer `blamed` would compute wrong numbers" in line
    assert "unroll=True" in line


RIGHT = {
    "unrolled": lambda x: layers.LSTM(5, unroll=True)(x),
    "GRU": lambda x: layers.GRU(5)(x),
    "masked": lambda x: layers.LSTM(5)(layers.Masking()(x)),
    "cell": lambda x: layers.RNN(layers.LSTMCell(5))(x),
    "both ways": lambda x: layers.Bidirectional(layers.GRU(5))(x),
    "SimpleRNN": lambda x: layers.SimpleRNN(5)(x),
    "without bias": lambda x: layers.LSTM(5, use_bias=False)(x),
    "hard": lambda x: layers.LSTM(5, recurrent_activation="hard_sigmoid")(x),
    "images": lambda x: layers.ConvLSTM1D(2, 3)(layers.Reshape((8, 8, 32))(x)),
}


@pytest.mark.parametrize("name", quick(RIGHT, 0, 1, 2))
def test_11_other_recurrent_layers_are_right(name: str) -> None:
    def block(x: tf.Tensor) -> tf.Tensor:
        return layers.Reshape((1, 1, -1))(RIGHT[name](steps(x)))

    conversion = larq_nas.convert(model_of(block))
    assert all(parity.exact == 1.0 for parity in conversion.parity)
    assert conversion.warnings == []


def test_11_an_lstm_with_states_of_its_own_is_right_but_limited() -> None:
    def block(x: tf.Tensor) -> tf.Tensor:
        sequence, start = steps(x), layers.GlobalAveragePooling2D()(x)
        states = [layers.Dense(5, name=name)(start) for name in ("output", "cell")]
        x = layers.LSTM(5, name="limited")(sequence, initial_state=states)
        return layers.Reshape((1, 1, -1))(x)

    conversion = larq_nas.convert(model_of(block))
    assert all(parity.exact == 1.0 for parity in conversion.parity)
    (line,) = conversion.warnings
    assert "`limited`" in line
    assert "limits its cell to +-10" in line
