import json
from importlib import import_module

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from conftest import quick, random_architecture, randomize

import larq_nas
from larq_nas.deploy.audit import audit
from larq_nas.deploy.convert import read_images
from larq_nas.deploy.export import export_lowered
from larq_nas.deploy.flatbuffer import operators, pack_signs
from larq_nas.deploy.rewriting import Lowered, lower
from larq_nas.errors import ConversionError, InputError
from larq_nas.layers import BinaryConv2D, binary_conv, classifier, stem
from larq_nas.spaces import Bats

# `larq_nas.deploy.convert` is the function.
gate = import_module("larq_nas.deploy.convert")

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


def test_a_converted_network_is_binary_equal_and_saved(tmp_path, images: np.ndarray) -> None:
    model = randomize(random_architecture(Bats(cells=3, channels=8), 0).build((8, 8, 1), 10))
    conversion = larq_nas.convert(model, images, kernels=("default", "reference", "indirect"))
    kinds = [operator.kind for operator in operators(conversion.flatbuffer)]
    binary = [layer for layer in model.layers if isinstance(layer, BinaryConv2D)]
    assert kinds.count("LceBconv2d") == len(binary)
    assert kinds.count("CONV_2D") == kinds.count("FULLY_CONNECTED") == 1
    real = {row.layer: row.runs_as for row in conversion.audit.layers if not row.binary}
    assert real == {"stem_conv": "CONV_2D", "head_dense": "FULLY_CONNECTED"}
    assert [parity.kernel for parity in conversion.parity] == [
        "default",
        "reference",
        "indirect",
        "aarch64",
    ]
    assert all(parity.examples == 64 and parity.agreement >= 0.98 for parity in conversion.parity)
    conversion.save(tmp_path / "model.tflite")
    assert (tmp_path / "model.tflite").read_bytes() == conversion.flatbuffer
    assert json.loads(json.dumps(conversion.summary()))["bytes"] == len(conversion.flatbuffer)
    assert f"{len(binary)} of {len(binary)} binary layers run as LceBconv2d" in str(conversion)


def test_relu_and_scale_are_fused_into_the_convolution() -> None:
    conversion = larq_nas.convert(
        model_of(lambda x: binary_conv(x, 32, 3, name="a", identity=False))
    )
    assert {"RELU", "PRELU"}.isdisjoint(conversion.audit.operations)
    # Batch norm before the sign, of which positive scales leave the offset.
    assert "MUL" not in conversion.audit.operations
    assert conversion.audit.operations["ADD"] == 1


def test_packed_signs_are_those_of_the_flatbuffer() -> None:
    model = model_of(lambda x: BinaryConv2D(8, 3, name="a")(x), (8, 8, 36))
    (operator,) = [
        op for op in operators(larq_nas.convert(model).flatbuffer) if op.kind == "LceBconv2d"
    ]
    kernel = model.get_layer("a").kernel.latent_variable.numpy()
    np.testing.assert_array_equal(pack_signs(kernel), operator.filters)
    assert operator.filters.shape == (8, 3, 3, 2)


def shared_dilation(x: tf.Tensor) -> tf.Tensor:
    convs = [lq.layers.QuantConv2D(32, 3, dilation_rate=2, name=f"d{i}", **BINARY) for i in (0, 1)]
    return tf.keras.layers.Add()([conv(x) for conv in convs])


def quant_dense(x: tf.Tensor) -> tf.Tensor:
    settings = {key: BINARY[key] for key in list(BINARY)[:3]}
    dense = lq.layers.QuantDense(32, name="dense", **settings)(tf.keras.layers.Flatten()(x))
    return tf.keras.layers.Reshape((1, 1, 32))(dense)


@tf.keras.utils.register_keras_serializable("tests")
class RawSign(lq.quantizers.Quantizer):
    precision = 1

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.sign(inputs)


@pytest.mark.parametrize(
    ("block", "layer", "cause"),
    [
        (shared_dilation, "d0", "space-to-batch"),
        (quant_dense, "dense", "no binary kernel for QuantDense"),
        (
            lambda x: BinaryConv2D(8, 3, name="raw", input_quantizer=RawSign())(x),
            "raw",
            "gives another number than 1 for 0",
        ),
    ],
)
def test_a_float_fallback_is_refused_with_layer_and_cause(block, layer: str, cause: str) -> None:
    model = model_of(block)
    with pytest.raises(ConversionError, match=f"Binary layer `{layer}`.*{cause}"):
        larq_nas.convert(model, rewrite=False)
    plain = export_lowered(lower(model, rewrite=False))
    names = [row.layer for row in audit(model, plain).fallbacks]
    accepted = larq_nas.convert(model, allow_float=names, rewrite=False)
    assert [row.layer for row in accepted.audit.fallbacks] == names


def test_a_kernel_with_a_zero_is_refused() -> None:
    model = model_of(lambda x: BinaryConv2D(8, 3, name="a", kernel_quantizer=RawSign())(x))
    kernel = model.get_layer("a").kernel
    values = kernel.latent_variable.numpy()
    values[0, 0, 0, 0] = 0
    kernel.latent_variable.assign(values)
    with pytest.raises(ConversionError, match=r"`a` would run in float: .*holds zeros"):
        larq_nas.convert(model)


def test_wrong_numbers_are_refused() -> None:
    """Zero padding on an image smaller than the dilated kernel: the default kernel is wrong."""
    model = model_of(
        lambda x: BinaryConv2D(32, 5, dilation_rate=2, pad_values=0.0, name="zero_padded")(
            binary_conv(x, 32, 3, name="good")
        )
    )
    with pytest.raises(ConversionError, match="layer `zero_padded` is the first that differs"):
        larq_nas.convert(model, rewrite=False)
    reference = larq_nas.convert(model, kernels=("reference",), rewrite=False)
    assert reference.parity[0].exact == 1.0
    assert larq_nas.convert(model).parity[0].exact == 1.0


@pytest.mark.slow
def test_one_filter_off_in_one_of_many_layers_is_refused(images, monkeypatch) -> None:
    model = randomize(random_architecture(Bats(cells=3, channels=8), 1).build((8, 8, 1), 10))
    whole = gate.lower

    def broken(original: tf.keras.Model, *args, **kwargs) -> Lowered:
        copy = tf.keras.models.clone_model(original)
        copy.set_weights(original.get_weights())
        scale = copy.get_layer("cell1_pre1_scale").scale
        scale.assign(scale * np.array([3.0] + [1.0] * (scale.shape[0] - 1)))
        return whole(copy)

    monkeypatch.setattr(gate, "lower", broken)
    with pytest.raises(ConversionError, match="does not compute what Keras does"):
        larq_nas.convert(model, images)


def test_functions_and_layers_the_audit_does_not_know_are_refused() -> None:
    """A depthwise convolution, and a quantizer that is a function."""

    def signs(x: tf.Tensor) -> tf.Tensor:
        return tf.sign(x)

    def depthwise(x: tf.Tensor) -> tf.Tensor:
        settings = {"input_quantizer": "ste_sign", "depthwise_quantizer": "ste_sign"}
        return lq.layers.QuantDepthwiseConv2D(3, name="rows", **settings)(x)

    cases = {
        "`rows` would run in float: .* no binary kernel for QuantDepthwiseConv2D": depthwise,
        "`a` would run in float": lambda x: BinaryConv2D(4, 3, input_quantizer=signs, name="a")(x),
    }
    for message, block in cases.items():
        with pytest.raises(ConversionError, match=message):
            larq_nas.convert(model_of(block))


def test_a_sign_of_its_own_layer_is_seen_to_run_in_binary() -> None:
    def block(x: tf.Tensor) -> tf.Tensor:
        sign = lq.quantizers.SteSign(name="sign")(x)
        return BinaryConv2D(8, 3, input_quantizer=None, pad_values=1.0, name="a")(sign)

    rows = {row.layer: row.runs_as for row in larq_nas.convert(model_of(block)).audit.layers}
    assert rows["a"] == "LceBconv2d"


def test_a_real_model_converts_too() -> None:
    conversion = larq_nas.convert(model_of(tf.keras.layers.SeparableConv2D(8, 3, name="s")))
    assert conversion.audit.fallbacks == []
    assert all(parity.nearly_exact for parity in conversion.parity)


def test_a_layer_used_twice_needs_two_operations() -> None:
    shared = BinaryConv2D(32, 3, name="shared")
    conversion = larq_nas.convert(model_of(lambda x: shared(shared(x))))
    assert conversion.audit.operations["LceBconv2d"] == 2


def test_failures_of_converter_and_kernel_are_one_line() -> None:
    grouped = model_of(
        lambda x: lq.layers.QuantConv2D(64, 3, groups=2, name="g", **BINARY)(x), (8, 8, 64)
    )
    with pytest.raises(ConversionError, match="The default kernel cannot run the model") as caught:
        larq_nas.convert(grouped, rewrite=False)
    assert "\n" not in str(caught.value)
    larq_nas.convert(grouped, kernels=("reference", "indirect"), rewrite=False)
    strange = model_of(lambda x: tf.linalg.svd(x, compute_uv=True)[1])
    with pytest.raises(
        ConversionError, match=r"Layer `tf.linalg.svd` needs the operation"
    ) as caught:
        larq_nas.convert(strange)
    assert "\n" not in str(caught.value)


def test_outputs_that_are_not_finite_are_refused() -> None:
    model = model_of(lambda x: x)
    bias = model.layers[-1].bias
    bias.assign(bias + 3e38)
    with pytest.raises(ConversionError, match="gives NaN or Inf in Keras already"):
        larq_nas.convert(model, np.full((2, 8, 8, 32), 3e38, "float32"))
    bias.assign(bias * np.nan)
    with pytest.raises(InputError, match=f"Layer `{model.layers[-1].name}` holds NaN"):
        larq_nas.convert(model)


@pytest.mark.slow
def test_the_gate_sees_a_wrong_layer_where_rounding_changes_every_image(monkeypatch) -> None:
    """A deep network on large images, where few are exact: a scale of 1.5 is still not 1."""
    space = Bats(cells=8, channels=32, nodes=2)
    model = randomize(random_architecture(space, 0, (64, 64, 3)).build((64, 64, 3), 10))
    kernels = ("reference",)
    assert larq_nas.convert(model, examples=12, kernels=kernels).parity[0].operations > 150
    whole = gate.lower

    def broken(original: tf.keras.Model, *args, **kwargs) -> Lowered:
        copy = tf.keras.models.clone_model(original)
        copy.set_weights(original.get_weights())
        scale = copy.get_layer("cell4_pre1_scale").scale
        scale.assign(scale * 1.5)
        return whole(copy)

    monkeypatch.setattr(gate, "lower", broken)
    with pytest.raises(ConversionError, match="layer `cell4_pre1_conv` is the first that differs"):
        larq_nas.convert(model, examples=12, kernels=kernels)


@pytest.mark.parametrize(
    "space",
    quick([Bats(), Bats(cells=2, channels=36, groups=12, activation="prelu", nodes=2)]),
    ids=["default", "paper's groups"],
)
def test_deployed_and_published_widths_convert(space: Bats) -> None:
    model = randomize(random_architecture(space, 0, (32, 32, 3)).build((32, 32, 3), 10))
    conversion = larq_nas.convert(model, examples=12)
    assert conversion.audit.fallbacks == []
    assert [p.kernel for p in conversion.parity] == ["default", "reference", "aarch64"]


def test_models_and_data_that_cannot_be_converted_are_refused(images: np.ndarray) -> None:
    dynamic = tf.keras.Input((None, None, 3))
    with pytest.raises(InputError, match="static input shape"):
        larq_nas.convert(tf.keras.Model(dynamic, classifier(stem(dynamic, 4), 2)))
    half = tf.keras.Input((8, 8, 3))
    stage = tf.keras.layers.Conv2D(4, 3, dtype="mixed_float16", name="half")
    with pytest.raises(InputError, match="layer `half` computes in float16"):
        larq_nas.convert(tf.keras.Model(half, classifier(stage(half), 2)))
    two = tf.keras.layers.Add()([half, other := tf.keras.Input((8, 8, 3))])
    with pytest.raises(InputError, match="an array for each of the 2 inputs, but got 1"):
        larq_nas.convert(tf.keras.Model([half, other], two), images)
    with pytest.raises(InputError, match=r"must have an input shape, but `.*` has none"):
        larq_nas.convert(tf.keras.Sequential([tf.keras.layers.Dense(2)]))
    with pytest.raises(InputError, match=r"must be a tf.keras.Model"):
        larq_nas.convert("model.keras")
    model = model_of(lambda x: x)
    with pytest.raises(
        InputError, match=r"images of shape \(8, 8, 32\), but got 64 of shape \(8, 8, 1\)"
    ):
        larq_nas.convert(model, images)
    with pytest.raises(InputError, match="Unknown kernel `indirekt`; did you mean `indirect`"):
        larq_nas.convert(model, kernels=("indirekt",))
    for wrong in ({"kernels": "default"}, {"kernels": ()}, {"allow_float": "a"}):
        with pytest.raises(InputError, match="must be lists of names"):
            larq_nas.convert(model, **wrong)
    with pytest.raises(InputError, match="Unknown layer in `allow_float`"):
        larq_nas.convert(model, allow_float=["nothing"])


class Noise(tf.keras.layers.Layer):
    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x + tf.random.normal(tf.shape(x))


def test_inputs_are_found_by_name() -> None:
    """Keras gives a dictionary to inputs by their names, in whatever order these were listed."""
    second, first = tf.keras.Input((8, 8, 3), name="z"), tf.keras.Input((8, 8, 3), name="a")
    convs = [tf.keras.layers.Conv2D(8, 3)(x) for x in (second, 9.0 * first)]
    flat = tf.keras.layers.Flatten()(tf.keras.layers.Subtract()(convs))
    model = tf.keras.Model([second, first], tf.keras.layers.Dense(3)(flat))
    generator = np.random.default_rng(0)
    named = {name: generator.normal(size=(8, 8, 8, 3)).astype("float32") for name in "za"}
    data = tf.data.Dataset.from_tensor_slices((named, np.zeros(8))).batch(4)
    given, _ = read_images(data, model, 8)
    for one, other in zip(given, (named["z"], named["a"]), strict=True):
        np.testing.assert_array_equal(one, other)
    larq_nas.convert(model, data)
    larq_nas.convert(model, named)
    with pytest.raises(InputError, match="must hold `z`, `a`, but holds `z`, `b`"):
        larq_nas.convert(model, {"z": named["z"], "b": named["a"]})


def test_images_are_taken_as_a_search_takes_them() -> None:
    inputs = tf.keras.Input((8, 6, 1), name="image")
    model = tf.keras.Model(inputs, tf.keras.layers.Flatten()(inputs))
    images = np.random.default_rng(0).normal(size=(12, 8, 6)).astype("float32")
    labels = np.arange(12) % 3
    of_slices = tf.data.Dataset.from_tensor_slices
    for data, known in (
        (images, False),
        (images.tolist(), False),
        (tf.constant(images), False),
        ((images, labels), True),
        ([images[..., None], labels.tolist()], True),
        ((images, np.eye(3)[labels], np.ones(12)), True),
        (of_slices(images).batch(4), False),
        (of_slices((images, labels)).batch(4), True),
        ({"image": images, "label": labels}, True),
        (of_slices({"image": images, "label": labels}).batch(4), True),
    ):
        (found,), given = read_images(data, model, 8)
        np.testing.assert_array_equal(found, images[:8, ..., None])
        assert (given is not None) == known
        assert given is None or len(given) == 8
    for wrong in (images[0], images[:, :7], of_slices((images, labels)), [images, images]):
        with pytest.raises(InputError, match=r"`data` must"):
            read_images(wrong, model, 8)


def test_what_is_no_function_of_an_image_is_refused_in_one_line() -> None:
    inputs = tf.keras.Input((8, 8, 3))
    with pytest.raises(ConversionError, match="`noise` is the first that differs"):
        larq_nas.convert(tf.keras.Model(inputs, classifier(Noise(name="noise")(inputs), 3)))
    with pytest.raises(InputError, match="must have the images as its first axis"):
        larq_nas.convert(tf.keras.Model(inputs, tf.reduce_mean(inputs)))
    text = tf.keras.Input((1,), dtype="string")
    lookup = tf.keras.layers.StringLookup(vocabulary=["a"], output_mode="one_hot")(text)
    with pytest.raises(InputError, match="must hold numbers, but is of type string"):
        larq_nas.convert(tf.keras.Model(text, lookup))


def test_settings_that_would_be_ignored_are_refused(images: np.ndarray) -> None:
    model = model_of(lambda x: x, (8, 8, 1))
    with pytest.raises(InputError, match="give `input_type` as well"):
        larq_nas.convert(model, images, input_range=(0, 1))
    with pytest.raises(InputError, match="`rewrite` must be True or False"):
        larq_nas.convert(model, images, rewrite="no")
    pixels = tf.keras.Input((8, 8, 1), dtype="uint8")
    reading = tf.keras.Model(pixels, classifier(tf.cast(pixels, "float32"), 3))
    with pytest.raises(InputError, match="must hold numbers of type uint8"):
        larq_nas.convert(reading, images)
