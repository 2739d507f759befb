"""Networks of several inputs and outputs: cards, programs and golden tests loop over them."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import randomize
from deploy.package.programs import (
    ENGINE,
    call,
    compiled,
    first,
    java,
    needs_compiler,
    needs_java,
)

import larq_nas
from larq_nas.deploy.export import run
from larq_nas.deploy.golden import Tensor, read_golden, tensors
from larq_nas.deploy.package import write_package
from larq_nas.errors import InputError
from larq_nas.layers import BinaryConv2D

layers = tf.keras.layers


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> tuple[Path, tf.keras.Model, list[np.ndarray]]:
    """A package of a network with two inputs and twelve outputs, of several kinds."""
    image, vector = tf.keras.Input((8, 8, 3), name="photo"), tf.keras.Input((4,), name="facts")
    x = layers.BatchNormalization()(BinaryConv2D(8, 3)(layers.Conv2D(8, 1)(image)))
    pooled = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), vector])
    outputs = [
        layers.Dense(3, "softmax", name="kind")(pooled),
        layers.Conv2D(1, 1, activation="sigmoid", name="mask")(x),
        *(layers.Dense(1, name=f"number{i}")(pooled) for i in range(10)),
    ]
    model = tf.keras.Model([image, vector], outputs, name="several")
    generator = np.random.default_rng(0)
    examples = [generator.normal(size=(20, *s)).astype("float32") for s in ((8, 8, 3), (4,))]
    directory = tmp_path_factory.mktemp("several") / "package"
    conversion = larq_nas.convert(model, examples)
    write_package(
        directory,
        conversion,
        model,
        images=examples,
        class_names={"kind": ["a", "b", "c"]},
        standalone=False,
    )
    return directory, model, examples


def test_outputs_are_told_apart_by_name(packed) -> None:
    directory, model, examples = packed
    golden = read_golden(directory / "golden.bin")
    # An interpreter has them in an order of its own.
    ordered = [output.tensor.name for output in golden.outputs]
    assert sorted(ordered) == sorted(model.output_names)
    assert ordered != model.output_names
    feed = [x.reshape(16, -1) for x in golden.stored]
    kept = [i for i in range(20) if any(np.array_equal(examples[0][i].ravel(), x) for x in feed[1])]
    kept = kept or [
        i for i in range(20) if any(np.array_equal(examples[0][i].ravel(), x) for x in feed[0])
    ]
    expected = dict(zip(model.output_names, model([x[kept] for x in examples]), strict=True))
    assert len(kept) == 16
    for output in golden.outputs:
        wanted = expected[output.tensor.name].numpy().reshape(16, -1)
        np.testing.assert_allclose(output.values.reshape(16, -1), wanted, atol=1e-6)
    assert [o.tensor.name for o in golden.outputs if o.classes] == ["kind"]


def test_the_card_lists_all_inputs_and_outputs(packed) -> None:
    directory, model, _ = packed
    card = (directory / "README.md").read_text()
    names = {name: f"input{n:04d}" for n, name in enumerate(model.input_names)}
    names |= {name: f"output{n:04d}" for n, name in enumerate(model.output_names)}
    for kind, name, told in (
        ("Input", "photo", "one image, float32, shape (1, 8, 8, 3), channels last; the images"),
        ("Input", "facts", "float32, shape (1, 4); the examples it was checked on held num"),
        ("Output", "kind", "float32, shape (1, 3): probabilities of 3 classes (softmax)."),
        ("Output", "mask", "float32, shape (1, 8, 8, 1): a mask of 8 x 8: a probability for each"),
        ("Output", "number9", "float32, shape (1, 1): one number without activation"),
    ):
        assert f"- {kind} `{name}` (`{names[name]}` in the flatbuffer): {told}" in card
        program = (directory / "main.cc").read_text()
        assert program.count(f"`{name}` (`{names[name]}` in the flatbuffer)") == 1
    assert "- Classes of `kind`: 0 a, 1 b, 2 c." in card


@needs_compiler
@needs_java
def test_the_programs_read_and_print_all(packed, tmp_path: Path) -> None:
    directory, model, examples = packed
    ends, outputs = tensors((directory / "model.tflite").read_bytes())
    golden = tmp_path / "golden.bin"
    golden.write_bytes(first(4, directory / "golden.bin"))
    program = compiled(directory, tmp_path)
    done = call(program, "--golden", golden, directory / "model.tflite")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("4 of 4 inputs as expected") == len(outputs) == 12
    files = []
    for index, end in enumerate(ends):
        files.append(tmp_path / f"input{index}.bin")
        examples[0 if end.elements == 192 else 1][:1].tofile(files[-1])
    done = call(program, directory / "model.tflite", *files)
    assert done.returncode == 0, done.stderr
    wanted = dict(zip(model.output_names, model([x[:1] for x in examples]), strict=True))
    printed = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    best = int(np.argmax(wanted["kind"]))
    assert printed["kind"].startswith(f"class {best} ({'abc'[best]}), output 0.")
    assert printed["mask"].startswith("64 numbers from ")
    for i in range(10):
        value = float(printed[f"number{i}"])
        assert value == pytest.approx(float(wanted[f"number{i}"][0, 0]), rel=1e-4, abs=1e-5)
    done = call(program, directory / "model.tflite", files[0])
    assert done.stderr == "There must be a file for each input.\n"
    command = [*java(directory, tmp_path), golden]
    environment = {"STUB_ENGINE": ENGINE, "STUB_MODEL": str(directory / "model.tflite")}
    done = call(*command, **environment)
    assert done.stdout.count("4 of 4 inputs as expected") == 12, done.stderr
    done = call(*command, *files, **environment)
    assert f"kind: class {best} ({'abc'[best]}), output 0." in done.stdout, done.stderr


def test_images_and_names_that_do_not_fit_are_refused(packed, tmp_path: Path) -> None:
    _, model, examples = packed
    conversion = larq_nas.convert(model, examples)
    cases = (
        (
            {"images": examples[:1]},
            "`images` must hold an array for each of the 2 inputs, but got 1",
        ),
        ({"images": [*examples[1:], examples[0]]}, "`images` must "),
        ({"class_names": ["a"]}, r"for each class of one output \(`kind` has 3, `mask` has 1"),
    )
    for settings, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            write_package(tmp_path / "new", conversion, model, **settings)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


@pytest.fixture(scope="module", params=["uint8", "int8", "int8 throughout"])
def in_bytes(request, tmp_path_factory) -> tuple[Path, larq_nas.Conversion, tf.keras.Model]:
    """A package of a network whose inputs and outputs are bytes."""
    inputs = tf.keras.Input((8, 8, 3), name="photo")
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(inputs))
    x = layers.BatchNormalization()(BinaryConv2D(8, 3)(x))
    x = layers.GlobalAveragePooling2D()(x)
    model = randomize(tf.keras.Model(inputs, layers.Dense(4, name="scores")(x)))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3))
    examples = (pixels / 127.5 - 1).astype("float32")
    kind = request.param.split()[0]
    conversion = larq_nas.convert(
        model,
        examples,
        int8="ends" if "throughout" in request.param else None,
        input_type=kind,
        output_type=kind,
    )
    directory = tmp_path_factory.mktemp("bytes") / "package"
    write_package(directory, conversion, model, images=examples, standalone=False)
    return directory, conversion, model


def test_the_card_says_what_a_byte_stands_for(in_bytes) -> None:
    directory, conversion, _ = in_bytes
    ((given,), (got,)) = tensors(conversion.flatbuffer)
    card = (directory / "README.md").read_text()
    name = "`photo` (`image` in the flatbuffer)"
    assert f"- Input {name}: one image, {given.type.lower()}, shape (1, 8, 8, 3)" in card
    written = " is written as b - 128 and" if given.type == "INT8" else ""
    line = "b * 0.00784314 - 1, so 0 for -1 and 255 for 1"
    assert f"a byte b of 0 to 255{written} stands for {line}" in card
    value = f"(v - {got.zero_point})".replace("- -", "+ ")
    assert f"a value v stands for {value} * {got.scale:g}." in card
    assert "+ 0" not in card
    assert "192 bytes from 0 to 255" in (directory / "main.cc").read_text()
    source = "Larq Compute Engine's default kernel" if conversion.int8 else "Keras"
    assert f"outputs of {source}" in card


@needs_compiler
@needs_java
def test_the_programs_take_bytes_of_0_to_255(in_bytes, tmp_path: Path) -> None:
    directory, conversion, model = in_bytes
    ((given,), (tensor,)) = tensors(conversion.flatbuffer)
    golden = tmp_path / "golden.bin"
    golden.write_bytes(first(4, directory / "golden.bin"))
    program = compiled(directory, tmp_path)
    done = call(program, "--golden", golden, directory / "model.tflite")
    assert (done.returncode, done.stderr) == (0, "")
    pixels = np.random.default_rng(1).integers(0, 256, (1, 8, 8, 3))
    held = (pixels - 128 if given.type == "INT8" else pixels).astype(given.dtype)
    (raw,) = run(conversion.flatbuffer, held, "default")
    wanted = tensor.numbers(raw.ravel())
    if not conversion.int8:
        expected = model((pixels / 127.5 - 1).astype("float32")).numpy().ravel()
        np.testing.assert_allclose(wanted, expected, atol=tensor.scale)
    pixels.astype("u1").tofile(tmp_path / "photo.bin")
    done = call(program, directory / "model.tflite", tmp_path / "photo.bin")
    printed = [float(word) for word in done.stdout.split(";")[0].split()[1:]]
    np.testing.assert_allclose(printed, wanted, rtol=1e-5, atol=1e-6)
    pixels.astype("<f4").tofile(tmp_path / "numbers.bin")
    command = [*java(directory, tmp_path), golden]
    environment = {"STUB_ENGINE": ENGINE, "STUB_MODEL": str(directory / "model.tflite")}
    done = call(*command, tmp_path / "numbers.bin", **environment)
    printed = [float(word) for word in done.stdout.split("[")[1].split("]")[0].split(",")]
    np.testing.assert_allclose(printed, wanted, rtol=1e-5, atol=1e-6)
    done = call(*command, **environment)
    assert "4 of 4 inputs as expected" in done.stdout, done.stderr


def test_channels_of_another_scale_are_told_and_compared(tmp_path: Path) -> None:
    """Integers are scaled and shifted by the network, beyond what their tensor says."""
    inputs = tf.keras.Input((8, 8, 3), name="photo")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3)(inputs))
    model = tf.keras.Model(inputs, layers.Dense(4)(x))
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3)) / 255
    examples = ((pixels - (0.5, 0.4, 0.3)) / (0.2, 0.25, 0.3)).astype("float32")
    ends = [(np.array([0, 0, 0]) + end - (0.5, 0.4, 0.3)) / (0.2, 0.25, 0.3) for end in (0, 1)]
    conversion = larq_nas.convert(model, examples, input_type="uint8", input_range=tuple(ends))
    write_package(tmp_path, conversion, model, images=examples, standalone=False)
    assert (
        "so 0 for [-2.5, -1.6, -1] and 255 for [2.5, 2.4, 2.33333]"
        in (tmp_path / "README.md").read_text()
    )
    golden = read_golden(tmp_path / "golden.bin")
    photos = golden.stored[0].reshape(-1, 8, 8, 3)
    assert photos.dtype == np.uint8
    expected = model(((photos / 255 - (0.5, 0.4, 0.3)) / (0.2, 0.25, 0.3)).astype("float32"))
    np.testing.assert_allclose(golden.outputs[0].values.reshape(-1, 4), expected, atol=1e-5)
    assert golden.steady == 16


@pytest.mark.parametrize(("kind", "zero"), [("UINT8", 128), ("INT8", 0)])
def test_numbers_and_what_a_tensor_holds(kind: str, zero: int) -> None:
    tensor = Tensor("x", (1, 3), kind, 2 / 255, zero)
    stored = tensor.stored(np.array([-2.0, 0.0, 2.0]))
    assert [*map(int, stored)] == [zero - 128, zero, zero + 127]
    np.testing.assert_allclose(tensor.numbers(stored), np.array([-256, 0, 254]) / 255, rtol=1e-6)
    np.testing.assert_allclose(tensor.bounds, np.array([-256, 254]) / 255, rtol=1e-6)


def test_inputs_may_be_outputs(tmp_path: Path) -> None:
    image, vector = tf.keras.Input((8, 8, 3), name="z"), tf.keras.Input((4,), name="a")
    x = BinaryConv2D(32, 3)(layers.Conv2D(32, 1)(image))
    x = layers.GlobalAveragePooling2D()(layers.BatchNormalization()(x))
    x = layers.Dense(3)(x)
    model = randomize(tf.keras.Model([image, vector], [vector, x, image]))
    conversion = larq_nas.convert(model, kernels=("default",))
    write_package(tmp_path, conversion, model)
    golden = read_golden(tmp_path / "golden.bin")
    assert sorted(output.tensor.elements for output in golden.outputs) == [3, 4, 192]
