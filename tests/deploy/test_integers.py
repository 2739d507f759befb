"""Integer inputs and outputs, run by the engine's own interpreter."""

import json

import numpy as np
import pytest
import tensorflow as tf
from conftest import randomize
from larq_compute_engine import testing

import larq_nas
from larq_nas.deploy.conversion import Conversion, summarize
from larq_nas.deploy.export import run
from larq_nas.deploy.flatbuffer import input_names, operators, output_names
from larq_nas.deploy.integers import in_integers
from larq_nas.errors import ConversionError, InputError
from larq_nas.layers import binary_conv, classifier, stem

Interpreter = testing.Interpreter
PIXELS = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 3)).astype("uint8")
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
# How people scale pixels, and what 0 and 255 become.
SCALINGS = {
    "whole": lambda q: q,
    "unit": lambda q: q / 255.0,
    "signed": lambda q: q / 127.5 - 1.0,
    "signed_128": lambda q: (q - 128.0) / 128.0,
    "by_channel": lambda q: (q / 255.0 - MEAN) / DEVIATION,
}


@pytest.fixture(scope="module")
def model() -> tf.keras.Model:
    inputs = tf.keras.Input((8, 8, 3))
    x = binary_conv(stem(inputs, 32), 32, 3, name="a")
    return randomize(tf.keras.Model(inputs, tf.keras.layers.Softmax()(classifier(x, 4))))


def scaled(name: str) -> np.ndarray:
    return SCALINGS[name](PIXELS.astype("float32")).astype("float32")


def converted(model: tf.keras.Model, images: np.ndarray, **options) -> Conversion:
    ranges = {key: options.pop(key) for key in list(options) if key.endswith(("_type", "_range"))}
    conversion = larq_nas.convert(model, images, **options)
    return in_integers(conversion, [images], ("default", "reference"), **ranges)


@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_pixels_are_read_as_the_network_was_trained(model, name: str, kind: str) -> None:
    images = scaled(name)
    before = larq_nas.convert(model, images)
    after = in_integers(before, [images], ("default",), input_type=kind)
    interpreter = Interpreter(after.flatbuffer)
    assert [np.dtype(dtype) for dtype in interpreter.input_types] == [np.dtype(kind)]
    given = PIXELS if kind == "uint8" else (PIXELS.astype("int16") - 128).astype("int8")
    expected = Interpreter(before.flatbuffer).predict(images)
    differences = np.abs(interpreter.predict(given) - expected).max(axis=1)
    # Some other rounding of a number may turn a sign.
    assert np.mean(differences <= 1e-5) >= 0.9
    (tensor,) = after.integers.inputs
    assert np.array_equal(tensor.quantize(images), given)
    np.testing.assert_allclose(tensor.dequantize(given), images, atol=1e-6 * np.abs(images).max())


def test_what_0_and_255_stand_for_is_told(model) -> None:
    lines = {
        "whole": "input `image` is uint8: 0 is 0, 255 is 255, scale 1, zero point 0 (",
        "unit": "input `image` is uint8: 0 is 0, 255 is 1, scale 0.003921569, zero point 0 (",
        "signed": "input `image` is uint8: 0 is -1, 255 is 1, scale 0.007843137, zero point 128, "
        "then plus 0.00392157 (",
        "by_channel": "input `image` is uint8: 0 is [-2.1179, -2.03571, -1.80444], 255 is "
        "[2.24891, 2.42857, 2.64], scale 1, zero point 0, then times [",
    }
    for name, line in lines.items():
        conversion = converted(model, scaled(name), input_type="uint8")
        assert line in str(conversion)
        assert str(conversion) == summarize(json.loads(json.dumps(conversion.summary())))


@pytest.mark.parametrize(("kind", "first"), [("uint8", 0), ("int8", -128)])
def test_probabilities_are_given_in_steps_of_1_in_256(model, kind: str, first: int) -> None:
    conversion = converted(model, scaled("unit"), input_type=kind, output_type=kind)
    interpreter = Interpreter(conversion.flatbuffer)
    assert (interpreter.output_scales, interpreter.output_zero_points) == ([1 / 256], [first])
    (tensor,) = conversion.integers.outputs
    assert (tensor.scale, tensor.zero_point) == (1 / 256, first)
    given = (PIXELS.astype("int16") + first).astype(kind)
    probabilities = (interpreter.predict(given).astype("float32") - first) / 256
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=4 / 256)
    assert conversion.integers.agreement >= 0.95
    assert conversion.integers.mean <= 0.05


def test_logits_have_the_range_seen_and_a_margin() -> None:
    inputs = tf.keras.Input((8, 8, 3))
    x = binary_conv(stem(inputs, 32), 32, 3, name="a")
    model = randomize(tf.keras.Model(inputs, classifier(x, 4)))
    images = scaled("unit")
    conversion = converted(model, images, output_type="uint8")
    assert not conversion.integers.inputs
    seen = Interpreter(larq_nas.convert(model, images).flatbuffer).predict(images)
    low, high = (float(end) for end in conversion.integers.outputs[0].ends)
    assert low <= min(seen.min(), 0.0)
    assert high > seen.max()
    assert high - low <= 1.25 * (max(seen.max(), 0.0) - min(seen.min(), 0.0))
    given = Interpreter(conversion.flatbuffer).predict(images)
    step = conversion.integers.outputs[0].scale
    restored = conversion.integers.outputs[0].dequantize(given)
    np.testing.assert_allclose(restored, seen, atol=0.51 * step)


def kinds(flatbuffer: bytes) -> list[str]:
    return [op.kind for op in operators(flatbuffer)]


@pytest.mark.parametrize(("kind", "ends"), [("uint8", ("QUANTIZE",) * 2), ("int8", ())])
def test_a_network_in_int8_reads_whole_numbers_themselves(model, kind: str, ends) -> None:
    """No float stands between: uint8 becomes int8 by its zero point alone."""
    images = scaled("unit")
    plain = larq_nas.convert(model, images, int8="ends")
    conversion = in_integers(plain, [images], ("default",), input_type=kind, output_type=kind)
    between = [op for op in kinds(conversion.flatbuffer) if "QUANTIZE" in op]
    # A float sum stands in the middle of the network.
    assert between.count("DEQUANTIZE") == kinds(plain.flatbuffer).count("DEQUANTIZE") - 1
    assert kinds(conversion.flatbuffer)[0] == ("QUANTIZE" if ends else "CONV_2D")
    assert kinds(conversion.flatbuffer)[-1] == ("QUANTIZE" if ends else "SOFTMAX")
    assert conversion.int8.bytes_after == len(conversion.flatbuffer)
    assert conversion.audit.operations["CONV_2D"] == 1


def test_a_network_in_int8_of_other_steps_is_read_through_float(model) -> None:
    """Images from -1 to 1 have no step at 0, and a network in int8 has one."""
    images = scaled("signed")
    conversion = converted(model, images, int8="ends", input_type="uint8")
    assert kinds(conversion.flatbuffer)[:4] == ["DEQUANTIZE", "ADD", "QUANTIZE", "CONV_2D"]


def test_names_stay_and_shapes_do(model) -> None:
    images = scaled("signed")
    before = larq_nas.convert(model, images)
    after = in_integers(before, [images], ("default",), input_type="int8", output_type="uint8")
    assert input_names(after.flatbuffer) == input_names(before.flatbuffer) == ["image"]
    assert output_names(after.flatbuffer) == output_names(before.flatbuffer)
    interpreter = Interpreter(after.flatbuffer)
    assert [tuple(shape) for shape in interpreter.input_shapes] == [(1, 8, 8, 3)]
    lite = tf.lite.Interpreter(
        model_content=in_integers(dense(), [vectors()], ("default",), input_type="uint8").flatbuffer
    )
    signature = lite.get_signature_runner()
    assert signature.get_input_details()["image"]["dtype"] == np.uint8


def vectors() -> np.ndarray:
    return PIXELS.reshape(-1, 3).astype("float32")


def dense() -> Conversion:
    """A network without binary layers, which TensorFlow's own interpreter runs too."""
    inputs = tf.keras.Input((3,))
    model = randomize(tf.keras.Model(inputs, tf.keras.layers.Dense(2)(inputs)))
    return larq_nas.convert(model, vectors())


def test_resized_images_are_taken_for_what_they_nearly_fill(model) -> None:
    images = tf.image.resize(tf.image.resize(PIXELS, (16, 16)), (8, 8)).numpy()
    images[0, 0, 0], images[0, 0, 1] = 0.0, 255.0
    conversion = converted(model, images, input_type="uint8")
    assert "0 is 0, 255 is 255" in str(conversion)
    assert "taken for 0 to 255, which the images nearly fill" in str(conversion)


def test_a_range_that_is_told_is_used(model) -> None:
    images = scaled("unit") * 0.3
    conversion = converted(model, images, input_type="uint8", input_range=(0.0, 0.5))
    assert conversion.integers.inputs[0].scale == pytest.approx(0.5 / 255)
    assert "(as given)" in str(conversion)
    cut = converted(model, images, input_type="uint8", input_range=(0.0, 0.1))
    assert "% of the numbers compared lie outside and are cut off" in str(cut)
    each = converted(model, images, input_type="uint8", input_range=(0.0, [0.3, 0.4, 0.5]))
    assert each.integers.inputs[0].factor == pytest.approx([0.3 / 255, 0.4 / 255, 0.5 / 255])


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (np.random.default_rng(1).standard_normal(PIXELS.shape), {}, "which is no usual scale"),
        ((np.clip(PIXELS, 3, 200) / 255.0 - MEAN) / DEVIATION, {}, "which is no usual scale"),
        (PIXELS % 2, {}, "may be 0 to 255 as .0.0, 255.0. or 0 to 255 as .0.0, 1.0."),
        (np.zeros(PIXELS.shape), {}, "which is no usual scale"),
        (PIXELS, {"input_range": (1.0, 0.0)}, "must be what the smallest and the largest"),
        (PIXELS, {"input_range": 255}, "must be what the smallest and the largest"),
        (PIXELS, {"input_range": (0.0, [1.0, 2.0])}, "one for each of 3 channels"),
        (PIXELS, {"input_range": (0.0, float("nan"))}, "must be what the smallest"),
    ],
)
def test_whole_numbers_of_unknown_meaning_are_refused(model, images, options, message) -> None:
    conversion = larq_nas.convert(model, scaled("unit"))
    with pytest.raises(InputError, match=message):
        in_integers(
            conversion, [images.astype("float32")], ("default",), input_type="uint8", **options
        )


def test_an_unknown_type_is_refused(model) -> None:
    with pytest.raises(InputError, match=r"Unknown input_type `uint16`; did you mean `uint8`"):
        larq_nas.convert(model, scaled("unit"), input_type="uint16")


@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_another_scale_in_the_flatbuffer_is_refused(model, monkeypatch, side: str) -> None:
    import dataclasses

    from larq_nas.deploy import integers

    whole = integers.with_integers

    def wrong(flatbuffer, inputs, outputs) -> bytes:
        tensors = {"inputs": inputs, "outputs": outputs}
        tensors[side] = [dataclasses.replace(t, scale=1.1 * t.scale) for t in tensors[side]]
        return whole(flatbuffer, **tensors)

    monkeypatch.setattr(integers, "with_integers", wrong)
    with pytest.raises(ConversionError, match=r"(reads other numbers|gives another)"):
        converted(model, scaled("unit"), input_type="uint8", output_type="uint8")


def several() -> tuple[tf.keras.Model, list[np.ndarray]]:
    """Two images and a vector in, classes and a number out, in no order of their sizes."""
    one, other = tf.keras.Input((8, 8, 3), name="z"), tf.keras.Input((8, 8, 3), name="a")
    numbers = tf.keras.Input((5,), name="numbers")
    x = binary_conv(stem(tf.keras.layers.Add()([one, 2.0 * other]), 32), 32, 3, name="c")
    x = tf.keras.layers.GlobalAveragePooling2D()(x)
    x = tf.keras.layers.Concatenate()([x, tf.keras.layers.Dense(3)(numbers)])
    outputs = [
        tf.keras.layers.Dense(1, name="number")(x),
        tf.keras.layers.Dense(4, activation="softmax", name="classes")(x),
    ]
    model = tf.keras.Model([one, other, numbers], outputs)
    generator = np.random.default_rng(3)
    for weight in model.weights:
        if "kernel" in weight.name:
            weight.assign(generator.normal(size=weight.shape) / np.sqrt(weight.shape[-2]))
    vectors = generator.uniform(-2, 3, (48, 5)).astype("float32")
    return model, [scaled("unit"), scaled("signed")[::-1].copy(), vectors]


def test_several_inputs_and_outputs_each_have_their_own_meaning() -> None:
    model, images = several()
    before = larq_nas.convert(model, images)
    ranges = [None, None, (-2.0, 3.0)]
    options = {"input_type": "uint8", "output_type": "int8", "input_range": ranges}
    after = in_integers(before, images, ("default", "reference"), **options)
    assert [tensor.name for tensor in after.integers.inputs] == input_names_sorted(before)
    ends = [tuple(map(float, tensor.ends)) for tensor in after.integers.inputs]
    assert ends == [pytest.approx(e, abs=1e-6) for e in ((0.0, 1.0), (-1.0, 1.0), (-2.0, 3.0))]
    number, classes = after.integers.outputs
    assert (classes.scale, classes.zero_point) == (1 / 256, -128)
    assert number.scale != classes.scale
    whole = [t.quantize(x) for t, x in zip(after.integers.inputs, images, strict=True)]
    got = run(after.flatbuffer, whole, "default")
    expected = [output.numpy() for output in model(images)]
    assert np.median(np.abs(number.dequantize(got[0]) - expected[0])) <= 2 * number.scale
    assert np.median(np.abs(classes.dequantize(got[1]) - expected[1])) <= 2 / 256
    with pytest.raises(InputError, match=r"a pair .or None. for each of 3 inputs"):
        in_integers(before, images, ("default",), input_type="uint8", input_range=(0.0, 1.0))


def input_names_sorted(conversion: Conversion) -> list[str]:
    return sorted(input_names(conversion.flatbuffer))


def test_int8_and_whole_numbers_with_several_inputs_and_outputs() -> None:
    model, images = several()
    plain = larq_nas.convert(model, images, int8="all")
    ranges = [None, None, (-2.0, 3.0)]
    options = {"input_type": "uint8", "output_type": "uint8", "input_range": ranges}
    conversion = in_integers(plain, images, ("default",), **options)
    assert len(conversion.integers.inputs) == 3
    assert len(conversion.integers.outputs) == 2
    # The dense layer at the end counts in int8 itself.
    assert kinds(conversion.flatbuffer)[-1] == "QUANTIZE"


def test_inputs_that_are_whole_numbers_in_keras_stay_so() -> None:
    inputs = tf.keras.Input((8, 8, 3), dtype="uint8")
    x = binary_conv(stem(tf.cast(inputs, "float32") / 255.0, 32), 32, 3, name="a")
    model = tf.keras.Model(inputs, classifier(x, 4))
    conversion = larq_nas.convert(model, PIXELS)
    interpreter = Interpreter(conversion.flatbuffer)
    assert [np.dtype(dtype) for dtype in interpreter.input_types] == [np.uint8]
    asked = in_integers(conversion, [PIXELS], ("default",), input_type="int8")
    assert "`image` is uint8, as the model has it, not int8" in str(asked)
