import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from conftest import randomize

from larq_nas.cli import main
from larq_nas.layers import binary_conv, classifier, stem


@pytest.fixture
def run(tmp_path: Path) -> Path:
    inputs = tf.keras.Input((8, 8, 1))
    x = binary_conv(stem(inputs, 32), 32, 3, name="a")
    randomize(tf.keras.Model(inputs, classifier(x, 4))).save(tmp_path / "model.keras")
    images = np.random.default_rng(1).uniform(-1, 1, (32, 8, 8, 1)).astype("float32")
    np.save(tmp_path / "sample.npy", images)
    return tmp_path


def test_a_run_converts_in_int8_beside_its_own_flatbuffer(run: Path) -> None:
    result = CliRunner().invoke(main, ["convert", str(run), "--int8", "ends"])
    assert result.exit_code == 0, result.output
    assert "int8: 2 layers (stem_conv, head_dense)" in result.output
    assert f"written: {run / 'model.int8.tflite'}" in result.output
    assert not (run / "model.tflite").exists()


def test_as_json_the_report_is_part_of_it(run: Path) -> None:
    arguments = ["convert", str(run), "--int8", "all", "--json"]
    result = CliRunner().invoke(main, arguments)
    figures = json.loads(result.stdout)
    assert figures["int8"]["bytes_after"] == figures["bytes"]
    assert figures["int8"]["bytes_after"] == (run / "model.int8.tflite").stat().st_size


def test_a_model_without_images_is_refused(run: Path) -> None:
    result = CliRunner().invoke(main, ["convert", str(run / "model.keras"), "--int8", "ends"])
    assert result.exit_code == 1
    assert "`--int8` needs `data`" in result.output
