"""`larq-nas train` and `larq-nas derive`."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from test_cli import invoke, refused

import larq_nas
from larq_nas.spaces import Bnas
from larq_nas.training.loop import read_history

SMALL = ("--set", "cells=3", "--set", "channels=4", "--set", "nodes=1", "--batch-size", "300")


def succeeded(*arguments: str) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("cli") / "search"
    arguments = ("search", "--space", "bnas", *SMALL, "--epochs", "1", "--train-epochs", "0")
    succeeded(*arguments, "--json", "--directory", str(directory))
    return directory


@pytest.fixture(scope="module")
def trained(searched: Path, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("cli") / "train"
    succeeded(*train(searched), "--json", "--directory", str(directory))
    return directory


def train(searched: Path, *arguments: str) -> tuple[str, ...]:
    architecture = str(searched / "architecture.json")
    return ("train", architecture, "--batch-size", "300", "--epochs", "1", *arguments)


def test_train_again_prints_the_result(searched: Path, trained: Path) -> None:
    printed = succeeded(*train(searched), "--directory", str(trained))
    assert "binary layers run as LceBconv2d" in printed
    assert f"written: {trained / 'model.tflite'}" in printed
    figures = json.loads(succeeded(*train(searched), "--json", "--directory", str(trained)))
    assert figures["bytes"] == (trained / "model.tflite").stat().st_size
    assert figures["directory"] == str(trained)


@pytest.mark.slow
def test_train_in_other_settings_by_a_recipe_from_a_teacher(
    searched: Path, trained: Path, tmp_path
) -> None:
    options = (
        "--set",
        "space.channels=8",
        "--recipe",
        "bnas",
        "--set",
        "recipe.learning_rate=0.01",
    )
    directory = ("--teacher", str(trained), "--directory", str(tmp_path / "r"))
    result = invoke(*train(searched, *options), "--json", *directory)
    assert result.exit_code == 0, result.output
    json.loads(result.stdout)
    settings = json.loads((tmp_path / "r" / "settings.json").read_text())["settings"]
    assert settings["architecture"]["settings"]["channels"] == 8
    assert settings["recipe"]["weight_decay"] == 3e-6
    assert settings["recipe"]["learning_rate"] == 0.01
    assert settings["teacher"].startswith("bnas ")
    assert [row["stage"] for row in read_history(tmp_path / "r" / "history.csv")] == [
        "train_binary"
    ]


def test_what_changed_in_a_directory_is_named_in_one_line(searched: Path, trained: Path) -> None:
    def refusal(*arguments: str) -> str:
        return refused(*train(searched, *arguments), "--directory", str(trained))

    assert "recipe.weight_decay was 0.0, now 3e-06" in refusal("--recipe", "bnas")
    assert "recipe.learning_rate was 0.05, now 0.1" in refusal("--set", "recipe.learning_rate=0.1")
    assert "teacher was None, now 'bnas " in refusal("--teacher", str(trained))
    assert "holds a run already" in refusal("--no-resume")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bnas_cifer"], "Unknown published architecture `bnas_cifer`; did you mean `bnas_cifar`?"),
        (["bnas"], "`bnas` is a space, not an architecture"),
        (["missing.json"], "Cannot read architecture `missing.json`: No such file"),
        (["bnas_cifar", "--set", "chanels=8"], "did you mean `channels`?"),
        (["bnas_cifar", "--set", "cells=2"], "does not ask: normal/2"),
        (["bnas_cifar", "--recipe", "bnsa"], "Unknown recipe `bnsa`; did you mean `bnas`?"),
        (
            ["bnas_cifar", "--set", "recipe.learning_rate=0"],
            "`--set recipe.learning_rate` must be positive",
        ),
        (["bnas_cifar", "--set", "searcher.temperature=1"], "is for larq-nas search"),
        (["bnas_cifar", "--epochs", "-1"], "`--epochs` must be 0 or more, but got -1"),
        (["bnas_cifar", "--epochs", "few"], "expected 600, or such as real=200,binary=400"),
        (["bnas_cifar", "--epochs", "real=3"], "Unknown stage of a training `real`"),
        (["bats", "--epochs", "real=3"], "but binary of real, binary is missing"),
        (["bats", "--set", "recipe.stages=real"], "`--set recipe.stages` must be"),
        (
            ["bats", "--set", 'recipe.stages=[{"name": "binary", "epoch": 3}]'],
            "A stage has no setting 'epoch': it has name, epochs,",
        ),
        (["bnas_cifar", "--data", "digit"], "did you mean `digits`?"),
        (["bnas_cifar", "--data", "./absent"], "There is no folder or file `./absent`"),
        (["bnas_cifar", "--validation-share", "0.1"], "leave out `--validation-share`"),
        (["bnas_cifar", "--class-weight", "rare"], "balanced or CLASS=WEIGHT, but got 'rare'"),
        (["bnas_cifar", "--class-weight", "rare=5"], "Unknown class `rare`"),
        (["bnas_cifar", "--augment", "standart"], "did you mean `standard`?"),
        (["bnas_cifar", "--space", "missing.py:f"], "Cannot load space `missing.py:f`"),
        (["bnas_cifar", "--teacher", __file__], "Cannot load a Keras model from"),
        (["bnas_cifar", "--teacher", "/"], "holds no run"),
        (["bnas_cifar", "--teacher", "absent"], "Path 'absent' does not exist"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    arguments: list[str], message: str, tmp_path
) -> None:
    assert message in refused("train", *arguments, "--directory", str(tmp_path / "r"))
    assert not (tmp_path / "r").exists()


def test_derive_again_prints_what_the_search_found_or_writes_it(searched: Path, tmp_path) -> None:
    found = (searched / "architecture.json").read_text()
    assert succeeded("derive", str(searched)) == found
    output = tmp_path / "again.json"
    assert succeeded("derive", str(searched), "--output", str(output)) == f"written: {output}\n"
    assert output.read_text() == found


def with_probabilities(searched: Path, copy: Path, given: dict[str, float]) -> Path:
    """Copy a search, and make it believe in `given` operations on every input."""
    shutil.copytree(searched, copy)
    with open(copy / "probabilities.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with open(copy / "probabilities.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({**row, "probability": given.get(row["operation"], 0.01)})
    return copy


def test_a_transfer_factor_divides_the_probability_of_zeros(searched: Path, tmp_path) -> None:
    """0.5 / 1.2 is more than 0.4, and 0.5 / 1.3 less; one operation keeps each cell alive."""
    run = with_probabilities(searched, tmp_path / "r", {"zero": 0.5, "conv_3x3": 0.4})
    for factor, other in (("1.2", "zero"), ("1.3", "conv_3x3")):
        record = json.loads(succeeded("derive", str(run), "--transfer-factor", factor))
        for pairs in record["choices"].values():
            assert sorted(name for name, _ in pairs) == ["conv_3x3", other]
    space = larq_nas.Architecture(record["space"], record["settings"]).resolve()
    assert space == Bnas(cells=3, channels=4, nodes=1)


def test_what_cannot_be_derived_is_one_line(searched: Path, trained: Path, tmp_path) -> None:
    assert "must be 1 or more, but got 0.5" in refused(
        "derive", str(searched), "--transfer-factor", "0.5"
    )
    assert "holds no finished search" in refused("derive", str(trained))
    assert "holds no run" in refused("derive", str(tmp_path))
    for output in (tmp_path / "no" / "x.json", tmp_path):
        line = refused("derive", str(searched), "--output", str(output))
        assert line.startswith(f"Error: Cannot write `{output}`: ")
    run = with_probabilities(searched, tmp_path / "r", {})
    (run / "probabilities.csv").write_text("a,b\n1,2\n")
    assert "is not the record of a search" in refused("derive", str(run))


def test_a_space_of_ones_own_is_asked_for(searched: Path, tmp_path) -> None:
    """As a search in one's own space leaves it, which no name stands for."""
    run = tmp_path / "run"
    shutil.copytree(searched, run)
    for name, at in (("architecture.json", ()), ("settings.json", ("settings",))):
        record = json.loads((run / name).read_text())
        part = record
        for key in at:
            part = part[key]
        part["space"] = {"name": "mine"} if at else "mine"
        (run / name).write_text(json.dumps(record))
    message = "Unknown space `mine`"
    architecture = str(run / "architecture.json")
    for arguments in (
        ("train", architecture, "--directory", str(tmp_path / "r")),
        ("train", str(run), "--directory", str(tmp_path / "r")),
        ("derive", str(run)),
        ("cost", architecture),
        ("compare", str(run), "--directory", str(tmp_path / "c")),
    ):
        line = refused(*arguments)
        assert message in line
        assert "give your own as `--space`, the object itself or FILE.py:FUNCTION" in line
    assert not (tmp_path / "r").exists()


def test_help_says_what_to_type() -> None:
    assert "larq-nas train bnas_cifar --set space.cells=8" in succeeded("train", "--help")
    assert "larq-nas derive runs/cifar10" in succeeded("derive", "--help")


def test_classes_are_weighed_by_name(searched: Path, tmp_path) -> None:
    weights = [text for d in range(10) for text in ("--class-weight", f"{d}={1 + d}")]
    directory = ("--json", "--directory", str(tmp_path / "r"))
    succeeded(*train(searched, *weights), *directory)
    settings = json.loads((tmp_path / "r" / "settings.json").read_text())["settings"]
    assert settings["class_weight"] == list(range(1, 11))
    for given, message in (
        ("ten=1", "Unknown class `ten`"),
        ("equal", "expected balanced or CLASS=WEIGHT"),
        ("1=a", "expected balanced or CLASS=WEIGHT"),
    ):
        assert message in refused(*train(searched, "--class-weight", given), *directory)
