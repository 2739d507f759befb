"""Models as people write them: each converts, or is refused in one line with layer and cause."""

from collections.abc import Callable

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from conftest import randomize

import larq_nas
from larq_nas.cost import profile
from larq_nas.errors import ConversionError, InputError

LAYERS = tf.keras.layers
SHAPE = (16, 16, 3)
BINARY = {
    "input_quantizer": "ste_sign",
    "kernel_quantizer": "ste_sign",
    "kernel_constraint": "weight_clip",
    "padding": "same",
    "pad_values": 1.0,
    "use_bias": False,
}
SCALE = tf.Variable(np.linspace(0.5, 1.5, 32).astype("float32"), name="scale_of_nobody")


def quant_conv(filters: int = 32, size: int = 3, **changes) -> tf.keras.layers.Layer:
    return lq.layers.QuantConv2D(filters, size, **{**BINARY, **changes})


def norm() -> tf.keras.layers.Layer:
    return LAYERS.BatchNormalization()


def stem(filters: int = 32, **changes) -> tf.keras.layers.Layer:
    return LAYERS.Conv2D(filters, 3, padding="same", **changes)


def head(x: tf.Tensor) -> tf.Tensor:
    return LAYERS.Dense(10)(LAYERS.GlobalAveragePooling2D()(x))


class Residual(LAYERS.Layer):
    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.conv, self.norm = quant_conv(), norm()

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return x + self.norm(self.conv(x), training=training)


class Network(tf.keras.Model):
    def __init__(self) -> None:
        super().__init__(name="subclassed")
        self.stem, self.blocks = stem(), [Residual() for _ in range(2)]
        self.pool, self.dense = LAYERS.GlobalAveragePooling2D(), LAYERS.Dense(10)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.dense(self.pool(x))


class Scaled(LAYERS.Layer):
    def build(self, shape) -> None:
        self.scale = self.add_weight("scale", (shape[-1],), initializer="ones")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x * self.scale


class Gate(LAYERS.Layer):
    def build(self, shape) -> None:
        self.scale = self.add_weight("scale", (shape[-1],), initializer="ones")
        self.conv, self.norm = quant_conv(shape[-1]), norm()

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        y = self.norm(self.conv(x), training=training)
        return x + self.scale * tf.nn.sigmoid(y) * y


class SqueezeExcite(LAYERS.Layer):
    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.narrow = LAYERS.Dense(8, activation="relu")
        self.wide = LAYERS.Dense(32, activation="sigmoid")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        gates = self.wide(self.narrow(tf.reduce_mean(x, axis=[1, 2])))
        return x * gates[:, None, None, :]


class Compiled(LAYERS.Layer):
    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.conv, self.norm = quant_conv(), norm()

    @tf.function
    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.norm(self.conv(x))


class Pair(LAYERS.Layer):
    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.conv = quant_conv()

    def call(self, pair: list[tf.Tensor], weight: float = 1.0) -> tf.Tensor:
        return self.conv(pair[0]) + weight * pair[1]


class Idle(Residual):
    """A residual block with a layer that nothing calls."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.idle = quant_conv()


class Auxiliary(Idle):
    """A residual block with a layer that only training calls."""

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if training:
            self.add_loss(tf.reduce_mean(self.idle(x)))
        return super().call(x, training)


@tf.custom_gradient
def own_sign(x: tf.Tensor):
    return tf.where(x >= 0, 1.0, -1.0), lambda dy: dy * tf.cast(tf.abs(x) <= 1, tf.float32)


class OwnBinary(LAYERS.Layer):
    def build(self, shape) -> None:
        self.kernel = self.add_weight("kernel", (3, 3, shape[-1], 32))

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.conv2d(own_sign(x), own_sign(self.kernel), 1, "SAME")


class OwnFloat(OwnBinary):
    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.conv2d(tf.sign(x), tf.sign(self.kernel), 1, "SAME")


class Apart(LAYERS.Layer):
    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.conv = quant_conv(input_quantizer=None)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.conv(own_sign(x))


class OwnQuantConv(lq.layers.QuantConv2D):
    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(super().call(x))


def shuffled(x: tf.Tensor) -> tf.Tensor:
    groups = tf.reshape(x, (-1, 16, 16, 4, 8))
    return tf.reshape(tf.transpose(groups, (0, 1, 2, 4, 3)), (-1, 16, 16, 32))


def straight_through(x: tf.Tensor) -> tf.Tensor:
    clipped = tf.clip_by_value(x, -1.0, 1.0)
    return tf.stop_gradient(tf.where(x >= 0, 1.0, -1.0) - clipped) + clipped


def behind(*layers: Callable) -> Callable:
    """Return a builder of a network with `layers` between its stem and a binary layer."""

    def build() -> tf.keras.Model:
        image = x = tf.keras.Input(SHAPE)
        x = norm()(stem()(x))
        for layer in layers:
            x = (layer if isinstance(layer, LAYERS.Layer) else layer())(x)
        return tf.keras.Model(image, head(norm()(quant_conv()(norm()(x)))))

    return build


def of(function: Callable, shape=SHAPE, **settings) -> Callable:
    def build() -> tf.keras.Model:
        image = tf.keras.Input(shape, **settings)
        return tf.keras.Model(image, function(image))

    return build


def before(*layers: Callable, shape=(20, 20, 3)) -> Callable:
    """Return a builder of a network with `layers` before its stem."""

    def build() -> tf.keras.Model:
        image = x = tf.keras.Input(shape)
        for layer in layers:
            x = layer()(x)
        return tf.keras.Model(image, head(norm()(quant_conv()(norm()(stem()(x))))))

    return build


def called() -> tf.keras.Model:
    model = Network()
    model(np.zeros((1, *SHAPE), "float32"))
    return model


def body(x: tf.Tensor) -> tf.Tensor:
    return norm()(quant_conv()(norm()(stem(strides=4)(x))))


def in_words(x: tf.Tensor) -> tf.Tensor:
    x = norm()(LAYERS.Embedding(20, 32)(x))
    x = norm()(lq.layers.QuantConv1D(32, 3, **BINARY)(x))
    return LAYERS.Dense(4)(LAYERS.GlobalAveragePooling1D()(x))


def in_halves(x: tf.Tensor) -> tf.Tensor:
    one, other = tf.split(norm()(stem()(x)), 2, -1)
    return head(quant_conv()(tf.concat([one, quant_conv(16)(other)], -1)))


def between_zeros(x: tf.Tensor) -> tf.Tensor:
    zeros = tf.zeros_like(x[:, :1])
    return head(quant_conv()(norm()(LAYERS.Conv2D(32, 3)(tf.concat([zeros, x, zeros], 1)))))


def with_coordinates(x: tf.Tensor) -> tf.Tensor:
    return head(quant_conv()(norm()(stem()(tf.concat([x, tf.ones_like(x)[..., :1]], -1)))))


def twice(x: tf.Tensor) -> tf.Tensor:
    block = Residual()
    return head(block(block(norm()(stem()(x)))))


def attention(x: tf.Tensor) -> tf.Tensor:
    x = LAYERS.Reshape((16, 32))(body(x))
    x = LAYERS.MultiHeadAttention(2, 8)(x, x)
    return LAYERS.Dense(4)(LAYERS.GlobalAveragePooling1D()(x))


def dynamic_reshape(x: tf.Tensor) -> tf.Tensor:
    x = body(x)
    return LAYERS.Dense(4)(tf.reshape(x, (tf.shape(x)[0], 512)))


def two_outputs(x: tf.Tensor) -> list[tf.Tensor]:
    x = body(x)
    return [head(x), LAYERS.Dense(1, activation="sigmoid")(LAYERS.Flatten()(x))]


CONVERTING: dict[str, Callable] = {
    "layers with layers": behind(Residual, Residual),
    "a layer that nothing calls": behind(Idle),
    "an auxiliary head": behind(Auxiliary),
    "a subclassed model": called,
    "a wrapped model": of(lambda x: Network()(x)),
    "a model within": of(lambda x: LAYERS.Dense(3)(Network()(x))),
    "a Lambda over a variable": behind(lambda: LAYERS.Lambda(lambda x: x * SCALE)),
    "a layer over a variable": behind(Scaled),
    "squeeze and excite": behind(SqueezeExcite),
    "a gate built late": behind(Gate),
    "zeros beside": of(between_zeros),
    "a sign of -1 at 0 behind a pool": behind(
        quant_conv,
        LAYERS.MaxPool2D,
        lambda: quant_conv(input_quantizer=lambda x: tf.where(x > 0, 1.0, -1.0)),
    ),
    "a compiled call": behind(Compiled),
    "a shared own layer": of(twice),
    "lists and settings": of(lambda x: head(Pair()([norm()(stem()(x)), stem()(x)], weight=0.5))),
    "own binary convolution": behind(OwnBinary, norm),
    "a subclass of Larq's": behind(lambda: OwnQuantConv(32, 3, **BINARY), norm),
    "own float convolution": behind(OwnFloat, norm),
    "own sign before Larq": behind(Apart, norm),
    "straight through": behind(
        lambda: LAYERS.Lambda(straight_through), lambda: quant_conv(input_quantizer=None)
    ),
    "channel shuffle": behind(lambda: LAYERS.Lambda(shuffled)),
    "slices": behind(lambda: LAYERS.Lambda(lambda x: x[:, ::2, ::2])),
    "space to depth": behind(lambda: LAYERS.Lambda(lambda x: tf.nn.space_to_depth(x, 2))),
    "halves": of(in_halves),
    "constants": of(with_coordinates),
    "a random crop": before(lambda: LAYERS.RandomCrop(16, 16)),
    "resizing": before(lambda: LAYERS.Resizing(16, 16), lambda: LAYERS.CenterCrop(12, 12)),
    "normalization": before(lambda: LAYERS.Normalization(mean=[0, 1, 2], variance=[1, 2, 3])),
    "augmentation": before(
        LAYERS.RandomFlip, lambda: LAYERS.RandomRotation(0.1), lambda: LAYERS.RandomZoom(0.1)
    ),
    "integers": of(lambda x: body(tf.cast(x, tf.float32) / 255.0), dtype="uint8"),
    "words": of(in_words, shape=(16,), dtype="int32"),
    "dynamic reshape": of(dynamic_reshape),
    "layer norm": behind(LAYERS.LayerNormalization, lambda: LAYERS.GroupNormalization(4)),
    "attention": of(attention),
    "a limited ReLU": behind(lambda: LAYERS.ReLU(2.0, negative_slope=0.1, threshold=0.2)),
    "ReLU with a slope": behind(lambda: LAYERS.ReLU(negative_slope=0.1)),
    "selu": behind(lambda: LAYERS.Activation("selu")),
    "gelu": behind(lambda: LAYERS.Activation("gelu")),
    "two outputs": of(two_outputs),
}


@pytest.mark.parametrize("build", CONVERTING.values(), ids=list(CONVERTING))
def test_cost_and_conversion_agree(build: Callable) -> None:
    model = randomize(build())
    costs, conversion = profile(model), larq_nas.convert(model, examples=8)
    predicted = [row for row in costs.layers if row.binary and not row.fallback]
    real = [row for row in conversion.audit.layers if row.runs_as == "LceBconv2d"]
    assert len({row.name for row in predicted}) == len(real)
    assert not conversion.audit.fallbacks
    size = len(conversion.flatbuffer)
    assert abs(costs.flatbuffer_bytes - size) <= max(0.01 * size, 512)
    assert "not found" not in str(conversion.audit)


def test_what_only_training_calls_costs_nothing() -> None:
    plain, auxiliary = (randomize(behind(kind)()) for kind in (Residual, Auxiliary))
    assert profile(auxiliary).parameters == profile(plain).parameters


def test_what_gives_its_shape_alone_is_not_unknown() -> None:
    assert profile(of(between_zeros)()).unknown == ()


def with_nan() -> tf.keras.Model:
    model = of(lambda x: head(stem(name="broken")(x)))()
    kernel = model.get_layer("broken").kernel
    kernel.assign(kernel * np.nan)
    return model


def transposed(x: tf.Tensor) -> tf.Tensor:
    settings = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
    return lq.layers.QuantConv2DTranspose(8, 3, strides=2, name="up", **settings)(body(x))


REFUSED: dict[str, tuple[Callable, str]] = {
    "a batch of one": (
        of(lambda x: tf.reshape(body(x), (1, -1))),
        r"layer `tf.reshape.*` fixes the batch at 1 .*: leave the batch open",
    ),
    "norm in training": (
        of(lambda x: LAYERS.BatchNormalization(name="batch")(stem()(x), training=True)),
        r"Layer `batch` is called with training=True.*mean and variance.*: call it without",
    ),
    "dropout in training": (
        of(lambda x: LAYERS.Dropout(0.5, name="chance")(stem()(x), training=True)),
        r"Layer `chance` is called with training=True.*random numbers.*: call it without",
    ),
    "a model in training": (
        of(lambda x: tf.keras.Sequential([norm()], name="inner")(stem()(x), training=True)),
        "Model `inner` is called with training=True",
    ),
    "NaN": (with_nan, r"Layer `broken` holds NaN .* train it again"),
    "lanczos": (
        before(lambda: LAYERS.Resizing(16, 16, interpolation="lanczos3", name="resize")),
        r"Layer `resize` needs the operation ScaleAndTranslate.*use bilinear or nearest",
    ),
    "transposed": (
        of(transposed),
        r"`up` would run in float: .* no binary kernel for QuantConv2DTranspose; use UpSampling2D",
    ),
    "an operation without a kernel": (
        behind(lambda: LAYERS.Activation("softsign", name="soft")),
        "Layer `soft` needs the operation Softsign",
    ),
}


@pytest.mark.parametrize(("build", "message"), REFUSED.values(), ids=list(REFUSED))
def test_a_refusal_is_one_line_with_layer_and_cause(build: Callable, message: str) -> None:
    with pytest.raises((InputError, ConversionError), match=message) as caught:
        larq_nas.convert(build(), examples=8)
    assert "\n" not in str(caught.value)


def test_a_transposed_layer_may_run_in_float() -> None:
    conversion = larq_nas.convert(of(transposed)(), examples=8, allow_float=["up"])
    (row,) = conversion.audit.fallbacks
    assert row.layer == "up"
    assert profile(of(transposed)()).fallbacks[0].fallback == row.cause
