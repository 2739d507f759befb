"""What binary layers take the sign of, and who else reads a sign."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from conftest import randomize

import larq_nas
from larq_nas.errors import ConversionError
from larq_nas.layers import BinaryConv2D, classifier

layers = tf.keras.layers


def model_of(block, shape=(8, 8, 32)) -> tf.keras.Model:
    inputs = tf.keras.Input(shape)
    return randomize(tf.keras.Model(inputs, classifier(block(inputs), 4)))


def told(conversion: larq_nas.deploy.Conversion, *words: str) -> bool:
    return any(all(word in line for word in words) for line in conversion.warnings)


def test_a_third_value_among_few_numbers_is_refused() -> None:
    """The converter makes a sign of a ternary; most images do not show the difference."""

    def block(x: tf.Tensor) -> tf.Tensor:
        quantizer = lq.quantizers.SteTern(threshold_value=1e-4)
        return BinaryConv2D(32, 3, input_quantizer=quantizer, name="ternary")(x)

    with pytest.raises(ConversionError, match="`ternary` would run in binary, but its input"):
        larq_nas.convert(model_of(block), allow_float=["ternary"])


def test_a_sign_of_shifted_numbers_is_none_of_those() -> None:
    def block(x: tf.Tensor) -> tf.Tensor:
        shifted = lambda x: lq.math.sign(x + 0.25)  # noqa: E731 - a quantizer without a name
        return BinaryConv2D(32, 3, input_quantizer=shifted, name="shifted")(x)

    conversion = larq_nas.convert(model_of(block), allow_float=["shifted"])
    assert all(parity.exact == 1.0 for parity in conversion.parity)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (lambda x: layers.ReLU()(x), ("gives one output for every image",)),
        (lambda x: layers.Activation("sigmoid")(x), ("gives one output for every image",)),
        (
            lambda x: layers.Concatenate()([layers.ReLU()(x[..., :8]), x[..., 8:]]),
            ("8 of 32 channels (25%)", "never change sign"),
        ),
    ],
)
def test_signs_that_never_change_are_told(block, words: tuple[str, ...]) -> None:
    conversion = larq_nas.convert(model_of(lambda x: BinaryConv2D(8, 3, name="dead")(block(x))))
    assert told(conversion, "`dead`", *words)


def test_images_of_zero_to_one_before_a_sign_are_told() -> None:
    images = np.random.default_rng(0).uniform(size=(32, 8, 8, 32)).astype("float32")
    model = model_of(lambda x: BinaryConv2D(8, 3, name="first")(x))
    assert told(larq_nas.convert(model, images), "`first` gives one output for every image")
    assert not told(larq_nas.convert(model, images * 2 - 1), "`first`")


def twice(x: tf.Tensor) -> tf.Tensor:
    sign = lq.quantizers.SteSign(name="sign")(x)
    conv = BinaryConv2D(32, 3, input_quantizer=None, pad_values=1.0, name="a")(sign)
    return layers.Add(name="sum")([conv, sign])


def real_weights(x: tf.Tensor) -> tf.Tensor:
    settings = {"padding": "same", "use_bias": False}
    return lq.layers.QuantConv2D(8, 3, input_quantizer="ste_sign", name="half", **settings)(x)


@pytest.mark.parametrize(("block", "reader"), [(twice, "`sum`"), (real_weights, "`half`")])
def test_signs_that_something_else_reads_convert_and_are_told(block, reader: str) -> None:
    conversion = larq_nas.convert(model_of(block))
    assert all(parity.nearly_exact for parity in conversion.parity)
    assert told(conversion, reader)


def test_a_sign_as_an_output_converts() -> None:
    inputs = tf.keras.Input((8, 8, 32))
    model = tf.keras.Model(inputs, lq.quantizers.SteSign(name="sign")(inputs))
    conversion = larq_nas.convert(model)
    assert all(parity.exact == 1.0 for parity in conversion.parity)
    assert all(parity.agreement is None for parity in conversion.parity)


def test_a_kernel_that_cannot_run_is_left_out() -> None:
    """The reference kernel refuses zero padding around 33 channels; the default one is exact."""
    model = model_of(lambda x: BinaryConv2D(16, 3, pad_values=0.0, name="odd")(x), (8, 8, 33))
    conversion = larq_nas.convert(model)
    assert [parity.kernel for parity in conversion.parity] == ["default", "aarch64"]
    assert told(conversion, "The reference kernel cannot run", "checked on the default kernel")
    engines_own = "The reference kernel cannot run the model .Zero-padding is only supported by"
    with pytest.raises(ConversionError, match=engines_own):
        larq_nas.convert(model, kernels=("reference",))


def test_maps_and_numbers_are_no_classes() -> None:
    inputs = tf.keras.Input((8, 8, 32))
    x = layers.BatchNormalization()(BinaryConv2D(32, 3)(inputs))
    mask = layers.Conv2D(3, 1, activation="softmax", name="mask")(x)
    number = layers.Dense(1, name="number")(layers.GlobalAveragePooling2D()(x))
    model = randomize(tf.keras.Model(inputs, [mask, number]))
    conversion = larq_nas.convert(model)
    assert all(parity.nearly_exact for parity in conversion.parity)
    assert conversion.parity[0].meaning == "classes"
    alone = larq_nas.convert(tf.keras.Model(inputs, number))
    assert alone.parity[0].agreement is None
    assert "class" not in str(alone.parity[0])
