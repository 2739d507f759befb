"""`larq-nas convert`: images and layers from files, integers, and layers as they are."""

import json

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner, Result
from conftest import randomize

from larq_nas.cli import main
from larq_nas.deploy.flatbuffer import read_model
from larq_nas.layers import BinaryConv2D, classifier

LAYERS = """
import tensorflow as tf

class Halving(tf.keras.layers.Layer):
    def call(self, x):
        return 0.5 * x
"""


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["convert", *map(str, arguments)])


def refused(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 1, result.output
    return result.output.splitlines()[-1]


@pytest.fixture
def source(tmp_path):
    """A saved model with a layer of one's own, the file of that layer, and images."""
    (tmp_path / "my_layers.py").write_text(LAYERS)
    names: dict = {}
    exec(LAYERS, names)
    inputs = tf.keras.Input((8, 8, 3))
    x = BinaryConv2D(32, 3, name="a")(tf.keras.layers.Conv2D(32, 3)(names["Halving"]()(inputs)))
    randomize(tf.keras.Model(inputs, classifier(x, 4))).save(tmp_path / "model.keras")
    pixels = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3))
    np.save(tmp_path / "images.npy", pixels.astype("float32"))
    return tmp_path


def test_layers_and_images_are_read_from_files(source) -> None:
    arguments = [source / "model.keras", "--images", source / "images.npy"]
    assert "--load FILE.py" in refused(*arguments)
    result = invoke(*arguments, "--load", source / "my_layers.py", "--json")
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert [row["kernel"] for row in figures["parity"]] == ["default", "reference", "aarch64"]
    assert figures["parity"][0]["examples"] == 24
    assert figures["parity"][0]["operations"] > 0


def test_bytes_in_and_out(source) -> None:
    arguments = ["--images", source / "images.npy", "--load", source / "my_layers.py"]
    types = ["--input-type", "uint8", "--output-type", "int8", "--output", source / "bytes.tflite"]
    result = invoke(source / "model.keras", *arguments, *types)
    assert result.exit_code == 0, result.output
    graph = read_model((source / "bytes.tflite").read_bytes()).subgraphs[0]
    types = [graph.tensors[index].type for index in (*graph.inputs, *graph.outputs)]
    assert types == [3, 9]  # of TensorFlow Lite: UINT8 and INT8


def test_bad_files_are_one_line(source) -> None:
    (source / "broken.py").write_text("import nothing_like_this")
    line = refused(source / "model.keras", "--load", source / "broken.py")
    assert "Cannot run" in line
    assert "nothing_like_this" in line
    line = refused(source / "model.keras", "--load", source / "my_layers.py", "--images", __file__)
    assert "holds no NumPy array" in line


def test_layers_are_left_as_they_are_or_accepted_in_float(tmp_path) -> None:
    inputs = tf.keras.Input((8, 8, 64))
    x = inputs
    for name in ("a", "b"):
        settings = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
        x = lq.layers.QuantDense(64, name=name, **settings)(x)
    tf.keras.Model(inputs, classifier(x, 3)).save(tmp_path / "model.keras")
    assert "would run in float" in refused(tmp_path / "model.keras", "--no-rewrite")
    accepted = ["--no-rewrite", "--allow-float", "a", "--allow-float", "b"]
    result = invoke(tmp_path / "model.keras", *accepted)
    assert result.exit_code == 0, result.output
