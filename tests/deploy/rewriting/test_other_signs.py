"""Signs of other functions than Larq's, and signs that other layers moved, run in binary."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from convolutions import KERNELS, SIGNS, conv, exact_kinds, normal

import larq_nas
from larq_nas.cost import profile
from larq_nas.cost.profile import read_structure

layers = tf.keras.layers


def strict(x: tf.Tensor) -> tf.Tensor:
    return tf.where(x > 0, 1.0, -1.0)


def turned(x: tf.Tensor) -> tf.Tensor:
    return -lq.math.sign(-x)


def straight_through(x: tf.Tensor) -> tf.Tensor:
    return x + tf.stop_gradient(strict(x) - x)


def above(x: tf.Tensor) -> tf.Tensor:
    return lq.math.sign(x - 0.3)


def above_thresholds(x: tf.Tensor) -> tf.Tensor:
    return lq.math.sign(x - tf.linspace(-1.0, 1.0, x.shape[-1]))


class FunctionConvolution(layers.Layer):
    """A binary convolution written by hand, its signs -1 at 0, perhaps padded with ones."""

    def __init__(self, pad: int = 0) -> None:
        super().__init__()
        self.pad = pad

    def build(self, shape) -> None:
        self.kernel = self.add_weight("kernel", (3, 3, shape[-1], 24))

    def call(self, x: tf.Tensor) -> tf.Tensor:
        x = strict(x)
        if self.pad:
            sides = (self.pad, self.pad)
            x = tf.pad(x, [(0, 0), sides, sides, (0, 0)], constant_values=1.0)
        return tf.nn.conv2d(x, lq.math.sign(self.kernel), 1, "VALID")


def norm_of_ties(x: tf.Tensor) -> tf.Tensor:
    """Return a batch norm of `x` that gives exact zeros, with scales of both signs."""
    norm, channels = layers.BatchNormalization(epsilon=1e-3), x.shape[-1]
    y, draw = norm(x), np.random.default_rng(1)
    norm.moving_variance.assign(np.full(channels, 1 - 1e-3))
    norm.moving_mean.assign(2.0 * draw.integers(-3, 4, channels))
    norm.gamma.assign(draw.choice([-2.0, -1.0, 0.5, 1.0], channels))
    return y


def less(x: tf.Tensor) -> tf.Tensor:
    return lq.math.sign(-x)


STRICT = {
    "of -x": lambda x: conv(input_quantizer=less)(x),
    "of -x, padded with zeros": lambda x: conv(input_quantizer=less, pad_values=0.0)(
        norm_of_ties(x)
    ),
    "of -x, padded with -1, groups": lambda x: conv(
        input_quantizer=less, pad_values=-1.0, groups=2
    )(layers.ReLU()(x)),
    "in the convolution": lambda x: conv(input_quantizer=strict)(x),
    "turned twice": lambda x: conv(input_quantizer=turned, padding="valid")(x),
    "straight-through": lambda x: conv(input_quantizer=straight_through, kernel_size=1)(x),
    "padded with zeros": lambda x: conv(input_quantizer=strict, pad_values=0.0, use_bias=True)(x),
    "padded with -1": lambda x: conv(input_quantizer=strict, pad_values=-1.0, strides=2)(x),
    "a relu before": lambda x: conv(input_quantizer=strict)(layers.ReLU()(x)),
    "a scale before": lambda x: conv(input_quantizer=strict)(layers.Lambda(lambda t: t * 0.05)(x)),
    "a norm before": lambda x: conv(input_quantizer=strict, padding="valid")(norm_of_ties(x)),
    "relu and norm before": lambda x: conv(input_quantizer=strict)(norm_of_ties(layers.ReLU()(x))),
    "a pool before": lambda x: conv(input_quantizer=strict)(layers.MaxPool2D(2)(x)),
    "scaled": lambda x: conv(
        input_quantizer=strict, kernel_quantizer="magnitude_aware_sign", activation="relu"
    )(x),
    "groups": lambda x: conv(input_quantizer=strict, groups=2)(x),
    "dilated": lambda x: conv(input_quantizer=strict, dilation_rate=2, pad_values=0.0)(x),
    "a layer": lambda x: conv(input_quantizer=None)(layers.Lambda(strict)(x)),
    "a layer, padded with -1": lambda x: conv(input_quantizer=None, pad_values=-1.0)(
        layers.Lambda(strict)(x)
    ),
    "a layer, padded by hand": lambda x: conv(input_quantizer=None, padding="valid")(
        tf.pad(layers.Lambda(strict)(x), [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=1.0)
    ),
    "a layer before a pool": lambda x: conv(input_quantizer=None)(
        layers.MaxPool2D(2)(layers.Lambda(strict)(x))
    ),
    "an output": lambda x: layers.Lambda(strict)(x),
    "read by both": lambda x: (lambda s: layers.Add()([s, conv(36, input_quantizer=None)(s)]))(
        layers.Lambda(strict)(x)
    ),
    "dense": lambda x: lq.layers.QuantDense(8, **{**SIGNS, "input_quantizer": strict})(
        layers.Flatten()(x)
    ),
    "a function": lambda x: FunctionConvolution()(x),
    "a padded function": lambda x: FunctionConvolution(pad=1)(x),
}


@pytest.mark.parametrize("block", STRICT.values(), ids=list(STRICT))
def test_a_sign_of_minus_one_at_zero_is_exact_where_sums_are_zero(block) -> None:
    inputs = tf.keras.Input((8, 8, 36))
    model = tf.keras.Model(inputs, block(conv(36, kernel_size=1)(inputs)))
    images = np.random.default_rng(0).integers(-2, 3, (8, 8, 8, 36)).astype("float32")
    sums = tf.keras.Model(inputs, model.layers[1].output)(images)
    assert np.mean(sums == 0) > 0.05
    kinds = exact_kinds(model, images)
    assert kinds.count("LceBconv2d") == sum(
        row.groups for row in profile(model).layers if row.binary
    )
    assert "CONV_2D" not in kinds


MOVED = {
    "pooled": lambda sign, x: layers.MaxPool2D(2)(sign(x)),
    "permuted": lambda sign, x: layers.Permute((2, 1, 3))(sign(x)),
    "joined": lambda sign, x: layers.Concatenate()([sign(x), sign(x[:, ::-1])]),
    "cropped": lambda sign, x: layers.Cropping2D(1)(sign(x)),
    "reshaped": lambda sign, x: layers.Reshape((4, 16, 36))(sign(x)),
}


@pytest.mark.parametrize("pad_values", [1.0, -1.0, 0.0])
@pytest.mark.parametrize("moved", MOVED.values(), ids=list(MOVED))
def test_signs_that_others_moved_run_in_binary(moved, pad_values: float) -> None:
    inputs = tf.keras.Input((8, 8, 36))
    sign = lq.quantizers.SteSign() if pad_values else layers.Lambda(lq.quantizers.ste_sign)
    convolution = conv(input_quantizer=None, pad_values=pad_values)
    model = tf.keras.Model(inputs, convolution(moved(sign, inputs)))
    conversion = larq_nas.convert(model, normal(8, 8, 36), kernels=KERNELS)
    assert any("the sign of the signs" in line for line in conversion.rewrites)
    assert conversion.audit.operations["LceBconv2d"] == 1
    costs = profile(model)
    assert costs.fallbacks == []
    assert abs(costs.flatbuffer_bytes - len(conversion.flatbuffer)) <= 512


@pytest.mark.parametrize("quantizer", [above, above_thresholds])
@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((2, 2, 36), {"pad_values": 0.0}),
        ((1, 1, 36), {"pad_values": 0.0}),
        ((1, 9, 36), {"pad_values": 0.0, "activation": "relu"}),
        ((6, 6, 36), {"pad_values": -1.0}),
        ((6, 6, 36), {"groups": 2}),
    ],
)
def test_a_sign_of_something_else_is_padded_and_split_exactly(quantizer, shape, settings) -> None:
    inputs = tf.keras.Input(shape)
    model = tf.keras.Model(inputs, conv(input_quantizer=quantizer, **settings)(inputs))
    assert profile(model).fallbacks == []
    kinds = exact_kinds(model, normal(*shape))
    assert kinds.count("LceBconv2d") == settings.get("groups", 1)
    predicted = [operator.kind for operator in read_structure(model).operators]
    assert sorted(predicted) == sorted(kinds)
