"""The command line: real processes where it matters, one line for every bad input."""

import json
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner, Result
from conftest import EXAMPLES, random_architecture

from larq_nas.cli import main
from larq_nas.cli.common import _as_typed, one_line_errors
from larq_nas.cli.search import search
from larq_nas.layers import classifier
from larq_nas.spaces import Bats

QUICK = ["--set", "cells=1", "--set", "channels=4", "--set", "nodes=1", "--batch-size", "300"]
QUICK += ["--set", "searcher.precision=bfloat16", "--set", "recipe.precision=bfloat16"]
QUICK += ["--budget", "weight_bytes=1MB"]


def larq_nas(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "larq-nas"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=check)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def refused(*arguments: str) -> str:
    """Return the one line a command ends with."""
    result = invoke(*arguments)
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit), result.exception
    lines = [line for line in result.output.splitlines() if line]
    assert "Traceback" not in result.output
    errors = [line for line in lines if line.startswith("Error: ")]
    assert len(errors) == 1, result.output
    assert lines[-1] == errors[0]
    return errors[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("cli") / "run"
    arguments = ["search", *QUICK, "--epochs", "1", "--train-epochs", "2"]
    result = larq_nas(*arguments, "--directory", str(directory))
    assert "val_accuracy" in result.stdout
    assert "binary layers run as LceBconv2d" in result.stdout
    assert "Stage `train_binary`: 1 epoch of" in result.stdout
    assert "Traceback" not in result.stderr
    return directory


def test_search_again_as_json_prints_json_alone(finished: Path) -> None:
    arguments = ["search", *QUICK, "--epochs", "1", "--train-epochs", "2", "--json"]
    result = larq_nas(*arguments, "--directory", str(finished))
    figures = json.loads(result.stdout)
    assert figures["bytes"] == (finished / "model.tflite").stat().st_size
    assert {"accuracy", "parity", "audit", "directory"} <= figures.keys()


def test_settings_of_each_part_are_set(finished: Path) -> None:
    settings = json.loads((finished / "settings.json").read_text())["settings"]
    assert settings["searcher"]["precision"] == settings["recipe"]["precision"] == "bfloat16"
    assert settings["budget"] == {"weight_bytes": 10**6}


def test_settings_are_listed_with_what_they_are() -> None:
    result = invoke("search", "--method", "dms_a", "--settings")
    assert result.exit_code == 0, result.output
    lines = [line for line in result.output.splitlines() if "searcher.trade_off" in line]
    assert "0.01" in lines[0]
    assert "lambda" in lines[0]
    for part in ("space.binarization", "searcher.temperature", "recipe.weight_decay"):
        assert part in result.output
    assert "Missing option '--directory'" in invoke("search").output


def test_help_fits_what_is_asked_most() -> None:
    lines = invoke("search", "--help").output.splitlines()
    options = [line for line in lines if line.startswith("  --")]
    assert len(options) <= 32


def test_convert_a_run_and_a_model_file(finished: Path, tmp_path) -> None:
    before = (finished / "model.tflite").read_bytes()
    (finished / "model.tflite").unlink()
    result = larq_nas("convert", str(finished))
    assert f"written: {finished / 'model.tflite'}" in result.stdout
    assert (finished / "model.tflite").read_bytes() == before
    target = tmp_path / "x.tflite"
    result = invoke("convert", str(finished / "model.keras"), "--output", str(target), "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["bytes"] == target.stat().st_size == len(before)


def test_help_says_what_to_type() -> None:
    for arguments in ([], ["search"], ["convert"]):
        result = invoke(*arguments, "--help")
        assert result.exit_code == 0
        assert "larq-nas search --data digits" in result.output or arguments == ["convert"]
    assert "larq-nas convert runs/digits" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--space", "bts"], "Unknown space `bts`; did you mean `bats`?"),
        (["--space", "missing.py:f"], "Cannot load space `missing.py:f`"),
        (["--method", "bat"], "Unknown method `bat`; did you mean `bats`?"),
        (["--recipe", "shen"], "Unknown recipe `shen`"),
        (["--set", "space.chanels=8"], "did you mean `channels`?"),
        (["--set", "channels=0"], "`--set channels` must be positive, but got 0"),
        (["--set", "space.channels=-8"], "`--set space.channels` must be positive, but got -8"),
        (["--set", "space.cells=0"], "`--set space.cells` must be positive, but got 0"),
        (["--set", "space.groups=12"], "32 channels in 12 groups"),
        (["--set", 'space.operations=["group_conv"]'], "Unknown operation `group_conv`"),
        (["--set", "space.operations=group_conv"], "Unknown operation `group_conv`"),
        (["--set", "space.channels=abc"], "must be a whole number, but got 'abc'"),
        (["--set", ".cells=3"], "`--set` takes space.NAME=VALUE"),
        (["--set", "recipe=bats"], "`--set recipe` is no setting: give --recipe."),
        (["--set", "batch_size=32"], "`--set batch_size` is no setting: give --batch-size."),
        (["--set", "seed=3"], "`--set seed` is no setting: give --seed."),
        (["--set", "cells=3", "--set", "space.cells=4"], "was given twice: leave one out"),
        (["--set", "searcher.learning_rate=x", "--set", "recipe.learning_rate=1"], "got 'x'"),
        (["--budget", "flatbuffer_bytes=1,000KB", "--epochs", "0"], "`--epochs` must be positive"),
        (["--set", "searcher.learning_rate=.5", "--epochs", "0"], "`--epochs` must be positive"),
        (["--set", "spac.channels=3"], "`--set` takes space.NAME=VALUE, searcher.NAME=VALUE or"),
        (["--searcher", "diferentiable"], "did you mean `differentiable`?"),
        (["--set", "searcher.temperature=0"], "`--set searcher.temperature` must be positive"),
        (["--set", "searcher.temprature=1"], "did you mean `temperature`?"),
        (["--set", "recipe.precision=float16"], "float16"),
        (["--data", "digit"], "did you mean `digits`?"),
        (["--epochs", "0"], "`--epochs` must be positive, but got 0"),
        (["--epochs", "-2"], "`--epochs` must be positive, but got -2"),
        (["--train-epochs", "-1"], "`--train-epochs` must be 0 or more, but got -1"),
        (["--train-epochs", "real=2,real=3"], "expected 600, or such as real=200"),
        (["--train-epochs", "real=2"], "Epochs of stages must be given for each, but binary"),
        (["--augment", "standart"], "did you mean `standard`?"),
        (["--batch-size", "0"], "`--batch-size` must be positive, but got 0"),
        (["--set", "space.channels"], "expected NAME=VALUE"),
        (["--set", "space.cells=null"], "must be a whole number, but got None"),
        (["--set", "space.search_cells=2"], "asks for `normal/2`, but its supernet does not"),
        (["--seed", "4294967295"], "`--seed` must be a whole number from 0 to 2147483647"),
        (["--set", "recipe.learning_rate=-1"], "`--set recipe.learning_rate` must be positive"),
        (["--budget", "flatbuffer_bytes=64 apples"], "`--budget` of `flatbuffer_bytes` must be"),
        (
            ["--budget", "flatbuffer_bytes=6KB,activation_bytes=300KB"],
            "--budget flatbuffer_bytes=6KB --budget activation_bytes=300KB",
        ),
        (["--set", "cells=1, channels=4"], "--set cells=1 --set channels=4"),
        (["--budget", "flatbufer_bytes=64KB"], "did you mean `flatbuffer_bytes`?"),
        (["--budget", "flash=64KB"], "Unknown budget `flash`; did you mean `flatbuffer_bytes`?"),
        (["--set", "space.cells=None"], "must be a whole number, but got None"),
        (["--budget", "latency=5ms"], "A `--budget` of latency needs `--latency-table`"),
        (["--workers", "2"], "`--workers` needs a searcher that trains candidates"),
        (["--classes", "5"], "There must be 10 classes"),
        (["--data", ""], "data set"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    arguments: list[str], message: str, tmp_path
) -> None:
    assert message in refused("search", *arguments, "--directory", str(tmp_path / "r"))
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("message", "typed"),
    [
        ("use batches of up to 48 images or x", "use `--batch-size 48` or x"),
        ("images of up to 48x48 pixels, 48x32 pixels", "`--image-size 48`, 48x32 pixels"),
        ("lower x, or batches of up to 4 images", "lower x, or `--batch-size 4`"),
        ("smaller, such as .batch(8), or", "smaller, such as `--batch-size 8`, or"),
        ("or the space's `search_channels=16`", "or `--set space.search_channels=16`"),
        ("with the searcher's `rematerialize=True`", "with `--set searcher.rematerialize=True`"),
        ("or give the space `cells=3 nodes=1`", "or `--set space.cells=3 --set space.nodes=1`"),
        ("the space's `ratios` do not count", "`--set space.ratios` do not count"),
        ("lower `epochs`", "lower `--epochs`"),
        ("or give `classes=4`", "or give `--classes 4`"),
    ],
)
def test_mends_are_named_as_they_are_typed(message: str, typed: str) -> None:
    with click.Context(search):
        assert _as_typed(message) == typed


def test_what_is_stopped_is_no_error() -> None:
    @click.command()
    @one_line_errors
    def command() -> None:
        raise KeyboardInterrupt

    result = CliRunner().invoke(command)
    assert result.exit_code == 130
    assert result.output.startswith("Stopped. What is finished is kept: ")


def test_directories_that_cannot_be_used_are_one_line(finished: Path, tmp_path) -> None:
    settings = [*QUICK, "--epochs", "1", "--train-epochs", "2", "--directory"]
    assert "seed was 0, now 1" in refused("search", "--seed", "1", *settings, str(finished))
    assert "holds a run already" in refused("search", "--no-resume", *settings, str(finished))
    (tmp_path / "file").write_text("x")
    line = refused("search", *settings, str(tmp_path / "file" / "run"))
    assert "`--directory` must be writable" in line


def test_a_damaged_run_is_one_line(finished: Path) -> None:
    path = finished / "architecture.json"
    whole = path.read_text()
    try:
        for text, message in (
            (whole[:50], "cut short or not JSON"),
            ("{}", "not a larq_nas architecture"),
            (whole.replace('"schema": 1', '"schema": 9'), "has schema 9"),
        ):
            path.write_text(text)
            arguments = [*QUICK, "--epochs", "1", "--train-epochs", "2"]
            assert message in refused("search", *arguments, "--directory", str(finished))
    finally:
        path.write_text(whole)


@pytest.mark.slow
def test_sources_that_cannot_be_converted_are_one_line(tmp_path) -> None:
    (tmp_path / "model.keras").write_text("nothing")
    assert "Cannot load a Keras model" in refused("convert", str(tmp_path / "model.keras"))
    (tmp_path / "empty").mkdir()
    assert "holds no run" in refused("convert", str(tmp_path / "empty"))
    wrong = random_architecture(Bats(cells=1, channels=4, nodes=1), 0).build((8, 8, 1), 10)
    wrong.save(tmp_path / "good.keras")
    line = refused("convert", str(tmp_path / "good.keras"), "--output", str(tmp_path / "no" / "x"))
    assert "Cannot write" in line
    line = refused("convert", str(tmp_path / "good.keras"), "--kernel", "fast")
    assert "Unknown kernel `fast`" in line
    result = larq_nas("convert", str(tmp_path / "absent"), check=False)
    assert result.returncode != 0
    assert "Traceback" not in result.stderr


def test_a_model_that_falls_back_is_one_line_and_writes_nothing(tmp_path) -> None:
    import larq as lq

    inputs = tf.keras.Input((8, 8, 4))
    layer = lq.layers.QuantDepthwiseConv2D(
        3, input_quantizer="ste_sign", depthwise_quantizer="ste_sign", name="depthwise"
    )
    tf.keras.Model(inputs, classifier(layer(inputs), 3)).save(tmp_path / "model.keras")
    line = refused("convert", str(tmp_path / "model.keras"))
    assert "Binary layer `depthwise` would run in float" in line
    assert not (tmp_path / "model.tflite").exists()


@pytest.mark.slow
def test_own_space_from_a_file(tmp_path) -> None:
    reference = f"{EXAMPLES / 'own_space.py'}:own_space"
    arguments = ["search", "--space", reference, "--epochs", "1", "--train-epochs", "0", "--json"]
    result = invoke(*arguments, "--batch-size", "300", "--directory", str(tmp_path / "r"))
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert np.isfinite(figures["accuracy"])
