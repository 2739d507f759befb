"""What a network as a whole hides: each operation is compared on the inputs it has in Keras."""

import dataclasses
from importlib import import_module

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from conftest import quick, randomize
from tensorflow.lite.python import schema_py_generated as schema

import larq_nas
from larq_nas.deploy.equivalence import Equivalence, compare_operations
from larq_nas.deploy.export import export, export_lowered, run
from larq_nas.deploy.flatbuffer import extract, is_constant, operators, read_model
from larq_nas.deploy.operations import KERNELS, Operations
from larq_nas.deploy.parity import InKeras
from larq_nas.deploy.recording import record
from larq_nas.deploy.rewriting import Lowered, lower
from larq_nas.deploy.rewriting.forms import Rewrite
from larq_nas.errors import ConversionError, InputError
from larq_nas.layers import classifier

# `larq_nas.deploy.convert` is the function.
gate = import_module("larq_nas.deploy.convert")

layers = tf.keras.layers
SIGNS = {
    "input_quantizer": "ste_sign",
    "kernel_quantizer": "ste_sign",
    "kernel_constraint": "weight_clip",
    "use_bias": False,
}


def chaotic() -> tf.keras.Model:
    """Twelve layers, fresh: whole sums of signs tie, and one sign changes all that follows."""
    x = inputs = tf.keras.Input((16, 16, 8))
    for number in range(12):
        x = lq.layers.QuantConv2D(16, 3, padding="same", name=f"conv{number}", **SIGNS)(x)
        x = layers.BatchNormalization()(x)
    return tf.keras.Model(inputs, classifier(x, 3))


def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(8, 16, 16, 8)).astype("float32")


def compared(model: tf.keras.Model, flatbuffer: bytes, kernel: str) -> Equivalence:
    """Compare the operations of a flatbuffer with the layers of a model, on 8 images."""
    given = [images()]
    whole = run(flatbuffer, given, kernel, **KERNELS[kernel]) if kernel in KERNELS else None
    return compare_operations(record(model, given), Operations(flatbuffer, kernel), given, whole)


@pytest.mark.parametrize("kernel", [*KERNELS, "aarch64"])
def test_every_operation_of_a_chaotic_network_agrees(kernel: str) -> None:
    model = chaotic()
    flatbuffer = export(model)
    found = compared(model, flatbuffer, kernel)
    assert found.holds
    assert found.composed
    assert found.operations == len(operators(flatbuffer))


def test_a_wrong_layer_in_the_middle_is_named() -> None:
    model = chaotic()
    lowered = lower(model)
    index = next(i for i, call in enumerate(lowered.calls) if call.name == "conv6")
    layer = model.get_layer("conv6")
    wrong = Rewrite(index, lowered.calls[index].inputs, lambda x: layer(-x))
    changed = dataclasses.replace(lowered, rewrites={**lowered.rewrites, index: wrong})
    found = compared(model, export_lowered(changed), "indirect")
    assert not found.holds
    assert found.differing[0].name == "conv6"


@pytest.mark.parametrize("place", range(0, 120, 10))
def test_one_wrong_constant_is_found(place: int) -> None:
    """The first number of a constant with the other sign, or one bit of a kernel."""
    model = randomize(chaotic())
    flatbuffer = export(model)
    tables = read_model(flatbuffer)
    read = [i for op in tables.subgraphs[0].operators for i in op.inputs if is_constant(tables, i)]
    tensor = tables.subgraphs[0].tensors[read[place % len(read)]]
    data = np.array(tables.buffers[tensor.buffer].data)
    if tensor.type == schema.TensorType.FLOAT32:
        numbers = data.view("<f4")
        numbers[0] *= -1
    else:
        data[0] ^= 1
    tables.buffers[tensor.buffer].data = data
    whole = range(len(tables.subgraphs[0].operators))
    changed = extract(tables, whole, tables.subgraphs[0].inputs, tables.subgraphs[0].outputs)
    recording = record(model, [images()])
    found = compare_operations(recording, Alone(changed, "reference"), [images()])
    assert found.differing


class Alone(Operations):
    """Operations of a flatbuffer without signatures."""

    inputs = property(lambda self: list(self.model.subgraphs[0].inputs))
    outputs = property(lambda self: list(self.model.subgraphs[0].outputs))


def test_a_pad_that_fuses_into_a_wrong_convolution_is_found() -> None:
    """The layers behind leave hardly an image exact, and pieces must begin before the pad."""
    stack = [layers.ZeroPadding2D(3), layers.Conv2D(32, 7, strides=2, name="stem")]
    for _ in range(8):
        stack += [
            layers.BatchNormalization(),
            lq.layers.QuantConv2D(32, 3, padding="same", **SIGNS),
        ]
    inputs = x = tf.keras.Input((32, 32, 3))
    for layer in stack:
        x = layer(x)
    model = randomize(tf.keras.Model(inputs, classifier(x, 4)))
    pictures = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype("float32")
    found = compare_operations(
        record(model, [pictures]), Operations(export_plain(model), "reference"), [pictures]
    )
    assert "stem" in [layer.name for layer in found.differing]


def export_plain(model: tf.keras.Model) -> bytes:
    return export_lowered(lower(model, rewrite=False))


def test_a_small_output_beside_large_ones_is_judged_by_its_own_spread() -> None:
    model = chaotic()
    scale = tf.constant([1.0, 1e4, 1.0])
    large = tf.keras.Model(model.inputs, model.outputs[0] * scale)
    wrong = tf.keras.Model(model.inputs, model.outputs[0] * scale * [1.02, 1.0, 1.0])
    assert compared(large, export(large), "indirect").holds
    assert not compared(large, export(wrong), "indirect").holds


def residual(blocks: int, seed: int) -> tf.keras.Model:
    """QuickNet-like blocks of 64 channels with an offset before each sign."""
    tf.keras.utils.set_random_seed(seed)
    inputs = tf.keras.Input((16, 16, 3))
    x = layers.BatchNormalization()(layers.Conv2D(64, 3, padding="same")(inputs))
    for number in range(blocks):
        y = x + tf.constant(np.random.default_rng(number).normal(size=64).astype("float32"))
        settings = {**SIGNS, "padding": "same", "pad_values": 1.0, "name": f"block{number}"}
        y = lq.layers.QuantConv2D(64, 3, activation="relu", **settings)(y)
        x = layers.Add()([x, layers.BatchNormalization()(y)])
    return randomize(tf.keras.Model(inputs, classifier(x, 10)), seed)


@pytest.mark.parametrize(
    ("blocks", "seed"), quick([(b, s) for b in (6, 9, 12) for s in (0, 1, 2)], 8)
)
def test_chaos_alone_refuses_no_residual_network(blocks: int, seed: int) -> None:
    conversion = larq_nas.convert(residual(blocks, seed))
    assert conversion.parity[0].operations > 3 * blocks
    if not all(parity.nearly_exact for parity in conversion.parity):
        assert any("That is rounding, not an error" in x for x in conversion.warnings)


def test_variances_near_0_prove_nothing(monkeypatch) -> None:
    """Jitter must not take a variance below 0, where all outputs are NaN and nothing differs."""
    model = residual(6, 0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.epsilon = 1e-12
            layer.moving_variance.assign(np.full(64, 1e-9, "float32"))
    pictures = [np.random.default_rng(0).normal(size=(8, 16, 16, 3)).astype("float32")]
    jittered = list(InKeras(model).jittered(pictures))
    assert all(np.isfinite(output).all() for outputs in jittered for output in outputs)
    larq_nas.convert(model, pictures[0])
    whole = gate.lower

    def broken(original: tf.keras.Model, *args, **kwargs) -> Lowered:
        copy = tf.keras.models.clone_model(original)
        copy.set_weights(original.get_weights())
        kernel = copy.get_layer("block3").kernel.latent_variable
        kernel.assign(kernel * np.where(np.arange(64) == 5, -1.0, 1.0))
        return whole(copy, *args, **kwargs)

    monkeypatch.setattr(gate, "lower", broken)
    with pytest.raises(ConversionError, match="layer `block3` is the first that differs"):
        larq_nas.convert(model, pictures[0])


def whole_numbers(channels: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.integers(-2, 3, (16, 8, 8, channels)).astype("float32")


def at_ties(channels: int, quantizer: object) -> tf.keras.Model:
    """A binary layer that reads sums of signs, many of them exactly 0."""
    tf.keras.utils.set_random_seed(0)
    inputs = tf.keras.Input((8, 8, channels))
    x = lq.layers.QuantConv2D(32, 1, name="sums", **SIGNS)(inputs)
    settings = {**SIGNS, "input_quantizer": quantizer}
    return tf.keras.Model(inputs, layers.Flatten()(lq.layers.QuantConv2D(9, 3, **settings)(x)))


@pytest.mark.parametrize("channels", [4, 32])
def test_a_sum_that_is_0_excuses_no_sign(channels: int, monkeypatch) -> None:
    """Sums of an even number of signs are even: of -1 only the sign of 0 is another."""
    model = at_ties(channels, "ste_sign")
    other = at_ties(channels, lambda x: lq.math.sign(x - 1.0))
    other.set_weights(model.get_weights())
    assert larq_nas.convert(model, whole_numbers(channels)).parity[0].exact == 1.0
    monkeypatch.setattr(gate, "export_lowered", lambda lowered: export(other))
    with pytest.raises(ConversionError, match="`sums` is the first that differs"):
        larq_nas.convert(model, whole_numbers(channels))


@pytest.mark.parametrize("offset", [1.0, 0.5, 4.0])
def test_quantizers_with_an_offset_convert_on_sums_and_ties(offset: float) -> None:
    model = at_ties(32, lambda x: lq.math.sign(x - offset))
    assert larq_nas.convert(model, whole_numbers(32)).parity[0].exact == 1.0


def test_groups_of_zero_and_one_convert_at_ties() -> None:
    inputs = tf.keras.Input((8, 8, 32))
    settings = {**SIGNS, "input_quantizer": lq.quantizers.DoReFa(1), "padding": "same"}
    x = lq.layers.QuantConv2D(32, 3, groups=4, pad_values=0.0, **settings)(inputs)
    model = tf.keras.Model(inputs, layers.Flatten()(x))
    assert larq_nas.convert(model, 0.5 * whole_numbers(32)).parity[0].exact == 1.0


def test_whole_numbers_inside_are_no_packed_signs() -> None:
    inputs = tf.keras.Input((8, 8, 3))
    x = layers.Conv2D(32, 3)(inputs)
    x = layers.Lambda(lambda x: tf.cast(tf.cast(2 * x, tf.int32), tf.float32))(x)
    model = randomize(tf.keras.Model(inputs, classifier(layers.Conv2D(8, 3)(x), 3)))
    assert larq_nas.convert(model).parity[0].operations > 4


def test_a_wrong_kernel_in_the_middle_is_refused_by_the_gate() -> None:
    """Zero padding around 2x2 pixels, behind layers that leave no image exact."""
    x = inputs = tf.keras.Input((2, 2, 16))
    for number in range(8):
        zeros = 0.0 if number == 4 else 1.0
        conv = lq.layers.QuantConv2D(
            16, 3, padding="same", pad_values=zeros, name=f"conv{number}", **SIGNS
        )
        x = layers.BatchNormalization()(conv(x))
    model = tf.keras.Model(inputs, classifier(x, 3))
    with pytest.raises(ConversionError, match=r"`conv4`.* smaller than its kernel"):
        larq_nas.convert(model, rewrite=False)


@pytest.mark.parametrize("quantizer", ["ste_sign", "magnitude_aware_sign"])
def test_a_channel_that_never_varies_is_off_by_what_float32_loses(quantizer: str) -> None:
    """Behind a ReLU every sign is +1, and a batch norm multiplies by hundreds what is left of 0."""
    inputs = tf.keras.Input((16, 16, 8))
    x = layers.ReLU()(layers.Conv2D(64, 3)(inputs))
    settings = {**SIGNS, "padding": "valid", "kernel_quantizer": quantizer}
    x = lq.layers.QuantConv2D(64, 3, name="constant", **settings)(x)
    norm = layers.BatchNormalization(epsilon=1e-5)
    model = randomize(tf.keras.Model(inputs, classifier(norm(x), 3)))
    assert norm.moving_variance.numpy().max() < 1e-6
    conversion = larq_nas.convert(model, images())
    assert any("`constant` gives one output for every image" in w for w in conversion.warnings)
    # And by no more than that.
    gamma, beta, mean, variance = norm.get_weights()
    norm.set_weights([gamma, beta + 0.1, mean, variance])
    assert not compared(model, conversion.flatbuffer, "reference").holds


def test_an_output_of_large_numbers_hides_no_other() -> None:
    inputs = tf.keras.Input((2, 2, 32))
    x = lq.layers.QuantConv2D(8, 3, padding="same", pad_values=0.0, name="zeros", **SIGNS)(inputs)
    model = tf.keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    model.layers[-1].bias.assign([0.0, 0.0, 1e6])
    with pytest.raises(ConversionError, match="`zeros`"):
        larq_nas.convert(model, rewrite=False)


def test_quantizers_that_are_functions_can_be_judged() -> None:
    """No clone can be made of such a model, and its signs may be at another place than 0."""
    x = inputs = tf.keras.Input((8, 8, 8))
    for _ in range(2):
        x = lq.layers.QuantConv2D(
            8,
            3,
            dilation_rate=2,
            padding="same",
            pad_values=1.0,
            **{**SIGNS, "input_quantizer": lambda x: lq.math.sign(x + 0.25)},
        )(x)
        x = layers.BatchNormalization()(x)
    model = randomize(tf.keras.Model(inputs, classifier(x, 3)))
    weights = [weight.copy() for weight in model.get_weights()]
    try:
        larq_nas.convert(model)
    except ConversionError as error:
        assert "would run in float" in str(error)  # noqa: PT017 - either is right
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("between", ["nothing", "pool"])
def test_binary_weights_on_zero_one_inputs_of_another_layer_are_audited(between: str) -> None:
    inputs = tf.keras.Input((8, 8, 8))
    x = lq.quantizers.DoReFa(1)(inputs)
    x = layers.MaxPool2D()(x) if between == "pool" else x
    pads = 0.0 if between == "pool" else 1.0
    settings = {**SIGNS, "input_quantizer": None, "padding": "same", "pad_values": pads}
    x = lq.layers.QuantConv2D(8, 3, name="hidden", **settings)(x)
    model = tf.keras.Model(inputs, classifier(x, 3))
    with pytest.raises(ConversionError, match="Binary layer `hidden` would run in float"):
        larq_nas.convert(model)


@pytest.mark.parametrize(
    ("activation", "groups"), [("softmax", 2), (layers.PReLU(shared_axes=[1, 2]), 2)]
)
def test_activations_of_all_channels_stay_behind_the_groups(activation, groups: int) -> None:
    inputs = tf.keras.Input((8, 8, 8))
    conv = larq_nas.layers.BinaryConv2D(8, 3, groups=groups, activation=activation)
    model = tf.keras.Model(inputs, classifier(conv(inputs), 3))
    assert larq_nas.convert(model).audit.operations["LceBconv2d"] == groups


def test_groups_of_rows_are_measured() -> None:
    inputs = tf.keras.Input((16, 32))
    x = lq.layers.QuantConv1D(8, 3, groups=2, padding="valid", **SIGNS)(inputs)
    model = tf.keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    data = np.random.default_rng(0).normal(size=(8, 16, 32)).astype("float32")
    conversion = larq_nas.convert(model, data, kernels=("reference", "indirect"))
    assert conversion.audit.fallbacks == []


@pytest.mark.parametrize("data", [([1], [2]), "images", 3, [[1.0], [2.0, 3.0]]])
def test_data_that_is_none_is_refused_in_one_line(data) -> None:
    inputs = tf.keras.Input((8, 8, 8))
    model = tf.keras.Model(inputs, classifier(inputs, 3))
    with pytest.raises(InputError, match="`data` must be an array of images"):
        larq_nas.convert(model, data)
    with pytest.raises(InputError, match="`data` must be finite"):
        larq_nas.convert(model, np.full((2, 8, 8, 8), np.nan))
    with pytest.raises(InputError, match="must be lists of names"):
        larq_nas.convert(model, kernels=5)


@pytest.mark.parametrize("widths", [(16, 16), (4, 28)])
def test_signs_of_more_channels_are_not_those_of_the_first(widths: tuple[int, int]) -> None:
    """A word of 32 signs holds those of a concatenation, of which one part equals its first."""
    layers = tf.keras.layers
    images = tf.keras.Input((8, 8, 8))
    one, other = (layers.Conv2D(width, 3, padding="same")(images) for width in widths)
    x = layers.Concatenate()([layers.BatchNormalization(name="norm")(one), other])
    x = lq.layers.QuantConv2D(
        16,
        3,
        padding="same",
        pad_values=1,
        input_quantizer="ste_sign",
        kernel_quantizer="ste_sign",
        use_bias=False,
    )(x)
    conversion = larq_nas.convert(randomize(tf.keras.Model(images, x)))
    assert conversion.audit.fallbacks == []
