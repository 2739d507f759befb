"""Networks of several inputs and outputs: cards, programs and golden tests loop over them."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from deploy.package.programs import (
    ENGINE,
    call,
    compiled,
    java,
    needs_compiler,
    needs_java,
)

import larq_nas
from larq_nas.deploy.audit import audit
from larq_nas.deploy.conversion import digest
from larq_nas.deploy.export import export_several
from larq_nas.deploy.golden import read_golden, tensors
from larq_nas.deploy.package import write_package
from larq_nas.deploy.rewriting import lower
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
    conversion = converted(model)
    write_package(
        directory,
        conversion,
        model,
        images=examples,
        class_names={"kind": ["a", "b", "c"]},
        standalone=False,
    )
    return directory, model, examples


def converted(model: tf.keras.Model) -> larq_nas.Conversion:
    """Return a conversion of `model`, whose parity is that of a smaller network."""
    lowered = lower(model)
    shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    flatbuffer = export_several(lowered, shapes, lowered.variables)
    audited = audit(model, flatbuffer, lowered.kernels(), lowered.binary_layers)
    inputs = tf.keras.Input((4, 4, 3))
    parity = larq_nas.convert(tf.keras.Model(inputs, layers.Conv2D(1, 1)(inputs))).parity
    return larq_nas.Conversion(flatbuffer, audited, parity, weights=digest(model))


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
    directory, _, _ = packed
    card = (directory / "README.md").read_text()
    for line in (
        "- Input `photo`: one image, float32, shape (1, 8, 8, 3), channels last; the images",
        "- Input `facts`: float32, shape (1, 4); the examples handed in hold numbers from -",
        "- Output `kind`: float32, shape (1, 3): probabilities of 3 classes (softmax).",
        "- Classes of `kind`: 0 a, 1 b, 2 c.",
        "- Output `mask`: float32, shape (1, 8, 8, 1): a mask of 8 x 8: a probability for each",
        "- Output `number9`: float32, shape (1, 1): one number without activation",
    ):
        assert line in card


@needs_compiler
@needs_java
def test_the_programs_read_and_print_all(packed, tmp_path: Path) -> None:
    directory, model, examples = packed
    ends, outputs = tensors((directory / "model.tflite").read_bytes())
    program = compiled(directory, tmp_path)
    done = call(program, "--golden", directory / "golden.bin", directory / "model.tflite")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("16 of 16 inputs as expected") == len(outputs) == 12
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
    command = [*java(directory, tmp_path), directory / "golden.bin"]
    environment = {"STUB_ENGINE": ENGINE, "STUB_MODEL": str(directory / "model.tflite")}
    done = call(*command, **environment)
    assert done.stdout.count("16 of 16 inputs as expected") == 12, done.stderr
    done = call(*command, *files, **environment)
    assert f"kind: class {best} ({'abc'[best]}), output 0." in done.stdout, done.stderr


def test_images_and_names_that_do_not_fit_are_refused(packed, tmp_path: Path) -> None:
    _, model, examples = packed
    conversion = converted(model)
    cases = (
        ({"images": examples[:1]}, r"must have the shape \(examples, 8, 8, 3\), \(examples, 4\), "),
        ({"images": examples[0]}, "must have the shape"),
        ({"class_names": ["a"]}, r"for each class of one output \(`kind` has 3, `mask` has 1"),
    )
    for settings, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            write_package(tmp_path / "new", conversion, model, **settings)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()
