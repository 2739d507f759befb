import larq as lq
import numpy as np
import pytest
import tensorflow as tf

import larq_nas
from larq_nas.cost import profile, table
from larq_nas.errors import InputError
from larq_nas.layers import BinaryConv2D

LAYERS = tf.keras.layers
DOREFA = lq.quantizers.DoReFa(1)


def sequential(*layers: tf.keras.layers.Layer, shape=(8, 8, 16)) -> tf.keras.Model:
    return tf.keras.Sequential([tf.keras.Input(shape), *layers])


def brute_force_macs(model: tf.keras.Model) -> int:
    """Multiplications a layer really does: what grows with each weight of its kernel.

    With a kernel and an input of ones, each output is the number of products in it.
    """
    (layer,) = (layer for layer in model.layers if layer.weights)
    for weight in layer.weights:
        weight.assign(tf.ones_like(weight) * ("bias" not in weight.name))
    return int(np.round(np.sum(model(np.ones((1, *model.input_shape[1:]), "float32")))))


@pytest.mark.parametrize(
    "layer",
    [
        LAYERS.Conv2D(12, 3, strides=2, padding="valid"),
        LAYERS.Conv2D(12, (3, 1), groups=4, padding="valid"),
        LAYERS.DepthwiseConv2D(3, depth_multiplier=2, padding="valid"),
        LAYERS.Dense(5),
        LAYERS.Conv2DTranspose(6, 3, strides=2, padding="valid"),
    ],
)
def test_macs_are_the_products_a_layer_sums(layer: tf.keras.layers.Layer) -> None:
    model = sequential(layer)
    assert profile(model).macs == brute_force_macs(model)


def test_convolutions_in_one_and_three_dimensions() -> None:
    assert profile(sequential(LAYERS.Conv1D(4, 3), shape=(10, 2))).macs == 8 * 3 * 2 * 4
    assert profile(sequential(LAYERS.Conv3D(4, 3), shape=(5, 5, 5, 2))).macs == 27 * 27 * 2 * 4
    assert profile(sequential(LAYERS.SeparableConv2D(5, 3))).macs == 36 * 16 * (9 + 5)


def test_agrees_with_larq_where_larq_is_right() -> None:
    architecture = larq_nas.Architecture.published("bats").with_settings(
        cells=3, channels=12, groups=3
    )
    model = architecture.build((16, 16, 3), 10)
    ours, theirs = profile(model), lq.models.ModelProfile(model)
    assert ours.macs == theirs.op_count("mac", 32)
    assert ours.binary_macs == theirs.op_count("mac", 1)
    assert 8 * ours.weight_bytes == theirs.memory
    assert ours.parameters == {bits: theirs.weight_count(bits) for bits in (1, 32)}


def test_a_shared_layer_computes_twice_and_is_stored_once() -> None:
    conv = BinaryConv2D(16, 3)
    costs = profile(sequential(conv, conv))
    assert costs.binary_macs == 2 * 64 * 9 * 16 * 16
    assert costs.parameters == {1: 9 * 16 * 16}


def test_nested_models_are_taken_apart() -> None:
    inner = sequential(BinaryConv2D(16, 3), LAYERS.BatchNormalization())
    x = tf.keras.Input((8, 8, 16))
    nested = profile(tf.keras.Model(x, inner(inner(x)) + x))
    flat = profile(sequential(BinaryConv2D(16, 3), LAYERS.BatchNormalization()))
    assert nested.binary_macs == 2 * flat.binary_macs
    assert nested.parameters == flat.parameters
    assert [row.kind for row in nested.layers] == ["input", *2 * ["conv", "norm"], "add"]


@pytest.mark.parametrize(
    ("layer", "cause"),
    [
        (
            lq.layers.QuantDepthwiseConv2D(
                3, input_quantizer="ste_sign", depthwise_quantizer="ste_sign"
            ),
            "no binary kernel for QuantDepthwiseConv2D",
        ),
        (
            lq.layers.QuantConv2D(
                8,
                3,
                padding="same",
                pad_values=1.0,
                input_quantizer=lq.quantizers.DoReFa(1),
                kernel_quantizer="ste_sign",
            ),
            "pads with another number",
        ),
    ],
)
def test_tells_binary_by_definition_from_binary_at_run_time(
    layer: tf.keras.layers.Layer, cause: str
) -> None:
    costs = profile(sequential(layer))
    assert costs.binary_macs > 0
    assert costs.deployed_binary_macs == 0
    assert [cause in row.fallback for row in costs.fallbacks] == [True]
    assert "will run in float" in table(costs)


def test_what_the_export_rewrites_is_binary_at_run_time() -> None:
    settings = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
    x = tf.keras.Input((8, 8, 16))
    branches = [
        lq.layers.QuantConv2D(8, 3, padding="same", dilation_rate=2, **settings)(x),
        lq.layers.QuantConv2D(8, 3, padding="same", dilation_rate=2, **settings)(x),
        lq.layers.QuantConv2D(8, 3, padding="same", groups=2, **settings)(x),
        lq.layers.QuantDense(8, **settings)(x),
        lq.layers.QuantConv2D(
            8, 3, padding="same", input_quantizer=DOREFA, kernel_quantizer="ste_sign"
        )(x),
    ]
    costs = profile(tf.keras.Model(x, LAYERS.Add()(branches)))
    assert not costs.fallbacks
    assert costs.deployed_binary_macs == costs.binary_macs > 0


def test_a_sign_of_its_own_makes_a_convolution_binary() -> None:
    conv = lq.layers.QuantConv2D(8, 3, kernel_quantizer="ste_sign")
    costs = profile(sequential(lq.quantizers.SteSign(), LAYERS.Dropout(0.1), conv))
    assert costs.binary_macs == costs.deployed_binary_macs == 36 * 9 * 16 * 8
    costs = profile(sequential(lq.quantizers.SteSign(), LAYERS.MaxPool2D(2), conv))
    assert costs.binary_macs == costs.deployed_binary_macs == 4 * 9 * 16 * 8
    assert profile(sequential(LAYERS.ReLU(), conv)).binary_macs == 0


def test_unknown_layers_are_named_and_their_weights_counted() -> None:
    costs = profile(sequential(LAYERS.LSTM(4, name="memory"), shape=(8, 16)))
    assert costs.unknown == ("memory",)
    assert costs.parameters == {32: 4 * (16 + 4 + 1) * 4}
    assert "multiply-accumulates of memory" in table(costs)


def unbuilt() -> tf.keras.Model:
    return tf.keras.Sequential([LAYERS.Dense(3)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (unbuilt, "call it on data"),
        (lambda: sequential(LAYERS.Conv2D(3, 3), shape=(None, None, 3)), "must be static"),
        (lambda: 3, "must be a tf.keras.Model"),
    ],
)
def test_bad_models_are_refused(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        profile(make())


def test_memory_of_the_float_twin_is_larger() -> None:
    costs = profile(larq_nas.Architecture("vgg_small", {"expansion": 0.25}).build((32, 32, 3), 10))
    twin = larq_nas.Architecture("vgg_small", {"expansion": 0.25, "precision": "real"})
    assert costs.activation_bytes < costs.float_activation_bytes
    assert costs.float_activation_bytes == profile(twin.build((32, 32, 3), 10)).activation_bytes
