"""The golden test: its file, and the programs that check it, by the real engine."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import randomize
from deploy.package.programs import (
    ENGINE,
    call,
    classifying,
    compiled,
    first,
    images,
    java,
    needs_compiler,
    needs_java,
    network,
    plant,
)

import larq_nas
from larq_nas.deploy.conversion import digest
from larq_nas.deploy.export import export
from larq_nas.deploy.export import run as run_engine
from larq_nas.deploy.golden import read_golden, tensors
from larq_nas.deploy.operations import KERNELS
from larq_nas.deploy.package import write_package
from larq_nas.errors import InputError
from larq_nas.layers import BinaryConv2D

layers = tf.keras.layers


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> tuple[Path, larq_nas.Conversion, tf.keras.Model]:
    model = classifying()
    conversion = larq_nas.convert(model, images(model))
    directory = tmp_path_factory.mktemp("packed") / "package"
    names = ["cat", "dog", 'a "c\\', "höhle", "x"]
    write_package(directory, conversion, model, images=images(model), class_names=names)
    return directory, conversion, model


def on_engine(flatbuffer: bytes, golden, kernel="default") -> list[np.ndarray]:
    inputs, _ = tensors(flatbuffer)
    feed = [x.reshape(-1, *end.shape[1:]) for x, end in zip(golden.stored, inputs, strict=True)]
    outputs = run_engine(flatbuffer, feed if len(feed) > 1 else feed[0], kernel, **KERNELS[kernel])
    return [values.reshape(len(values), -1) for values in outputs]


def test_the_file_holds_inputs_and_what_keras_gives(packed) -> None:
    directory, _, model = packed
    golden = read_golden(directory / "golden.bin")
    assert golden.to_bytes() == (directory / "golden.bin").read_bytes()
    assert golden.examples == 16
    assert golden.needed == 14
    given = images(model)[:32]
    feed = golden.stored[0].reshape(16, 8, 8, 3)
    assert all(any(np.array_equal(one, image) for image in given) for one in feed)
    (output,) = golden.outputs
    assert (output.tensor.name, output.classes) == ("which", True)
    np.testing.assert_allclose(output.values, model(feed).numpy(), atol=1e-6)
    assert "16 of the given images, outputs of Keras" in (golden.origin)


@pytest.mark.parametrize("kernel", ["default", "reference", "indirect"])
def test_every_kernel_passes_and_a_wrong_constant_fails(packed, kernel: str) -> None:
    directory, conversion, _ = packed
    golden = read_golden(directory / "golden.bin")
    (sound,) = golden.judge(on_engine(conversion.flatbuffer, golden, kernel))
    assert sound.passed
    assert sound.same == sound.agreeing == 16
    for kind in ("sign", "number"):
        wrong = plant(conversion.flatbuffer, kind)
        (result,) = golden.judge(on_engine(wrong, golden, kernel))
        assert not result.passed
        assert result.largest > 1000 * sound.largest


def test_outputs_that_are_not_numbers_fail(packed) -> None:
    directory, conversion, _ = packed
    golden = read_golden(directory / "golden.bin")
    (raw,) = on_engine(conversion.flatbuffer, golden)
    (result,) = golden.judge([np.full_like(raw, np.nan)])
    assert (result.passed, result.agreeing, result.same) == (False, 0, 0)
    # Two of sixteen may differ, as signs that rounding turns make them; three may not.
    for differing, passed in ((2, True), (3, False)):
        changed = raw.copy()
        changed[:differing] += 0.01
        assert golden.judge([changed])[0].passed == passed


def test_random_inputs_are_said_to_be_random(packed, tmp_path: Path) -> None:
    _, conversion, model = packed
    write_package(tmp_path, conversion, model, standalone=False)
    golden = read_golden(tmp_path / "golden.bin")
    assert "16 inputs of random numbers" in golden.origin
    assert golden.origin in (tmp_path / "README.md").read_text()
    before = model.get_weights()
    write_package(tmp_path, conversion, model, images=images(model)[:3], standalone=False)
    golden = read_golden(tmp_path / "golden.bin")
    assert "3 of the given images and 13 inputs of random numbers" in golden.origin
    assert all(map(np.array_equal, before, model.get_weights()))


def test_images_that_rounding_changes_are_replaced_by_random_ones(tmp_path: Path) -> None:
    """An eighth of what some signs read is 0 but for rounding, in every image given."""
    inputs = tf.keras.Input((8, 8, 3))
    stem, norm = layers.Conv2D(32, 1), layers.BatchNormalization()
    x = BinaryConv2D(32, 3)(norm(stem(inputs)))
    x = layers.GlobalAveragePooling2D()(layers.BatchNormalization()(x))
    model = randomize(tf.keras.Model(inputs, layers.Dense(5)(x)))
    means = norm.moving_mean.numpy()
    means[:4] = (np.sum(stem.kernel.numpy() * 0.1, axis=(0, 1, 2)) + stem.bias)[:4]
    norm.moving_mean.assign(means)
    norm.beta.assign(tf.zeros(32))
    bits = (np.random.default_rng(0).integers(0, 2, (40, 8, 8, 3)) * 0.1).astype("float32")
    conversion = larq_nas.convert(model, bits)
    write_package(tmp_path, conversion, model, images=bits, standalone=False)
    golden = read_golden(tmp_path / "golden.bin")
    assert (golden.origin, golden.steady) == ("16 inputs of random numbers, outputs of Keras", 16)
    for kernel in KERNELS:
        assert golden.judge(on_engine(conversion.flatbuffer, golden, kernel))[0].passed
    for kind in ("sign", "number"):
        wrong = plant(conversion.flatbuffer, kind)
        assert not golden.judge(on_engine(wrong, golden))[0].passed


def test_a_network_that_rounding_changes_for_all_inputs_gets_room(tmp_path: Path) -> None:
    model = network(layers.GlobalAveragePooling2D(), layers.Dense(5))
    evidence = larq_nas.convert(model, images(model))
    norm = model.get_layer("norm0")
    # Sums of 288 signs are even: many are 2, and so decided by how 2 - 2 is rounded.
    norm.moving_mean.assign(2 * tf.ones(32))
    norm.beta.assign(tf.zeros(32))
    conversion = dataclasses.replace(evidence, flatbuffer=export(model), weights=digest(model))
    write_package(tmp_path, conversion, model, images=images(model), standalone=False)
    golden = read_golden(tmp_path / "golden.bin")
    assert (golden.steady, golden.weak) == (0, True)
    for kernel in KERNELS:
        assert golden.judge(on_engine(conversion.flatbuffer, golden, kernel))[0].passed
    card = (tmp_path / "README.md").read_text()
    assert "Rounding alone changes the outputs of 16 of them" in card
    assert "for this network the golden test proves little" in card


def test_random_indices_are_valid_ones(tmp_path: Path) -> None:
    words = tf.keras.Input((6,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(9, 4)(words))
    model = tf.keras.Model(words, layers.Dense(2)(x))
    examples = np.random.default_rng(0).integers(0, 9, (5, 6))
    conversion = larq_nas.convert(model, examples)
    for given, greatest in ((None, 1), (examples, 8)):
        settings = {"images": given, "standalone": False}
        write_package(tmp_path, conversion, model, **settings)
        golden = read_golden(tmp_path / "golden.bin")
        assert golden.examples == 16
        assert set(np.unique(golden.stored[0])) == set(range(greatest + 1))
        assert golden.judge(on_engine(conversion.flatbuffer, golden))[0].passed


@pytest.mark.parametrize("content", [b"", b"LQGOLDEN", b"TFL3" * 40])
def test_a_file_that_is_none_is_refused(packed, content: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must be the `golden\.bin` of a package"):
        read_golden(content)
    whole = (packed[0] / "golden.bin").read_bytes()
    for cut in (whole[:-1], whole + b"x", whole[: len(whole) // 2]):
        with pytest.raises(InputError, match="cut short"):
            read_golden(cut)
    with pytest.raises(InputError, match="Cannot read"):
        read_golden(tmp_path / "none.bin")


@needs_compiler
def test_the_program_passes_the_model_and_fails_a_wrong_constant(packed, tmp_path: Path) -> None:
    directory, conversion, _ = packed
    program = compiled(directory, tmp_path)
    golden, model = tmp_path / "golden.bin", directory / "model.tflite"
    golden.write_bytes(first(4, directory / "golden.bin"))
    done = call(program, "--golden", golden, model)
    assert (done.returncode, done.stderr) == (0, "")
    expected = read_golden(golden)
    (result,) = expected.judge(on_engine(conversion.flatbuffer, expected))
    assert done.stdout == f"golden test: {expected.origin}\n{result}\n"
    for kind in ("sign", "number"):
        wrong = tmp_path / f"{kind}.tflite"
        wrong.write_bytes(plant(conversion.flatbuffer, kind))
        (result,) = expected.judge(on_engine(wrong.read_bytes(), expected))
        done = call(program, "--golden", golden, wrong)
        assert (done.returncode, done.stderr) == (2, f"The golden test failed: {result}.\n")
    cut = tmp_path / "cut.bin"
    cut.write_bytes(golden.read_bytes()[:-4])
    for file, message in ((cut, "is not the golden.bin"), (tmp_path / "no", "Cannot read")):
        done = call(program, "--golden", file, model)
        assert done.returncode == 1
        assert message in done.stderr


@needs_java
def test_the_class_passes_the_model_and_fails_a_wrong_constant(packed, tmp_path: Path) -> None:
    directory, conversion, _ = packed
    (tmp_path / "golden.bin").write_bytes(first(4, directory / "golden.bin"))
    command = [*java(directory, tmp_path), str(tmp_path / "golden.bin")]
    model = str(directory / "model.tflite")
    done = call(*command, STUB_ENGINE=ENGINE, STUB_MODEL=model)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("output `which`: 4 of 4 inputs as expected (at least 4 must")
    wrong = tmp_path / "wrong.tflite"
    wrong.write_bytes(plant(conversion.flatbuffer, "sign"))
    done = call(*command, STUB_ENGINE=ENGINE, STUB_MODEL=str(wrong))
    assert done.returncode != 0
    assert "The golden test failed: output `which`" in done.stderr
