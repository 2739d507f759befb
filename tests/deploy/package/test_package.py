"""What is handed to whoever deploys a model."""

import json
from pathlib import Path

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from conftest import random_architecture, randomize

import larq_nas
from larq_nas.cli import main
from larq_nas.cost import profile
from larq_nas.deploy.package import Accuracy, write_package
from larq_nas.deploy.package.facts import affine
from larq_nas.deploy.parity import kernel_lines
from larq_nas.errors import ConversionError, InputError
from larq_nas.latency import Latency
from larq_nas.layers import classifier
from larq_nas.spaces import Bats

FILES = {
    *("model.tflite", "golden.bin", "README.md", "main.cc", "Network.java"),
    *("network.py", "network.json", "weights.npz"),
}
ARCHITECTURE = random_architecture(Bats(cells=1, channels=8, nodes=2), 0)
IMAGES = np.random.default_rng(0).uniform(-1, 1, (32, 8, 8, 1)).astype("float32")


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.fixture(scope="module")
def model() -> tf.keras.Model:
    return randomize(ARCHITECTURE.build((8, 8, 1), 10))


@pytest.fixture(scope="module")
def conversion(model) -> larq_nas.Conversion:
    return larq_nas.convert(model, IMAGES)


@pytest.fixture(scope="module")
def package(model, conversion, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("package") / "new" / "digits"
    write_package(
        directory,
        conversion,
        model,
        architecture=ARCHITECTURE,
        accuracy=Accuracy(0.9125, "digits", 360),
        images=IMAGES,
        latencies=[Latency("a board (aarch64)", "default", 2, "0.16.0", 1234.0, 0.03, 50)],
    )
    return directory


@pytest.fixture(scope="module")
def grouped() -> tuple[larq_nas.Conversion, tf.keras.Model]:
    """A grouped binary convolution, which the default kernel refuses."""
    inputs = tf.keras.Input((8, 8, 64))
    settings = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
    convolution = lq.layers.QuantConv2D(
        64, 3, groups=2, padding="same", pad_values=1.0, kernel_constraint="weight_clip", **settings
    )
    outputs = tf.keras.layers.Softmax()(classifier(convolution(inputs), 3))
    model = randomize(tf.keras.Model(inputs, outputs, name="grouped"))
    # Rewritten, which form the groups take would depend on what is faster at the moment.
    return larq_nas.convert(model, kernels=["reference", "indirect"], rewrite=False), model


def test_a_package_is_whole(package: Path, conversion, model) -> None:
    assert names(package) == FILES
    assert (package / "model.tflite").read_bytes() == conversion.flatbuffer


def test_every_figure_of_the_card_is_one_handed_in(package: Path, conversion, model) -> None:
    card = (package / "README.md").read_text()
    costs = profile(model)
    for figure in (
        f"| real multiply-accumulates | {costs.macs:,} |",
        f"| binary multiply-accumulates | {costs.binary_macs:,} |",
        *(f"| {bits}-bit weights | {count:,} |" for bits, count in costs.parameters.items()),
        f"| `model.tflite` | {len(conversion.flatbuffer):,} bytes |",
        f"{costs.activation_bytes:,} bytes (predicted)",
        f"| peak memory | {costs.activation_bytes + len(conversion.flatbuffer):,} bytes (pred",
        "91.25% of 360 examples, digits",
        f"from {IMAGES.min():g} to {IMAGES.max():g}",
        "shape (1, 8, 8, 1)",
        "logits of 10 classes",
        *kernel_lines(conversion.parity),
        "| a board (aarch64) | default | 2 | 1.23 ms | 3% over 50 runs |",
        ARCHITECTURE.to_json(),
        "| `stem_conv` | CONV_2D | has real weights |",
        "--graph=model.tflite --num_threads=1\n",
        f"| TensorFlow | {tf.__version__} |",
        "| indirect | runs it; not compared with Keras | `--use_indirect_bgemm=true` |",
    ):
        assert figure in card
    binary = sum(row.binary for row in conversion.audit.layers)
    assert f"{binary} of {len(conversion.audit.layers)} convolutions" in card
    assert "$" not in card


def test_what_is_not_known_is_said(conversion, model, tmp_path) -> None:
    write_package(tmp_path, conversion, model, standalone=False)
    assert names(tmp_path) == FILES - {"network.py", "network.json", "weights.npz"}
    card = (tmp_path / "README.md").read_text()
    for line in ("Not measured.", "value range: not given", "Latency: not measured."):
        assert line in card
    assert "network.py" not in card
    assert "| `stem_conv` | conv | 8x8x24 |" in card


def test_a_data_set_is_read_as_convert_reads_it(conversion, model, tmp_path) -> None:
    labels = np.zeros(len(IMAGES))
    for name, images in (
        ("array", IMAGES),
        ("images", tf.data.Dataset.from_tensor_slices(IMAGES).batch(10)),
        ("labelled", tf.data.Dataset.from_tensor_slices((IMAGES, labels)).batch(16).repeat()),
    ):
        write_package(tmp_path / name, conversion, model, images=images)
        for file in ("golden.bin", "README.md"):
            found = (tmp_path / name / file).read_bytes()
            assert found == (tmp_path / "array" / file).read_bytes()
    wide = tf.data.Dataset.from_tensor_slices(IMAGES[:, :, :4]).batch(8)
    with pytest.raises(InputError, match=r"`images` must hold images of shape \(8, 8, 1\)"):
        write_package(tmp_path / "wide", conversion, model, images=wide)


@pytest.mark.parametrize(
    ("scale", "offset", "text"),
    [
        (1 / 255, 0, "b * 0.00392157"),
        (1, 0, "b"),
        (2 / 255, -1, "b * 0.00784314 - 1"),
        ([1, 2], [0, 3], "b * [1, 2] + [0, 3]"),
        ([1, 2], [0, 0], "b * [1, 2]"),
    ],
)
def test_what_adds_nothing_is_left_out_of_a_formula(scale, offset, text: str) -> None:
    assert affine("b", np.array(scale), np.array(offset)) == text


def test_a_package_is_replaced_and_other_files_are_kept(conversion, model, tmp_path) -> None:
    write_package(tmp_path, conversion, model, accuracy=0.5)
    write_package(tmp_path, conversion, model, standalone=False)
    assert names(tmp_path) == FILES - {"network.py", "network.json", "weights.npz"}
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files, such as notes"):
        write_package(tmp_path, conversion, model, accuracy=0.5)
    assert "Not measured." in (tmp_path / "README.md").read_text()


def test_a_kernel_that_the_default_is_not_is_told_everywhere(grouped, tmp_path) -> None:
    write_package(tmp_path, *grouped)
    card = (tmp_path / "README.md").read_text()
    assert "| default | refuses it |" in card
    assert "a device needs `--use_indirect_bgemm=true`" in card
    assert "--num_threads=1 --use_indirect_bgemm=true\n" in card
    assert "probabilities of 3 classes" in card
    assert "kUseIndirectBgemm = true;" in (tmp_path / "main.cc").read_text()
    assert "RegisterLCECustomOps(resolver, false, true);" in (tmp_path / "Network.java").read_text()


def test_nothing_is_written_where_something_cannot_be(conversion, model, tmp_path) -> None:
    directory = tmp_path / "package"
    other = tf.keras.models.clone_model(model)
    with pytest.raises(InputError, match="convert it again"):
        write_package(directory, conversion, randomize(other, seed=5))
    with pytest.raises(InputError, match="must be one that was compared"):
        write_package(directory, conversion, model, kernel="indirect")
    with pytest.raises(InputError, match="a share from 0 to 1"):
        write_package(directory, conversion, model, accuracy=91.2)
    twice = tf.keras.layers.Lambda(lambda x: x * 2, name="twice")(model.output)
    lambda_model = tf.keras.Model(model.input, twice)
    with pytest.raises(ConversionError, match="`twice` is a Lambda"):
        write_package(directory, larq_nas.convert(lambda_model, IMAGES), lambda_model)
    assert not directory.exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        write_package(tmp_path / "file", conversion, model)
    with pytest.raises(InputError, match="Cannot write the package"):
        write_package(tmp_path / "file" / "package", conversion, model)


@pytest.fixture
def run(model, tmp_path) -> Path:
    """The directory of a finished run, as far as converting reads it."""
    directory = tmp_path / "run"
    directory.mkdir()
    model.save(directory / "model.keras")
    ARCHITECTURE.save(directory / "architecture.json")
    np.save(directory / "sample.npy", IMAGES)
    settings = {"schema": 1, "settings": {"data": {"validation_examples": 360}}}
    (directory / "settings.json").write_text(json.dumps(settings))
    (directory / "result.json").write_text(json.dumps({"accuracy": 0.75}))
    return directory


def test_a_run_is_packed_from_a_shell(run: Path, tmp_path) -> None:
    command = ["convert", str(run), "--package", str(tmp_path / "package"), "--json"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["package"] == str(tmp_path / "package")
    assert names(tmp_path / "package") == FILES
    card = (tmp_path / "package" / "README.md").read_text()
    assert "75.00% of 360 examples, the validation data of the search" in card
    assert '"space": "bats"' in card
    assert "numbers from -0.9" in card


def test_a_run_without_a_result_is_packed_without_accuracy(run: Path, tmp_path) -> None:
    (run / "result.json").unlink()
    result = CliRunner().invoke(main, ["convert", str(run), "--package", str(tmp_path / "package")])
    assert result.exit_code == 0, result.output
    assert f"written: {tmp_path / 'package'}" in result.output
    assert "Not measured." in (tmp_path / "package" / "README.md").read_text()


def test_class_names_and_preprocessing_are_given_from_a_shell(run: Path, tmp_path) -> None:
    names = [f"digit {i}" for i in range(10)]
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    command = ["convert", str(run), "--package", str(tmp_path / "package")]
    options = ["--class-names", str(tmp_path / "names.txt"), "--preprocessing", "x / 8 - 1"]
    result = CliRunner().invoke(main, [*command, *options])
    assert result.exit_code == 0, result.output
    card = (tmp_path / "package" / "README.md").read_text()
    assert "0 digit 0, 1 digit 1, " in card
    assert "- Preprocessing: x / 8 - 1.\n" in card
    for program in ("main.cc", "Network.java"):
        assert '"digit 9"' in (tmp_path / "package" / program).read_text()
    result = CliRunner().invoke(main, [*command, "--class-names", "a,b"])
    assert result.exit_code == 1
    assert "has 10), but has 2: give as many" in result.output
    result = CliRunner().invoke(main, ["convert", str(run), "--class-names", "a,b"])
    assert "--class-names and --preprocessing go with --package" in result.output


def test_a_package_that_is_refused_leaves_no_flatbuffer(run: Path) -> None:
    result = CliRunner().invoke(main, ["convert", str(run), "--package", str(run)])
    assert result.exit_code != 0
    assert "holds other files" in result.output
    assert not (run / "model.tflite").exists()


@pytest.mark.parametrize("kind", ["dense", "int8", "padded groups"])
def test_what_was_rewritten_or_is_int8_can_be_packed(kind: str, tmp_path: Path) -> None:
    inputs = tf.keras.Input((8, 8, 12))
    signs = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
    x = larq_nas.layers.BinaryConv2D(12, 3, groups=4 if kind == "padded groups" else 1)(inputs)
    if kind == "dense":
        x = tf.keras.layers.Flatten()(x)
        x = lq.layers.QuantDense(12, kernel_constraint="weight_clip", **signs)(x)
        x = tf.keras.layers.Reshape((1, 1, 12))(x)
    model = randomize(tf.keras.Model(inputs, classifier(x, 4)))
    images = np.random.default_rng(0).normal(size=(32, 8, 8, 12)).astype("float32")
    kernels = ("reference", "indirect") if kind == "padded groups" else ("default",)
    settings = {"int8": "ends"} if kind == "int8" else {}
    conversion = larq_nas.convert(model, images, kernels=kernels, **settings)
    write_package(tmp_path / "new", conversion, model)
    assert names(tmp_path / "new") == FILES
    card = (tmp_path / "new" / "README.md").read_text()
    assert ("before int8" in card) == ("fake-quant" in card) == (kind == "int8")
    model.layers[-1].bias.assign_add([1.0, 0.0, 0.0, 0.0])
    with pytest.raises(InputError, match="its weights differ: convert it again"):
        write_package(tmp_path / "other", conversion, model)
