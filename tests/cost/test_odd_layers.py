"""Predictions for layers and ways of calling them that the search spaces do not have."""

from collections.abc import Callable

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from conftest import randomize
from runtime import convert

from larq_nas.cost import profile
from larq_nas.cost.profile import Structure
from larq_nas.graph.calls import read_graph
from larq_nas.lce.count import understand
from larq_nas.quantizers import LearnedStep

LAYERS = tf.keras.layers
SIGN = lq.quantizers.SteSign
CONSTANT = np.random.default_rng(0).normal(size=(16, 16, 32)).astype("float32")


def quant_conv(filters: int, kernel_size: int = 3, **changes) -> tf.keras.layers.Layer:
    settings = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "padding": "same"}
    settings |= {"pad_values": 1, "use_bias": False, "kernel_constraint": "weight_clip", **changes}
    return lq.layers.QuantConv2D(filters, kernel_size, **settings)


def build(function: Callable, shape=(16, 16, 32)) -> tf.keras.Model:
    images = tf.keras.Input(shape, name="image")
    return tf.keras.Model(images, function(images))


def shared_real(x: tf.Tensor) -> tf.Tensor:
    conv = LAYERS.Conv2D(64, 3, padding="same")
    return conv(conv(conv(LAYERS.Conv2D(64, 1)(x))))


def shared_binary(x: tf.Tensor) -> tf.Tensor:
    conv, norm = quant_conv(32), LAYERS.BatchNormalization()
    return norm(conv(norm(conv(norm(conv(x))))))


def two_dilated(x: tf.Tensor) -> tf.Tensor:
    real = LAYERS.Conv2D(32, 3, padding="same", dilation_rate=2)(x)
    return LAYERS.Add()([real, quant_conv(32, dilation_rate=2)(x)])


def two_paddings(x: tf.Tensor) -> tf.Tensor:
    zeros = quant_conv(32, dilation_rate=2, pad_values=0)(x)
    return LAYERS.Add()([zeros, quant_conv(32, dilation_rate=2)(x)])


CASES: dict[str, tuple[Callable, tuple[int, ...], int]] = {
    "a sign apart": (lambda x: quant_conv(32, input_quantizer=None)(SIGN()(x)), (16, 16, 32), 1),
    "a pool between": (
        lambda x: quant_conv(32, input_quantizer=None)(LAYERS.MaxPool2D()(SIGN()(x))),
        (16, 16, 32),
        1,
    ),
    "a crop between": (
        lambda x: quant_conv(32, input_quantizer=None)(LAYERS.Cropping2D(1)(SIGN()(x))),
        (16, 16, 32),
        1,
    ),
    "weights of 0 and 1": (
        lambda x: quant_conv(32, kernel_quantizer=lq.quantizers.SteHeaviside())(x),
        (16, 16, 32),
        0,
    ),
    "a real and a binary dilation": (two_dilated, (16, 16, 32), 1),
    "dilations of two paddings": (two_paddings, (16, 16, 32), 2),
    "a shared layer": (shared_real, (16, 16, 32), 0),
    "a shared binary layer": (shared_binary, (16, 16, 32), 3),
    "a constant": (lambda x: x + tf.constant(CONSTANT), (16, 16, 32), 0),
    "groups of 32": (lambda x: quant_conv(32, groups=2)(x), (16, 16, 64), 2),
    "arithmetic with numbers": (
        lambda x: quant_conv(32)(quant_conv(32)(x) * 0.5 + 1.0),
        (16, 16, 32),
        2,
    ),
    "swish": (
        lambda x: LAYERS.Conv2D(8, 1)(LAYERS.Activation("swish")(LAYERS.Conv2D(32, 3)(x))),
        (16, 16, 32),
        0,
    ),
    "a binary depthwise layer": (
        lambda x: lq.layers.QuantDepthwiseConv2D(
            3,
            input_quantizer="ste_sign",
            depthwise_quantizer="ste_sign",
            depthwise_constraint="weight_clip",
            padding="same",
            pad_values=1,
        )(x),
        (16, 16, 32),
        0,
    ),
    "one dimension": (lambda x: LAYERS.Conv1D(16, 3, padding="same")(x), (128, 32), 0),
    "a mean": (
        lambda x: LAYERS.Average()(
            [LAYERS.Conv2D(32, 1)(x), LAYERS.Conv2D(32, 3, padding="same")(x), x]
        ),
        (16, 16, 32),
        0,
    ),
    "relu6": (
        lambda x: LAYERS.Activation(tf.nn.relu6)(LAYERS.BatchNormalization()(quant_conv(32)(x))),
        (16, 16, 32),
        1,
    ),
    "zeros around, then ReLU": (
        lambda x: quant_conv(32)(
            LAYERS.BatchNormalization()(LAYERS.ReLU()(quant_conv(32, pad_values=0)(x)))
        ),
        (16, 16, 32),
        2,
    ),
    "zeros around a convolution with ReLU": (
        lambda x: LAYERS.BatchNormalization()(quant_conv(32, pad_values=0, activation="relu")(x)),
        (16, 16, 32),
        1,
    ),
    "zeros around, then batch norm": (
        lambda x: quant_conv(32)(LAYERS.BatchNormalization()(quant_conv(32, pad_values=0)(x))),
        (16, 16, 32),
        2,
    ),
    "a product": (
        lambda x: LAYERS.Multiply()([LAYERS.Conv2D(32, 1)(x), x]),
        (16, 16, 32),
        0,
    ),
}


@pytest.mark.parametrize(("function", "shape", "binary"), CASES.values(), ids=list(CASES))
def test_bytes_and_memory_are_those_of_the_flatbuffer(
    function: Callable, shape: tuple[int, ...], binary: int
) -> None:
    model = build(function, shape)
    costs, real = profile(model), convert(randomize(model))
    assert abs(costs.flatbuffer_bytes - real.bytes) <= max(0.03 * real.bytes, 512)
    assert costs.activation_bytes == real.peak
    assert real.kinds.count("LceBconv2d") == binary
    deployed = [row for row in costs.layers if row.binary and not row.fallback]
    assert sum(row.groups for row in deployed) == binary


def test_zero_padding_is_told() -> None:
    model = build(lambda x: quant_conv(32, pad_values=0)(x))
    assert "1 binary layers pad with zeros" in str(profile(model))


def test_a_model_of_two_outputs() -> None:
    images = tf.keras.Input((8, 8, 16))
    first = quant_conv(16)(images)
    second = quant_conv(16)(LAYERS.BatchNormalization()(first))
    costs = profile(tf.keras.Model(images, [first, second]))
    assert costs.binary_macs == 2 * 64 * 9 * 16 * 16
    # The first output stays, as numbers.
    assert costs.activation_bytes >= 2 * 4 * 8 * 8 * 16


class Doubled(tf.keras.layers.Conv2D):
    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return super().call(super().call(inputs))


@pytest.mark.parametrize(
    "layer",
    [
        LAYERS.Conv2D(8, 3, data_format="channels_first", padding="same", name="odd"),
        LAYERS.BatchNormalization(axis=1, name="odd"),
    ],
)
def test_what_a_layer_really_does_must_be_known(layer: tf.keras.layers.Layer) -> None:
    costs = profile(tf.keras.Sequential([tf.keras.Input((16, 16, 16)), layer]))
    assert costs.unknown == ("odd",)
    assert costs.parameters.get(32, 0) == layer.count_params()
    assert costs.flatbuffer_bytes >= 4 * layer.count_params()


def test_own_layers_are_taken_apart() -> None:
    layer = Doubled(16, 3, padding="same", name="odd")
    added = LAYERS.Lambda(lambda x: x + 1, name="added")
    costs = profile(tf.keras.Sequential([tf.keras.Input((16, 16, 16)), layer, added]))
    assert costs.unknown == ()
    assert sum(costs.parameters.values()) == layer.count_params()
    assert costs.macs == 2 * 256 * 9 * 16 * 16


def on_zero_one(filters: int, **changes) -> tf.keras.layers.Layer:
    settings = {"input_quantizer": lq.quantizers.DoReFa(1), "pad_values": 0, **changes}
    return quant_conv(filters, **settings)


def zero_one_chain(x: tf.Tensor) -> tf.Tensor:
    x = LAYERS.BatchNormalization()(LAYERS.Conv2D(40, 3)(x))
    for filters in (36, 64):
        x = LAYERS.BatchNormalization()(on_zero_one(filters)(x))
    return LAYERS.Dense(4)(LAYERS.Flatten()(LAYERS.MaxPool2D()(x)))


def zero_one_residual(x: tf.Tensor) -> tf.Tensor:
    y = LAYERS.BatchNormalization()(on_zero_one(32, activation="relu")(x))
    x = LAYERS.Add()([x, y])
    y = LAYERS.BatchNormalization()(on_zero_one(32, input_quantizer=LearnedStep(0.5))(x))
    return LAYERS.Add()([x, y])


def dense_chain(x: tf.Tensor) -> tf.Tensor:
    settings = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}
    x = LAYERS.BatchNormalization()(LAYERS.Flatten()(x))
    for _ in range(2):
        x = lq.layers.QuantDense(64, kernel_constraint="weight_clip", **settings)(x)
        x = LAYERS.BatchNormalization()(x)
    return LAYERS.Dense(4)(x)


def normalized(x: tf.Tensor) -> tf.Tensor:
    # Named before what follows, as operations are ordered by name from where they start.
    return LAYERS.BatchNormalization(name="a")(x)


def norm_behind_concat(x: tf.Tensor) -> tf.Tensor:
    x = LAYERS.Concatenate()([quant_conv(16)(x), quant_conv(24)(x)])
    return quant_conv(8)(LAYERS.BatchNormalization()(x))


def norm_behind_pool(x: tf.Tensor) -> tf.Tensor:
    return quant_conv(8)(LAYERS.BatchNormalization()(LAYERS.MaxPool2D()(quant_conv(40)(x))))


@pytest.mark.parametrize(
    ("function", "shape", "binary"),
    [
        (zero_one_chain, (16, 16, 3), 2),
        (zero_one_residual, (16, 16, 32), 2),
        (lambda x: on_zero_one(32, groups=2, name="b")(normalized(x)), (16, 16, 32), 2),
        (dense_chain, (4, 4, 32), 2),
        (norm_behind_concat, (16, 16, 32), 3),
        (norm_behind_pool, (16, 16, 32), 2),
        (lambda x: quant_conv(24, groups=3, name="b")(normalized(x)), (16, 16, 12), 3),
        (
            lambda x: LAYERS.Add()([quant_conv(32, dilation_rate=2)(x) for _ in range(2)]),
            (16, 16, 32),
            2,
        ),
    ],
    ids=[
        "0 and 1",
        "0 and 1, residual",
        "0 and 1, groups",
        "dense",
        "concat",
        "pool",
        "groups",
        "dilation",
    ],
)
def test_what_the_export_rewrites_is_predicted(function, shape, binary: int) -> None:
    """The list of operations too."""
    model = randomize(build(function, shape))
    costs, real = profile(model), convert(model)
    assert real.kinds.count("LceBconv2d") == binary
    assert [op.kind for op in Structure(understand(read_graph(model))).operators] == real.kinds
    assert abs(costs.flatbuffer_bytes - real.bytes) <= max(0.03 * real.bytes, 512)
    assert costs.activation_bytes == real.peak
    assert costs.fallbacks == []


class TwoConvolutions(LAYERS.Layer):
    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.first, self.second = quant_conv(32), quant_conv(32)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.second(self.first(x) * 0.1 - 1.0)


class Loop(LAYERS.Layer):
    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.conv = quant_conv(32)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        for _ in tf.range(3):
            x = self.conv(x) * 0.01
        return x


class OwnKernel(LAYERS.Layer):
    def build(self, shape) -> None:
        self.kernel = self.add_weight("kernel", (3, 3, shape[-1], 32))

    def call(self, x: tf.Tensor) -> tf.Tensor:
        sign = lq.quantizers.ste_sign
        return tf.nn.conv2d(sign(x), sign(self.kernel), 1, "SAME")


def moved(x: tf.Tensor) -> tf.Tensor:
    return LAYERS.Lambda(lambda numbers: numbers * -0.1 + 1)(x)


def normed(x: tf.Tensor) -> tf.Tensor:
    return LAYERS.BatchNormalization()(x)


def shared(layer: Callable, between: Callable, calls: int = 3) -> Callable:
    """Return a builder of a network that calls one layer, with others between."""

    def build(x: tf.Tensor) -> tf.Tensor:
        one = layer()
        for _ in range(calls - 1):
            x = between(one(x))
        return LAYERS.Flatten()(one(x))

    return build


def two_images(x: tf.Tensor) -> tf.Tensor:
    layers = [LAYERS.Conv2D(64, 3), LAYERS.BatchNormalization(), quant_conv(32)]
    one = tf.keras.Sequential([*layers, LAYERS.GlobalAveragePooling2D()])
    return LAYERS.Subtract()([one(x), one(LAYERS.ReLU()(x))])


IMAGE = (8, 8, 32)
SHARED: dict[str, tuple[Callable, tuple[int, ...]]] = {
    "real": (shared(lambda: LAYERS.Conv2D(32, 3, padding="same"), LAYERS.ReLU(), 2), IMAGE),
    "real, with batch norms": (
        shared(lambda: LAYERS.Conv2D(32, 3, padding="same"), normed),
        IMAGE,
    ),
    "dense": (shared(lambda: LAYERS.Dense(64), LAYERS.ReLU(), 2), (64,)),
    "depthwise": (
        shared(lambda: LAYERS.DepthwiseConv2D(3, padding="same"), LAYERS.ReLU(), 2),
        IMAGE,
    ),
    "separable": (shared(lambda: LAYERS.SeparableConv2D(32, 3, padding="same"), normed), IMAGE),
    "a batch norm": (shared(LAYERS.BatchNormalization, LAYERS.ReLU()), IMAGE),
    "binary": (shared(lambda: quant_conv(32), moved), IMAGE),
    "binary, with batch norms": (shared(lambda: quant_conv(32), normed, 4), IMAGE),
    "binary, then ReLU": (shared(lambda: quant_conv(32, activation="relu"), normed), IMAGE),
    "groups": (shared(lambda: quant_conv(32, groups=4), moved), IMAGE),
    "zeros around, dilated": (
        shared(lambda: quant_conv(32, pad_values=0, dilation_rate=2), moved),
        IMAGE,
    ),
    "a model": (
        shared(
            lambda: tf.keras.Sequential([quant_conv(32), LAYERS.BatchNormalization()]),
            LAYERS.Activation("linear"),
        ),
        IMAGE,
    ),
    "an own layer": (shared(TwoConvolutions, LAYERS.ReLU(), 2), IMAGE),
    "an own kernel": (shared(OwnKernel, normed), IMAGE),
    "a loop": (shared(Loop, normed, 1), IMAGE),
    "two images": (two_images, IMAGE),
}


def repeated(block: Callable, times: int = 8) -> Callable:
    def build(x: tf.Tensor) -> tf.Tensor:
        for _ in range(times):
            x = block(x)
        return LAYERS.GlobalAveragePooling2D()(x)

    return build


def behind_conv(*layers: Callable, **settings) -> Callable:
    """Return a builder of a convolution, `layers`, and a further convolution over rows."""

    def build(x: tf.Tensor) -> tf.Tensor:
        one_dimension = len(x.shape) == 3
        x = (LAYERS.Conv1D if one_dimension else LAYERS.Conv2D)(16, 3, **settings)(x)
        for layer in layers:
            x = layer()(x)
        return LAYERS.Conv1D(8, 1)(x) if len(x.shape) == 3 else quant_conv(32)(x)

    return build


NORM, RELU = LAYERS.BatchNormalization, LAYERS.ReLU
DILATED = {"dilation_rate": 2}
ROWS = (63, 8)


def gate(x: tf.Tensor) -> tf.Tensor:
    y = LAYERS.Dense(x.shape[-1], activation="sigmoid")(LAYERS.GlobalAveragePooling2D()(x))
    return LAYERS.Multiply()([x, LAYERS.Reshape((1, 1, x.shape[-1]))(y)])


ALONE: dict[str, tuple[Callable, tuple[int, ...]]] = {
    "the same offset": (
        repeated(lambda x: LAYERS.Add()([x, quant_conv(32)(x + 0.1)])),
        IMAGE,
    ),
    "the same thresholds": (repeated(lambda x: quant_conv(32)(x)), IMAGE),
    "the same flips": (
        repeated(lambda x: LAYERS.Add()([x, normed(on_zero_one(32)(normed(x)))])),
        IMAGE,
    ),
    "dense layers without bias": (
        lambda x: tf.keras.Sequential([LAYERS.Dense(32, use_bias=False) for _ in range(8)])(x),
        (32,),
    ),
    "dilated rows": (behind_conv(NORM, RELU, padding="valid", **DILATED), ROWS),
    "dilated rows, same": (behind_conv(RELU, padding="same", **DILATED), ROWS),
    "dilated rows, causal": (behind_conv(NORM, padding="causal", **DILATED), ROWS),
    "dilated rows, no bias": (
        behind_conv(padding="causal", use_bias=False, activation="relu", **DILATED),
        ROWS,
    ),
    "causal rows": (behind_conv(NORM, RELU, padding="causal"), ROWS),
    "a norm behind a reshape": (behind_conv(lambda: LAYERS.Reshape((36, 16)), NORM), IMAGE),
    "a ReLU behind a reshape": (behind_conv(lambda: LAYERS.Reshape((36, 16)), NORM, RELU), IMAGE),
    "rows as an image": (
        behind_conv(lambda: LAYERS.Reshape((31, 1, 16)), NORM, strides=2),
        ROWS,
    ),
    "channels behind a reshape": (behind_conv(lambda: LAYERS.Reshape((18, 32)), NORM), IMAGE),
    "a norm and ReLU alone": (
        lambda x: LAYERS.Conv2D(8, 1)(RELU()(NORM()(LAYERS.AveragePooling2D()(x)))),
        IMAGE,
    ),
    **{
        f"convolutions with {name}": (
            repeated(lambda x, name=name: LAYERS.Conv2D(32, 1, activation=name)(x), 4),
            IMAGE,
        )
        for name in ("hard_sigmoid", "swish", "gelu", "elu")
    },
    "hard sigmoids behind pools": (
        repeated(lambda x: LAYERS.Activation("hard_sigmoid")(LAYERS.MaxPooling2D(2, 1)(x)), 4),
        IMAGE,
    ),
    "gates of channels": (repeated(gate), IMAGE),
    "kernels equal by chance": (
        lambda x: quant_conv(64, groups=64)(LAYERS.Conv2D(64, 1)(x)),
        IMAGE,
    ),
    "one crop of many": (
        repeated(lambda x: LAYERS.Cropping2D(1)(LAYERS.Conv2D(8, 3, padding="same")(x)), 6),
        (16, 16, 8),
    ),
    "a constant image": (
        lambda x: normed(LAYERS.Conv2D(32, 1)(x) + tf.constant(CONSTANT[None, :8, :8])),
        IMAGE,
    ),
}


@pytest.mark.parametrize(
    ("function", "shape"), [*SHARED.values(), *ALONE.values()], ids=[*SHARED, *ALONE]
)
def test_bytes_are_within_a_hundredth(function: Callable, shape: tuple[int, ...]) -> None:
    model = randomize(build(function, shape))
    size = convert(model).bytes
    assert abs(profile(model).flatbuffer_bytes - size) <= max(0.01 * size, 512)


@pytest.mark.parametrize("name", ["hard_sigmoid", "swish", "selu"])
@pytest.mark.parametrize("layer", [LAYERS.Conv2D, quant_conv])
def test_an_activation_of_a_convolution_is_all_its_operations(name: str, layer: Callable) -> None:
    model = randomize(build(lambda x: layer(32, 3, activation=name)(x)))
    predicted = Structure(understand(read_graph(model))).operators
    assert len(predicted) == len(convert(model).kinds)


def test_a_vector_is_reshaped_for_what_does_not_broadcast_it() -> None:
    def both(x: tf.Tensor) -> tf.Tensor:
        vector = LAYERS.Dense(32)(LAYERS.GlobalAveragePooling2D()(x))
        vector = LAYERS.Reshape((1, 1, 32))(vector)
        return LAYERS.Concatenate()([LAYERS.AveragePooling2D(16)(x), vector])

    for function, reshapes in ((gate, 0), (both, 1)):
        model = randomize(build(function))
        predicted = Structure(understand(read_graph(model))).operators
        assert convert(model).kinds.count("RESHAPE") == reshapes
        assert [operator.kind for operator in predicted].count("RESHAPE") == reshapes


POOL, FLAT, BATCH_NORM = LAYERS.GlobalAveragePooling2D, LAYERS.Flatten, LAYERS.BatchNormalization
HEADS: dict[str, Callable] = {
    "a norm": lambda x: LAYERS.Dense(8)(BATCH_NORM()(POOL()(x))),
    "a norm, no bias": lambda x: LAYERS.Dense(8, use_bias=False)(BATCH_NORM()(POOL()(x))),
    "a norm of many": lambda x: LAYERS.Dense(8)(BATCH_NORM()(FLAT()(x))),
    "two norms": lambda x: LAYERS.Dense(8)(BATCH_NORM()(BATCH_NORM()(POOL()(x)))),
    "a norm of a map": lambda x: LAYERS.Dense(8, activation="relu")(
        BATCH_NORM()(LAYERS.MaxPool2D()(x))
    ),
    "a norm that two read": lambda x: (lambda y: LAYERS.Dense(8)(y) + LAYERS.Dense(8)(y))(
        BATCH_NORM()(POOL()(x))
    ),
    "a factor": lambda x: LAYERS.Dense(8)(POOL()(x) * np.linspace(0.5, 1.5, 32, dtype="float32")),
    "a binary kernel": lambda x: lq.layers.QuantDense(8, kernel_quantizer="ste_sign")(
        BATCH_NORM()(POOL()(x))
    ),
    "an activation that multiplies": lambda x: LAYERS.Dense(8)(
        POOL()(LAYERS.Activation(lambda y: y * 2.0)(LAYERS.Conv2D(32, 1)(x)))
    ),
    "its own activation that multiplies": lambda x: LAYERS.Dense(8)(
        POOL()(LAYERS.Conv2D(32, 1, activation=lambda y: y * 2.0)(x))
    ),
    "a ReLU behind a bias": lambda x: LAYERS.ReLU()(quant_conv(32, use_bias=True)(x)),
}


@pytest.mark.parametrize("head", HEADS.values(), ids=list(HEADS))
def test_what_goes_into_a_dense_layer_is_no_operation(head: Callable) -> None:
    model = randomize(build(head))
    predicted, real = Structure(understand(read_graph(model))), convert(model)
    kinds = [operator.kind for operator in predicted.operators]
    assert len(kinds) == len(real.kinds)
    assert kinds.count("MUL") == real.kinds.count("MUL")
    written = {tensor for operator in predicted.operators for tensor in operator.writes}
    read = {tensor for operator in predicted.operators for tensor in operator.reads}
    assert {predicted.network.calls[tensor.call].name for tensor in read - written} == {"image"}
    assert abs(predicted.costs()["flatbuffer_bytes"] - real.bytes) <= max(0.01 * real.bytes, 512)
