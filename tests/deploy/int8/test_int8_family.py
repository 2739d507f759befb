"""Networks of many forms, each with its real layers in int8."""

from collections.abc import Callable

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from conftest import randomize

import larq_nas
from larq_nas.deploy.flatbuffer import operators
from larq_nas.errors import ConversionError

L = tf.keras.layers
ZERO = {
    "input_quantizer": "ste_sign",
    "kernel_quantizer": "ste_sign",
    "kernel_constraint": "weight_clip",
    "padding": "same",
    "use_bias": False,
}
ONE = {**ZERO, "pad_values": 1.0}


def zero(x, filters=32, kernel=3, **settings):
    return lq.layers.QuantConv2D(filters, kernel, **{**ZERO, **settings})(x)


def one(x, filters=32, kernel=3, **settings):
    return lq.layers.QuantConv2D(filters, kernel, **{**ONE, **settings})(x)


def norm(x, **settings):
    return L.BatchNormalization(**settings)(x)


def conv(x, filters=32, kernel=3, **settings):
    return L.Conv2D(filters, kernel, **{"padding": "same", **settings})(x)


def stem(x):
    return norm(conv(x, use_bias=False))


def head(x, **settings):
    return L.Dense(4, **settings)(L.GlobalAveragePooling2D()(x))


def zero_padding(x):
    return head(norm(zero(norm(zero(stem(x))))))


def one_padding(x):
    return head(norm(one(norm(one(stem(x))))))


def zero_padding_relu(x):
    return head(norm(zero(norm(zero(stem(x), activation="relu")), activation="relu")))


def one_padding_relu(x):
    return head(norm(one(norm(one(stem(x), activation="relu")), activation="relu")))


def valid_padding(x):
    return head(norm(one(norm(one(stem(x), padding="valid")), padding="valid")))


def strides(x):
    return head(norm(one(norm(zero(norm(conv(x, strides=2)), strides=2)), strides=2)))


def odd_channels(x):
    return head(norm(one(norm(one(norm(conv(x, 20)), 33)), 17)))


def pointwise(x):
    return head(norm(one(norm(zero(stem(x), kernel=1)), kernel=1)))


def residual(x, binary=zero):
    x = stem(x)
    for _ in range(2):
        x = L.Add()([x, norm(binary(x))])
    return head(x)


def residual_one(x):
    return residual(x, one)


def residual_relu(x):
    """QuickNet's order: ReLU, then batch norm."""
    x = stem(x)
    for _ in range(2):
        x = L.Add()([x, norm(one(x, activation="relu"))])
    return head(L.ReLU()(x))


def residual_down(x):
    x = stem(x)
    down = norm(conv(L.AveragePooling2D(2)(x), 64, 1))
    x = L.Add()([down, norm(zero(x, 64, strides=2))])
    return head(L.Add()([x, norm(zero(x, 64))]))


def dense_concat(x):
    x = stem(x)
    for _ in range(3):
        x = L.Concatenate()([x, zero(norm(x), 32)])
    return head(norm(x))


def dense_concat_one(x):
    x = stem(x)
    for _ in range(3):
        x = L.Concatenate()([x, one(norm(x), 32)])
    return head(norm(x))


def inception(x):
    x = stem(x)
    ways = [
        norm(zero(x, 32, 1)),
        norm(zero(x, 32, 3)),
        norm(one(x, 32, 5)),
        L.MaxPool2D(3, 1, "same")(x),
        conv(L.AveragePooling2D(3, 1, "same")(x), 32, 1),
    ]
    x = L.Concatenate()(ways)
    return head(norm(zero(x, 64)))


def depthwise(x):
    x = norm(one(stem(x)))
    x = norm(L.DepthwiseConv2D(3, padding="same", use_bias=False)(x))
    x = norm(L.DepthwiseConv2D(3, padding="same", strides=2, depth_multiplier=2)(x))
    return head(norm(one(x)))


def prelu(x):
    x = stem(x)
    for _ in range(2):
        x = L.Add()([x, L.PReLU(shared_axes=[1, 2])(norm(zero(x)))])
    return head(x)


def prelu_shifts(x):
    """ReActNet's order: shift, sign, conv, norm, add, shift, PReLU, shift."""
    x = stem(x)
    for _ in range(2):
        y = L.Add()([x, norm(one(norm(x, center=True, scale=False)))])
        x = norm(L.PReLU(shared_axes=[1, 2])(y))
    return head(x)


def leaky(x):
    return head(L.LeakyReLU(0.1)(norm(one(L.LeakyReLU(0.1)(stem(x))))))


def several_added(x):
    x = stem(x)
    ways = [norm(zero(x)), norm(one(x, kernel=1)), norm(one(x, kernel=5)), x]
    return head(norm(one(L.Add()(ways))))


def global_max(x):
    return L.Dense(4)(L.GlobalMaxPooling2D()(norm(zero(stem(x)))))


def flat(x):
    x = L.MaxPool2D(2)(norm(zero(stem(x))))
    return L.Dense(4, activation="softmax")(L.Dense(16, activation="relu")(L.Flatten()(x)))


def flat_norm(x):
    """VGG-small's head: norms and signs between dense layers."""
    x = L.Flatten()(norm(zero(L.MaxPool2D(2)(zero(stem(x))))))
    signs = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}
    return norm(L.Dense(4)(norm(lq.layers.QuantDense(16, **signs)(x))))


def sigmoid_head(x):
    return head(norm(zero(stem(x))), activation="sigmoid")


def softmax_layer(x):
    return L.Softmax()(head(norm(one(stem(x)))))


def one_output(x):
    return L.Dense(1)(L.GlobalAveragePooling2D()(norm(one(stem(x)))))


def upsampling(x):
    x = down = stem(x)
    x = norm(zero(L.MaxPool2D(2)(x), 64))
    x = norm(zero(x, 64))
    x = L.Concatenate()([L.UpSampling2D(2)(x), down])
    return conv(norm(zero(x)), 1, 1, activation="sigmoid")


def upsampling_bilinear(x):
    x = down = stem(x)
    x = norm(one(L.MaxPool2D(2)(x)))
    x = L.Add()([L.UpSampling2D(2, interpolation="bilinear")(x), down])
    return conv(norm(one(x)), 2, 1)


def transposed(x):
    x = norm(zero(L.MaxPool2D(2)(stem(x))))
    return conv(norm(zero(L.Conv2DTranspose(32, 2, strides=2)(x))), 1, 1)


def convolution_head(x):
    """MobileNet's: a convolution on 1x1 in place of a dense layer."""
    x = L.GlobalAveragePooling2D(keepdims=True)(norm(one(stem(x))))
    return L.Flatten()(conv(x, 4, 1))


def pooled_twice(x):
    x = L.AveragePooling2D(2)(norm(zero(stem(x))))
    return head(L.MaxPool2D(2)(norm(zero(x))))


def gate(x):
    """Squeeze and excitation: channels multiplied by numbers from 0 to 1."""
    x = norm(one(stem(x)))
    y = L.GlobalAveragePooling2D(keepdims=True)(x)
    y = conv(conv(y, 8, 1, activation="relu"), 32, 1, activation="sigmoid")
    return head(norm(one(L.Multiply()([x, y]))))


def groups(x):
    x = norm(lq.layers.QuantConv2D(32, 3, groups=4, **ONE)(stem(x)))
    return head(norm(conv(norm(one(x)), 32, 3, groups=4)))


def dilated(x):
    x = norm(larq_nas.layers.BinaryConv2D(32, 3, dilation_rate=2)(stem(x)))
    return head(norm(conv(norm(one(x)), 32, 3, dilation_rate=2)))


def activations(x):
    x = conv(x, activation="tanh")
    x = L.Activation("swish")(norm(one(x)))
    x = L.Activation("hard_sigmoid")(norm(one(x)))
    return head(L.ELU()(norm(one(x))))


def padded(x):
    x = L.ZeroPadding2D(((0, 1), (0, 1)))(x)
    x = norm(conv(x, strides=2, padding="valid"))
    return head(L.Cropping2D(1)(norm(one(L.ZeroPadding2D(1)(norm(one(x)))))))


def difference(x):
    x = stem(x)
    return head(L.Subtract()([norm(zero(x)), L.Maximum()([norm(one(x)), x])]))


def input_norm(x):
    return zero_padding(norm(x))


def rescaled(x):
    return zero_padding(L.Rescaling(2.0, 0.5)(x))


def input_norm_sign(x):
    return head(norm(one(norm(one(norm(x))))))


def shuffled(x):
    """Channels in other places: ShuffleNet's."""
    x = norm(zero(stem(x)))
    x = L.Reshape((8, 8, 4, 8))(x)
    x = L.Reshape((8, 8, 32))(L.Permute((1, 2, 4, 3))(x))
    return head(norm(one(x)))


def dropped(x):
    return L.Dense(4)(L.Dropout(0.5)(L.Flatten()(L.Dropout(0.2)(norm(zero(stem(x)))))))


def dense_on_maps(x):
    return head(L.Dense(32)(norm(zero(stem(x)))))


def separable(x):
    return head(norm(zero(norm(L.SeparableConv2D(32, 3, padding="same")(stem(x))))))


def nested(x):
    inner = tf.keras.Input(x.shape[1:])
    return head(tf.keras.Model(inner, norm(zero(stem(inner))))(x))


def scaled_kernels(x):
    x = norm(zero(stem(x), kernel_quantizer="magnitude_aware_sign"))
    return head(norm(one(x, kernel_quantizer="magnitude_aware_sign")))


def functions(x):
    """TensorFlow's functions in place of layers."""
    x = stem(x)
    y = norm(zero(x)) * 0.5 + x
    y = tf.nn.relu(norm(one(tf.concat([y, x], -1))) - 0.25)
    return L.Dense(4)(tf.reduce_mean(y, [1, 2]))


def averaged(x):
    x = stem(x)
    return head(L.Average()([norm(zero(x)), norm(one(x)), x]))


def outliers(x):
    """One channel with numbers far larger than those of all others."""
    x = stem(x)
    x = L.Add()([x, norm(zero(x)) * np.where(np.arange(32) == 3, 2000.0, 1.0).astype("float32")])
    return head(norm(one(norm(x))))


def sequence(x):
    x = L.Conv1D(32, 3, padding="same")(L.Reshape((64, 3))(x))
    return head(norm(zero(L.Reshape((8, 8, 32))(norm(x)))))


def dense_sequence(x):
    x = L.Dense(16)(L.Reshape((64, 32))(norm(zero(stem(x)))))
    return L.Dense(4)(L.GlobalAveragePooling1D()(x))


def attention(x):
    """A gate for each position, from two tensors, as in an attention U-net."""
    x = down = stem(x)
    x = norm(zero(L.MaxPool2D(2)(x)))
    x = L.UpSampling2D(2)(x)
    y = L.ReLU()(L.Add()([conv(x, 8, 1), conv(down, 8, 1)]))
    y = L.Multiply()([down, conv(y, 1, 1, activation="sigmoid")])
    return conv(norm(zero(L.Concatenate()([x, y]))), 3, 1, activation="softmax")


def several_heads(x):
    x = norm(zero(stem(x)))
    number = L.Dense(1, activation="sigmoid")(L.GlobalMaxPooling2D()(x))
    return [head(x), number, conv(x, 2, 1, activation="softmax")]


def recurrent(x):
    return L.Dense(4)(L.GRU(8)(L.Reshape((64, 32))(norm(zero(stem(x))))))


def relu6(x):
    x = L.ReLU(6.0)(norm(L.DepthwiseConv2D(3, padding="same")(stem(x))))
    x = norm(conv(norm(zero(x, 64)), 16, 1, use_bias=False))
    return L.Dense(4)(L.Flatten()(L.ReLU(6.0)(x)))


def strided_output(x):
    """A binary convolution is the output."""
    return one(norm(zero(stem(x))), 2)


def norm_output(x):
    return norm(zero(norm(zero(stem(x))), 2))


def pool_output(x):
    return L.GlobalAveragePooling2D()(norm(zero(norm(zero(stem(x))), 4)))


NETWORKS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    function.__name__: function
    for function in (
        zero_padding,
        one_padding,
        zero_padding_relu,
        one_padding_relu,
        valid_padding,
        strides,
        odd_channels,
        pointwise,
        residual,
        residual_one,
        residual_relu,
        residual_down,
        dense_concat,
        dense_concat_one,
        inception,
        depthwise,
        prelu,
        prelu_shifts,
        leaky,
        several_added,
        global_max,
        flat,
        flat_norm,
        sigmoid_head,
        softmax_layer,
        one_output,
        upsampling,
        upsampling_bilinear,
        transposed,
        convolution_head,
        pooled_twice,
        gate,
        groups,
        dilated,
        activations,
        padded,
        difference,
        input_norm,
        rescaled,
        input_norm_sign,
        shuffled,
        dropped,
        dense_on_maps,
        separable,
        nested,
        scaled_kernels,
        functions,
        averaged,
        outliers,
        sequence,
        dense_sequence,
        attention,
        several_heads,
        recurrent,
        relu6,
        strided_output,
        norm_output,
        pool_output,
    )
}


REFUSED = {
    ("separable", "ends"): "`separable_conv2d` cannot run in int8: SeparableConv2D is none of",
    ("sequence", "ends"): "`conv1d` cannot run in int8: Conv1D is none of",
}
SHOWN = ("zero_padding", "residual", "dense_concat", "inception", "softmax_layer", "upsampling")
EACH = [
    pytest.param(name, which, marks=() if name in SHOWN else pytest.mark.slow)
    for name in NETWORKS
    for which in ("ends", "all")
]


def model_of(name: str) -> tf.keras.Model:
    tf.keras.backend.clear_session()
    inputs = tf.keras.Input((8, 8, 3))
    return randomize(tf.keras.Model(inputs, NETWORKS[name](inputs)))


def images_for(count: int = 64) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (count, 8, 8, 3)).astype("float32")


@pytest.mark.parametrize(("name", "which"), EACH)
def test_real_layers_run_in_int8_or_are_named(name: str, which: str) -> None:
    model = model_of(name)
    if (name, which) in REFUSED:
        with pytest.raises(ConversionError, match=REFUSED[name, which]):
            larq_nas.convert(model, images_for(), int8=which)
        return
    conversion = larq_nas.convert(model, images_for(), int8=which)
    assert not conversion.audit.fallbacks
    found = operators(conversion.flatbuffer)
    # Borders are gone, and what remains of them.
    assert "FLOOR_MOD" not in {op.kind for op in found}
    real = {row.layer for row in conversion.audit.layers if not row.binary}
    notes = " ".join(conversion.int8.notes)
    if which == "all":
        assert {layer for layer in real if layer not in conversion.int8.layers} == {
            layer for layer in real if f"`{layer}` stays in float" in notes
        }
    in_int8 = [op for op in found if op.filters is not None and op.filters.dtype == np.int8]
    assert len(in_int8) == len(conversion.int8.layers)


def test_a_convolution_that_pads_with_zeros_is_rounded_behind_it() -> None:
    """No kernel gives int8 there; the sum that reads it runs in int8 all the same."""
    conversion = larq_nas.convert(model_of("residual"), images_for(), int8="all")
    found = [(op.kind, op.type) for op in operators(conversion.flatbuffer)]
    at = found.index(("LceBconv2d", "FLOAT32"))
    assert found[at + 1 : at + 3] == [("QUANTIZE", "INT8"), ("ADD", "INT8")]
    assert conversion.int8.stays_float == {}
    line = "`quant_conv2d` pads with zeros and gives float, which a QUANTIZE behind it rounds"
    assert line in str(conversion)


def test_what_would_lose_its_numbers_stays_in_float() -> None:
    """A concatenation has one range: small numbers beside large ones become zeros."""
    conversion = larq_nas.convert(model_of("dense_concat"), images_for(), int8="all")
    assert conversion.int8.stays_float["CONCATENATION"] == 3
    line = "`concatenate` stays in float: it needs one range for all that it joins, and `"
    assert line in str(conversion.int8)


def test_one_channel_of_large_numbers_does_not_erase_the_others() -> None:
    conversion = larq_nas.convert(model_of("outliers"), images_for(), int8="all")
    line = "`tf.math.multiply` stays in float: `tf.math.multiply` would lose 1"
    assert line in str(conversion.int8)


def test_the_converter_does_not_spread_steps_to_float_tensors() -> None:
    """It gave a concatenation the steps of one of its parts, and cut off the others."""
    conversion = larq_nas.convert(model_of("inception"), images_for(), int8="ends")
    types = {op.kind: op.type for op in operators(conversion.flatbuffer)}
    assert types["CONCATENATION"] == "FLOAT32"


@pytest.mark.slow
def test_a_softmax_within_a_layer_in_float_is_not_rounded() -> None:
    """The converter knows its range, and rounded it by itself."""
    inputs = tf.keras.Input((8, 8, 3))
    x = L.Reshape((64, 32))(norm(zero(stem(inputs))))
    x = L.MultiHeadAttention(2, 8)(x, x)
    model = randomize(tf.keras.Model(inputs, L.Dense(4)(L.GlobalAveragePooling1D()(x))))
    conversion = larq_nas.convert(model, images_for(), int8="all")
    steps = [op.step for op in operators(conversion.flatbuffer) if op.kind == "QUANTIZE"]
    assert 1 / 256 not in steps
    assert "`query`" in str(conversion.int8)
