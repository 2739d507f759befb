"""Each rewriting gives Keras's numbers on every kernel, and leaves nothing binary in float."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from conftest import quick, randomize

import larq_nas
from larq_nas.cost import profile
from larq_nas.cost.structure import read_structure
from larq_nas.deploy.export import export_lowered, run
from larq_nas.deploy.flatbuffer import extract, operators, read_model
from larq_nas.deploy.parity import KERNELS as OPTIONS
from larq_nas.deploy.rewriting import Lowered, lower
from larq_nas.layers import Scale, classifier
from larq_nas.quantizers import LearnedStep, StandardizedSign

layers = tf.keras.layers
KERNELS = ("default", "reference", "indirect")
SIGNS = {
    "input_quantizer": "ste_sign",
    "kernel_quantizer": "ste_sign",
    "kernel_constraint": "weight_clip",
}


def conv(filters: int = 40, kernel_size: int = 3, **settings) -> lq.layers.QuantConv2D:
    defaults = {**SIGNS, "padding": "same", "pad_values": 1.0, "use_bias": False}
    return lq.layers.QuantConv2D(filters, kernel_size, **{**defaults, **settings})


def on_zero_one(quantizer, **settings) -> lq.layers.QuantConv2D:
    return conv(input_quantizer=quantizer, pad_values=0.0, **settings)


def model_of(block, shape=(9, 10, 36), seed: int = 0) -> tf.keras.Model:
    inputs = tf.keras.Input(shape)
    model = randomize(tf.keras.Model(inputs, classifier(block(inputs), 4)), seed)
    for layer in model.layers:  # negative scales turn filters in the converter
        if isinstance(layer, layers.BatchNormalization) and seed:
            sign = np.random.default_rng(seed).choice([-1.0, 1.0], layer.gamma.shape)
            layer.gamma.assign(layer.gamma * sign)
    return model


def converted(model: tf.keras.Model, **settings) -> larq_nas.Conversion:
    """Return the conversion, exact on all kernels and without a convolution in float."""
    conversion = larq_nas.convert(model, **{"kernels": KERNELS, **settings})
    assert all(parity.exact >= 0.98 for parity in conversion.parity)
    assert {"CONV_2D", "LceDequantize"}.isdisjoint(conversion.audit.operations)
    assert conversion.audit.fallbacks == []
    return conversion


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


@pytest.mark.parametrize("zero_one", [False, True])
@pytest.mark.parametrize(("groups", "kernel_size"), quick([(12, 3), (4, 1), (2, (1, 3))], 2))
def test_groups_run_on_every_kernel(groups: int, kernel_size, zero_one: bool) -> None:
    settings = {"groups": groups, "activation": "relu", "name": "grouped"}
    if zero_one:
        settings |= {"input_quantizer": lq.quantizers.DoReFa(1), "pad_values": 0.0}
    model = model_of(lambda x: conv(48, kernel_size, **settings)(x))
    assert converted(model).audit.operations["LceBconv2d"] == groups
    without_default = converted(model, kernels=("reference", "indirect"))
    (line,) = without_default.rewrites
    assert "rather than" in line
    assert line.count(" bytes and ") == line.count(" ms") == 2
    assert without_default.audit.operations["LceBconv2d"] in (1, groups)


@pytest.mark.parametrize("kernel_size", [1, 3, (1, 2)])
@pytest.mark.parametrize("pad_values", [0.0, 1.0])
@pytest.mark.parametrize("channels", [36, 64, 60])
def test_padded_groups_are_exact(kernel_size, pad_values: float, channels: int) -> None:
    """Even and odd numbers of padding, and none at all."""
    groups = 12 if channels < 64 else 2

    def padded(computation, shape) -> tuple[int, float]:
        return (1, 1.0) if "padded" in computation.name else (2, 2.0)

    layer = conv(24, kernel_size, groups=groups, pad_values=pad_values, activation="relu")
    model = model_of(lambda x: layer(x), (9, 10, channels))
    lowered = lower(model, padded)
    (rewrite,) = lowered.rewrites.values()
    odd = channels // groups % 2
    assert ("padded" in rewrite.reason.split("rather")[0]) == (pad_values == 1 or not odd)
    images = np.random.default_rng(0).normal(size=(8, 9, 10, channels)).astype("float32")
    np.testing.assert_allclose(lowered(images)[0], model(images), atol=1e-5)


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


def test_a_batch_norm_behind_a_concatenation_goes_into_the_convolutions() -> None:
    def block(x: tf.Tensor) -> tf.Tensor:
        parts = [conv(20)(x), conv(12)(x)]
        return conv()(layers.BatchNormalization(name="norm")(layers.Concatenate()(parts)))

    model = model_of(block, seed=1)
    conversion = converted(model)
    assert {"MUL", "ADD"}.isdisjoint(conversion.audit.operations)
    assert any("`norm` is computed before" in line for line in conversion.rewrites)
    before = larq_nas.convert(model, rewrite=False)
    assert len(conversion.flatbuffer) < len(before.flatbuffer)


def pooled(x: tf.Tensor) -> tf.Tensor:
    return conv()(layers.BatchNormalization(name="norm")(layers.MaxPool2D()(conv()(x))))


def test_a_batch_norm_behind_a_max_pool_goes_before_it() -> None:
    operations = converted(model_of(pooled)).audit.operations
    assert operations["LceBMaxPool2d"] == 1
    assert {"MUL", "ADD", "MAX_POOL_2D"}.isdisjoint(operations)


def test_a_batch_norm_that_turns_the_order_stays_behind_the_pool() -> None:
    conversion = converted(model_of(pooled, seed=1))
    assert conversion.rewrites == []
    assert conversion.audit.operations["MUL"] == conversion.audit.operations["ADD"] == 1


def test_a_tensor_that_others_read_keeps_its_batch_norm() -> None:
    def block(x: tf.Tensor) -> tf.Tensor:
        joined = layers.Concatenate()([conv(18)(x), conv(18)(x)])
        return layers.Add()([joined, conv(36)(layers.BatchNormalization()(joined))])

    assert not any("computed before" in line for line in converted(model_of(block)).rewrites)
    assert converted(model_of(block, seed=1)).rewrites == []


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


def test_rewriting_leaves_the_model_as_it_was() -> None:
    model = model_of(three(lambda: lq.quantizers.DoReFa(1)))
    weights = [weight.copy() for weight in model.get_weights()]
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    larq_nas.convert(model)
    assert nodes == [len(layer._inbound_nodes) for layer in model.layers]
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def increasing(number: int) -> list[tf.keras.layers.Layer]:
    """Return layers that keep the order of numbers, and between which signs are read."""
    slope = tf.keras.initializers.Constant(0.25)
    return [
        [layers.BatchNormalization()],
        [layers.PReLU(slope, shared_axes=[1, 2])],
        [layers.LeakyReLU(0.1), layers.BatchNormalization()],
        [layers.BatchNormalization(), layers.ReLU(), layers.BatchNormalization()],
        [Scale(), layers.PReLU(slope, shared_axes=[1, 2]), layers.Dropout(0.1)],
    ][number]


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("source", ["image", "convolution", "real"])
def test_what_keeps_the_order_is_an_offset_before_signs(number: int, source: str) -> None:
    def block(x: tf.Tensor) -> tf.Tensor:
        if source != "image":
            x = conv()(x) if source == "convolution" else layers.Conv2D(40, 3, name="real")(x)
        for layer in increasing(number):
            x = layer(x)
        return conv(name="reader")(x)

    model = model_of(block)
    for layer in model.layers:
        if isinstance(layer, layers.PReLU):
            layer.alpha.assign(np.random.default_rng(0).uniform(0.1, 0.4, layer.alpha.shape))
    conversion = larq_nas.convert(model, kernels=KERNELS)
    assert all(parity.exact >= 0.98 for parity in conversion.parity)
    operations = conversion.audit.operations
    assert {"MUL", "PRELU", "LEAKY_RELU", "RELU"}.isdisjoint(operations)
    # Nothing but a positive slope or scale needs no offset; one behind a convolution is its own.
    assert operations.get("ADD", 0) == (source == "image" and number not in (1, 4))
    before = larq_nas.convert(model, rewrite=False, kernels=KERNELS)
    assert len(conversion.flatbuffer) <= len(before.flatbuffer)
    assert (conversion.rewrites == []) == (source != "image" and number == 0)


def test_the_offset_is_exact_at_every_threshold() -> None:
    """Integers, as binary convolutions give them, reach thresholds that are integers."""
    norm = layers.BatchNormalization()
    model = model_of(lambda x: conv(name="reader")(norm(layers.MaxPool2D(1)(x))))
    generator = np.random.default_rng(0)
    norm.moving_mean.assign(generator.integers(-20, 20, 36))
    norm.beta.assign(np.where(np.arange(36) % 3, 0.0, generator.normal(size=36)))
    norm.gamma.assign(np.where(np.arange(36) % 5, generator.uniform(0.1, 3, 36), 0.0))
    lowered = lower(model)
    (rewrite,) = lowered.rewrites.values()
    assert rewrite.signs_only
    whole = generator.integers(-25, 25, (64, 9, 10, 36)).astype("float32")
    thresholds = -rewrite.compute(np.zeros(36, "float32"))
    # Scales of 0 give one sign for all numbers.
    assert (np.abs(thresholds) > 1e29).tolist() == (norm.gamma.numpy() == 0).tolist()
    near = np.where(norm.gamma == 0, 0, thresholds) * np.ones((64, 1, 1, 1), "float32")
    beside = np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))
    for images in (whole, near, *beside):
        expected = norm(images).numpy() >= 0
        np.testing.assert_array_equal(rewrite.compute(images) >= 0, expected)


def test_what_turns_the_order_or_is_read_otherwise_stays() -> None:
    def read_twice(x: tf.Tensor) -> tf.Tensor:
        y = layers.BatchNormalization()(x)
        return layers.Add()([y, conv(36)(y)])

    def turned(x: tf.Tensor) -> tf.Tensor:
        return conv(36)(layers.LeakyReLU(0.0)(layers.Add()([x, conv(36)(x)])))

    def zero_one(x: tf.Tensor) -> tf.Tensor:
        return on_zero_one(lq.quantizers.DoReFa(1))(layers.BatchNormalization()(x))

    for block in (read_twice, turned, zero_one):
        assert not any("signs are read" in line for line in lower(model_of(block)).reasons)
    batch_norm = model_of(lambda x: conv()(layers.BatchNormalization()(x)), seed=1)
    assert converted(batch_norm).rewrites == []


def negative_zeros(lowered: Lowered, images: np.ndarray) -> int:
    """Return how many -0.0 the signs of a flatbuffer read, which AArch64 takes for -1."""
    flatbuffer = export_lowered(lowered)
    model, found = read_model(flatbuffer), 0
    graph = model.subgraphs[0]
    for number, operator in enumerate(operators(flatbuffer)):
        if operator.kind == "LceQuantize":
            (read,) = graph.operators[number].inputs
            values = images
            if read not in graph.inputs:
                part = extract(model, range(number), graph.inputs, [read])
                (values,) = run(part, images, "reference", **OPTIONS["reference"])
            found += int(np.sum((values == 0) & np.signbit(values)))
    expected = lowered.model(images).numpy()
    (got,) = run(flatbuffer, images, "indirect", **OPTIONS["indirect"])
    np.testing.assert_allclose(got.reshape(expected.shape), expected, atol=1e-4)
    return found


def with_zeros() -> np.ndarray:
    """Return images that hold 0.0 and -0.0."""
    images = np.random.default_rng(0).normal(size=(8, 9, 10, 36)).astype("float32")
    images[:, :3], images[:, 3:5] = 0.0, -0.0
    return images


@pytest.mark.parametrize(
    "before",
    [
        layers.ReLU(),
        lambda x: layers.Add()([layers.ReLU()(x), layers.ReLU()(layers.Conv2D(36, 1)(x))]),
        lambda x: layers.MaxPool2D(2)(layers.ReLU()(x)),
        lambda x: layers.BatchNormalization(center=False)(layers.ReLU()(x)),
        lambda x: x,
    ],
    ids=["relu", "sum", "pool", "batch norm", "image"],
)
def test_inputs_of_zero_and_one_never_become_negative_zeros(before) -> None:
    quantizer = lq.quantizers.SteHeaviside()
    model = model_of(lambda x: on_zero_one(quantizer, name="reader")(before(x)))
    assert negative_zeros(lower(model), with_zeros()) == 0


@tf.keras.utils.register_keras_serializable("tests")
class ScaledBothWays(layers.Layer):
    """Multiplies half of the channels with negative numbers."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs * np.linspace(-1, 1, inputs.shape[-1]).astype("float32")


def masked(x: tf.Tensor) -> tf.Tensor:
    return layers.Multiply()([x, layers.ReLU()(conv(36)(x))])


def negative_norm(x: tf.Tensor) -> tf.Tensor:
    negative = tf.keras.initializers.Constant(-1.0)
    return layers.BatchNormalization(center=False, gamma_initializer=negative)(layers.ReLU()(x))


@pytest.mark.parametrize(
    ("before", "added"),
    [
        (lambda x: ScaledBothWays()(layers.ReLU()(x)), 1),
        (masked, 1),
        (lambda x: layers.MaxPool2D(2)(masked(x)), 1),
        (lambda x: layers.Flatten()(masked(x)), 1),
        (lambda x: x, 1),
        (lambda x: tf.nn.relu6(x + 3.0) * x * (1 / 6), 1),
        # Behind a convolution the offset is its own.
        (lambda x: ScaledBothWays()(conv(36, activation="relu")(x)), 0),
        (negative_norm, 1),
    ],
    ids=["scaled", "mask", "pooled mask", "rows", "image", "swish", "convolution", "norm"],
)
def test_signs_can_be_kept_from_negative_zeros(before, added: int) -> None:
    def block(x: tf.Tensor) -> tf.Tensor:
        x = before(x)
        if len(x.shape) == 2:
            dense = lq.layers.QuantDense(8, name="reader", **SIGNS)(x)
            return layers.Reshape((1, 1, 8))(dense)
        return conv(36, name="reader")(x)

    inputs = tf.keras.Input((9, 10, 36))
    model = tf.keras.Model(inputs, block(inputs))
    plain = lower(model)
    guard = [index for index, call in enumerate(plain.calls) if call.name == "reader"]
    guarded = lower(model, guard=guard)
    assert negative_zeros(plain, with_zeros()) > 0
    # The image itself is the first sign's in some of these; none of it is at the reader's.
    own = sum(call.name != "reader" and call.facts.binary_inputs for call in plain.calls)
    zeros = np.sum(np.signbit(with_zeros()) & (with_zeros() == 0))
    assert negative_zeros(guarded, with_zeros()) == own * zeros
    assert any("-0.0 kept from a sign" in line for line in guarded.reasons)
    kinds = [
        [operator.kind for operator in operators(export_lowered(lowered))]
        for lowered in (plain, guarded)
    ]
    assert kinds[1].count("ADD") - kinds[0].count("ADD") == added
    assert kinds[1].count("LceBMaxPool2d") == kinds[0].count("LceBMaxPool2d")


def causal(**settings) -> lq.layers.QuantConv1D:
    return lq.layers.QuantConv1D(24, 3, **{**SIGNS, "padding": "causal", **settings})


def padded_signs(x: tf.Tensor, value: float, rows=(1, 1), **settings) -> tf.Tensor:
    paddings = [(0, 0), rows, rows, (0, 0)]
    signs = tf.pad(lq.quantizers.SteSign()(x), paddings, constant_values=value)
    return conv(input_quantizer=None, padding="valid", pad_values=0.0, **settings)(signs)


def real(layer: tf.keras.layers.Layer, pad: int = 1):
    return lambda x: layer(layers.ZeroPadding2D(pad)(x))


PADDED = {
    "causal": (lambda x: causal()(x), (20, 36)),
    "causal, dilated, scaled": (
        lambda x: causal(dilation_rate=2, kernel_quantizer="magnitude_aware_sign")(x),
        (20, 36),
    ),
    "causal, norm, causal": (
        lambda x: causal()(layers.BatchNormalization()(causal(activation="relu")(x))),
        (20, 36),
    ),
    "causal, 0 and 1": (lambda x: causal(input_quantizer=lq.quantizers.DoReFa(1))(x), (20, 36)),
    "causal, groups": (lambda x: causal(groups=2)(x), (20, 36)),
    "causal, 0 and 1 by a layer": (
        lambda x: causal(input_quantizer=None)(lq.quantizers.DoReFa(1)(x)),
        (20, 36),
    ),
    "-1": (lambda x: conv(pad_values=-1.0)(x), (9, 10, 36)),
    "-1, strides, norm": (
        lambda x: conv(pad_values=-1.0)(
            layers.BatchNormalization()(conv(pad_values=-1.0, strides=2)(x))
        ),
        (9, 10, 36),
    ),
    "-1, groups": (
        lambda x: conv(pad_values=-1.0, groups=2, name="b")(layers.BatchNormalization(name="a")(x)),
        (9, 10, 36),
    ),
    "-1 around a sign": (
        lambda x: conv(pad_values=-1.0, input_quantizer=None)(lq.quantizers.SteSign()(x)),
        (9, 10, 36),
    ),
    "small": (lambda x: conv(pad_values=0.0)(x), (2, 2, 36)),
    "small, relu, norm": (
        lambda x: layers.BatchNormalization()(conv(pad_values=0.0, activation="relu")(x)),
        (2, 3, 36),
    ),
    "a pixel": (
        lambda x: conv(pad_values=0.0)(layers.BatchNormalization()(conv(pad_values=0.0)(x))),
        (1, 1, 36),
    ),
    "a row": (lambda x: conv(pad_values=0.0)(x), (1, 9, 36)),
    "wide": (lambda x: conv(kernel_size=5, dilation_rate=2, pad_values=0.0)(x), (8, 8, 36)),
    "signs, stride": (lambda x: padded_signs(x, 1.0, strides=2), (10, 8, 36)),
    "signs": (lambda x: padded_signs(x, 1.0), (10, 8, 36)),
    "signs in zeros": (lambda x: padded_signs(x, 0.0, strides=2), (10, 8, 36)),
    "signs in -1 on one side": (lambda x: padded_signs(x, -1.0, (2, 0)), (10, 8, 36)),
    "real, stride": (real(layers.Conv2D(16, 3, 2)), (10, 8, 36)),
    "real, 7": (real(layers.Conv2D(16, 7, 2), 3), (32, 32, 3)),
    "real, stride 3": (real(layers.Conv2D(16, 3, 3)), (10, 8, 36)),
    "real, odd and even": (real(layers.Conv2D(16, 3, 2)), (9, 8, 36)),
    "real, odd": (real(layers.Conv2D(16, 3, 2)), (9, 9, 36)),
    "real, no stride": (real(layers.Conv2D(16, 3)), (10, 8, 36)),
    "depthwise": (real(layers.DepthwiseConv2D(3, 2)), (10, 8, 36)),
    "separable": (real(layers.SeparableConv2D(16, 3, 2)), (10, 8, 36)),
    "real, two readers": (
        lambda x: layers.Add()(
            [
                layers.Conv2D(8, 3, 2, name=name)(layers.ZeroPadding2D(1, name=f"pad_{name}")(x))
                for name in "ab"
            ]
        ),
        (10, 8, 36),
    ),
}


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


def exact_kinds(model: tf.keras.Model, images: np.ndarray) -> list[str]:
    """Return the operations of a flatbuffer that gives Keras's numbers on all kernels."""
    flatbuffer = export_lowered(lower(model))
    expected = model(images).numpy()
    for kernel in KERNELS:
        (got,) = run(flatbuffer, images, kernel, **OPTIONS[kernel])
        np.testing.assert_allclose(got.reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)
    return [operator.kind for operator in operators(flatbuffer)]


@pytest.mark.parametrize("quantizer", [lq.quantizers.DoReFa(1), lq.quantizers.SteHeaviside()])
def test_groups_on_zero_and_one_are_exact_at_ties(quantizer) -> None:
    model = tf.keras.Sequential(
        [tf.keras.Input((8, 8, 32)), on_zero_one(quantizer, filters=32, groups=4)]
    )
    images = np.random.default_rng(0).integers(-2, 3, (8, 8, 8, 32)).astype("float32") / 2
    assert exact_kinds(model, images).count("LceBconv2d") == 4


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


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(8, *shape)).astype("float32")


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


class PadsDropsConvolves(layers.Layer):
    """A pad, a dropout and a strided convolution in one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.convolve = layers.Dropout(0.5), layers.Conv2D(8, 3, strides=2)

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        padded = tf.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
        return self.convolve(self.drop(padded, training=training))


def between(*middle: tf.keras.layers.Layer, last: tf.keras.layers.Layer | None = None):
    return lambda: [
        layers.ZeroPadding2D(1, name="pad"),
        *middle,
        last or layers.Conv2D(8, 3, strides=2),
    ]


FOLDED = {
    "dropout": between(layers.Dropout(0.3)),
    "noise": between(layers.GaussianNoise(0.1)),
    "linear": between(layers.Activation("linear")),
    "reshape": between(layers.Reshape((18, 18, 3)), layers.Dropout(0.1)),
    "permutation": between(layers.Permute((2, 1, 3))),
    "rescaling": between(layers.Rescaling(2.0)),
    "rescaling with an offset": between(layers.Rescaling(2.0, 1.0)),
    "scale": between(layers.Lambda(lambda t: t * 3.0)),
    "scales": between(layers.Lambda(lambda t: t * tf.constant([1.0, 2.0, 3.0]))),
    "offset": between(layers.Lambda(lambda t: t + 1.0)),
    "function": lambda: [
        layers.Lambda(lambda t: tf.pad(t, [(0, 0), (1, 1), (1, 1), (0, 0)]) + 0.0),
        layers.Conv2D(8, 3, strides=2),
    ],
    "depthwise": between(layers.Dropout(0.1), last=layers.DepthwiseConv2D(3, strides=2)),
    "own layer": lambda: [PadsDropsConvolves()],
    "norm": between(layers.BatchNormalization()),
    "relu": between(layers.ReLU()),
}


@pytest.mark.parametrize("make", FOLDED.values(), ids=list(FOLDED))
def test_what_is_between_a_pad_and_a_convolution_does_not_move_the_pad(make) -> None:
    model = tf.keras.Sequential([tf.keras.Input((16, 16, 3)), *make()])
    kinds = exact_kinds(model, normal(16, 16, 3))
    assert "PAD" in kinds
    assert abs(profile(model).flatbuffer_bytes - len(export_lowered(lower(model)))) <= 512


def test_the_pad_is_named_through_what_the_converter_folds() -> None:
    model = tf.keras.Sequential([tf.keras.Input((16, 16, 3)), *FOLDED["dropout"]()])
    with pytest.raises(larq_nas.errors.ConversionError, match="`pad` pads it on both sides"):
        larq_nas.convert(model, normal(16, 16, 3), rewrite=False)


@pytest.mark.parametrize(("block", "shape"), PADDED.values(), ids=list(PADDED))
def test_every_padding_is_exact_and_predicted(block, shape) -> None:
    inputs = tf.keras.Input(shape)
    model = randomize(tf.keras.Model(inputs, block(inputs)))
    lowered, costs = lower(model), profile(model)
    flatbuffer = export_lowered(lowered)
    images = np.random.default_rng(0).normal(size=(8, *shape)).astype("float32")
    expected = model(images).numpy()
    for kernel in KERNELS:
        (got,) = run(flatbuffer, images, kernel, **OPTIONS[kernel])
        np.testing.assert_allclose(got.reshape(expected.shape), expected, atol=1e-3)
    kinds = [operator.kind for operator in operators(flatbuffer)]
    binary = [row for row in costs.layers if row.binary]
    assert kinds.count("LceBconv2d") == sum(row.groups for row in binary)
    assert costs.fallbacks == []
    assert "LceDequantize" not in kinds
    predicted = [operator.kind for operator in read_structure(model).operators]
    assert sorted(predicted) == sorted(kinds)
    assert abs(costs.flatbuffer_bytes - len(flatbuffer)) <= max(0.01 * len(flatbuffer), 512)


def test_a_padding_that_is_no_sign_is_named_alike_by_costs_and_conversion() -> None:
    model = model_of(lambda x: conv(pad_values=0.5, name="half")(x))
    (row,) = profile(model).fallbacks
    assert row.fallback == "it pads with 0.5, which is no sign; pad with 1, -1 or 0"
    with pytest.raises(larq_nas.errors.ConversionError) as caught:
        larq_nas.convert(model)
    assert f"Binary layer `half` would run in float: {row.fallback}" in str(caught.value)
