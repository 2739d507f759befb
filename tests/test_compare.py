"""Architectures on equal terms: what is trained, what is said of it, and what is refused."""

import dataclasses
import json
import shutil
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import larq as lq
import pytest
import tensorflow as tf
from click.testing import CliRunner
from conftest import one_choice

from larq_nas.architecture import Architecture
from larq_nas.cli import main
from larq_nas.compare import Record, _space_of, drawn_from, read_entries, summarize, table
from larq_nas.data.validation import DataFacts
from larq_nas.errors import InputError
from larq_nas.spaces import Bats
from larq_nas.spaces.chooser import Chooser
from larq_nas.training import Recipe

SMALL = {"cells": 3, "channels": 12}
SPACE = Bats(cells=3, channels=12, nodes=1)
HALF = tf.keras.layers.Rescaling(0.5, name="half")

FLOAT_FIRST = larq_nas.training.Recipe(stages=("float", "binary"))


ONE = Architecture(
    "bats",
    SPACE.settings(),
    {"normal/2": [["identity", 0], ["group_conv_3x3", 1]]}
    | {"reduction/2": [["group_conv_3x3", 0], ["max_pool_3x3", 1]]},
)


def always_binary(choose: Chooser, shape: Any, classes: int) -> tf.keras.Model:
    """A space without a float twin."""

    def conv(x: tf.Tensor, name: str, size: int) -> tf.Tensor:
        signs = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
        return lq.layers.QuantConv2D(8, size, padding="same", pad_values=1, name=name, **signs)(x)

    x = images = tf.keras.Input(shape)
    x = choose.op("size", x, {f"conv{size}": partial(conv, size=size) for size in (1, 3)})
    x = tf.keras.layers.GlobalAveragePooling2D()(x)
    return tf.keras.Model(images, tf.keras.layers.Dense(classes)(x))


def entries(*sources: Any, settings: Any = None, space: Any = SPACE) -> Any:
    facts = DataFacts((8, 8, 1), 10, 32, 192, 64, "")
    return read_entries(list(sources), settings or {}, drawn_from(space), facts, Recipe())


@pytest.fixture(scope="module")
def data() -> tuple[tf.data.Dataset, tf.data.Dataset]:
    train, validation = larq_nas.datasets.load("digits", batch_size=32)
    return train.take(6), validation.take(2)


@pytest.fixture(scope="module")
def compared(data: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    directory = tmp_path_factory.mktemp("compared")
    rows = larq_nas.compare(
        ["random:2", ONE],
        *data,
        directory=directory,
        seeds=(3,),
        epochs=1,
        recipe=Recipe(stages=("binary",)),
        settings=SMALL,
        space=SPACE,
        preprocessing=HALF,
        verbose=0,
    )
    return directory, rows


def test_a_row_for_each_with_means_and_spread(compared: tuple[Path, list[Any]]) -> None:
    directory, (drawn, one) = compared
    assert (drawn["architecture"], drawn["runs"]) == ("2 random bats", 2)
    assert (one["architecture"].split()[0], one["runs"]) == ("bats", 1)
    results = [
        json.loads((directory / "2_random_bats" / f"{n}_seed3" / "result.json").read_text())
        for n in range(2)
    ]
    accuracies = [result["accuracy"] for result in results]
    assert drawn["accuracy"] == pytest.approx(statistics.mean(accuracies))
    assert drawn["spread"] == pytest.approx(statistics.stdev(accuracies))
    assert one["spread"] is None
    top5 = [result["top5_accuracy"] for result in results]
    assert drawn["top5_accuracy"] == pytest.approx(statistics.mean(top5))
    assert drawn["train_seconds"] > 0
    assert drawn["search_seconds"] is None
    costs = [result["costs"]["binary_macs"] for result in results]
    assert drawn["binary_macs"] == statistics.mean(costs)
    assert one["microseconds"] > 0
    record = json.loads((directory / "comparison.json").read_text())
    assert record["rows"] == [drawn, one]
    assert (record["terms"]["epochs"], record["terms"]["settings"]) == (1, SMALL)
    model = tf.keras.models.load_model(directory / "2_random_bats" / "0_seed3" / "model.keras")
    assert model.layers[1].name == "half"
    assert "2 random bats" in (directory / "report.html").read_text()
    assert (directory / "comparison.csv").read_text().startswith("architecture,runs,")


def test_all_that_is_compared_is_binary(compared: tuple[Path, list[Any]]) -> None:
    directory, _ = compared
    for path in directory.rglob("result.json"):
        layers = json.loads(path.read_text())["audit"]["layers"]
        real = [layer["layer"] for layer in layers if not layer["binary"]]
        assert real == ["stem_conv", "head_dense"], path


@pytest.mark.slow
def test_cells_of_real_networks_are_binary_too(data: Any, tmp_path: Path) -> None:
    settings = {"settings": SMALL, "epochs": 1, "seeds": (0,), "verbose": 0, "latency": False}
    names = ["nasnet_a", "amoebanet_a", "darts_first_order", "darts_second_order", "p_darts"]
    rows = larq_nas.compare(names, *data, directory=tmp_path / "run", **settings)
    assert [row["runs"] for row in rows] == [1] * 5
    test_all_that_is_compared_is_binary((tmp_path / "run", rows))


@pytest.mark.slow
def test_the_command_goes_on_where_it_was(compared: tuple[Path, list[Any]], tmp_path: Path) -> None:
    arguments = ["compare", "resnet18_cifar", "--set", "expansion=0.0625", "--epochs", "1"]
    arguments += ["--seeds", "0", "--recipe", "shen2019", "--no-latency", "--json"]
    arguments += ["--directory", str(tmp_path / "run")]
    outcomes = [CliRunner().invoke(main, arguments) for _ in range(2)]
    assert [outcome.exit_code for outcome in outcomes] == [0, 0], outcomes[0].output
    (row,), (again,) = (json.loads(outcome.stdout)["rows"] for outcome in outcomes)
    assert row == again
    assert row["architecture"] == "resnet18_cifar"
    assert "microseconds" not in row or row["microseconds"] is None


@pytest.mark.slow
def test_a_further_call_adds_to_what_there_is(
    data: Any, compared: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    """Seeds to a row, rows of architectures without the settings of others, on the same terms."""
    directory, (drawn, one) = compared
    shutil.copytree(directory, tmp_path / "run")
    settings: Any = {"directory": tmp_path / "run", "settings": SMALL, "space": SPACE}
    settings |= {"recipe": Recipe(stages=("binary",)), "verbose": 0, "latency": False}
    settings |= {"preprocessing": HALF}
    added, kept = larq_nas.compare([ONE], *data, **settings, seeds=(4,), epochs=1)
    assert kept == drawn
    assert (added["runs"], added["accuracies"][:1]) == (2, one["accuracies"])
    again = larq_nas.compare(["random:2", ONE], *data, **settings, seeds=(3,), epochs=1)
    assert [row["runs"] for row in again] == [2, 2]
    assert again[0] == drawn
    with pytest.raises(InputError, match=r"on other terms \(epochs was 1, now 2\): use those"):
        larq_nas.compare(["resnet18_cifar"], *data, **settings, epochs=2)
    assert json.loads((tmp_path / "run" / "comparison.json").read_text())["rows"] == again


def test_one_call_at_a_time(tmp_path: Path) -> None:
    with (
        Record(tmp_path, {}),
        pytest.raises(InputError, match=r"Another process works in .*: wait for it, or use"),
        Record(tmp_path, {}),
    ):
        pass


def test_settings_that_others_have_may_stay() -> None:
    facts = DataFacts((8, 8, 1), 10, 32, 192, 64, "")
    sources, settings = ["resnet18_cifar"], {"cells": 3}
    with pytest.raises(InputError, match="None of the architectures has a setting `cells`"):
        read_entries(sources, settings, SPACE, facts, Recipe())
    (entry,) = read_entries(sources, settings, SPACE, facts, Recipe(), adds=True)
    assert "no cells" in entry.told


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_text('{"rows": []}')
    with pytest.raises(InputError, match=r"comparison.json` is damaged, or not of a comparison"):
        Record(tmp_path, {})


def test_what_a_row_is_and_what_was_changed_is_told() -> None:
    published, backbone = entries("p_darts", "resnet18_cifar", settings=SMALL)
    assert published.architectures[0].settings["precision"] == "binary"
    assert {
        "cells=3 (was 20)",
        "channels=12 (was 36)",
        "nodes=4",
        "precision=binary (was real)",
        "activation=prelu (was relu)",
    } <= set(published.told)
    assert {"expansion=1", "binarization=bats", "no cells", "no channels"} <= set(backbone.told)


def test_random_ones_are_of_the_published_size() -> None:
    """By the name of a space; a `Space` is taken as it is."""
    published = larq_nas.Architecture.published("bats").settings
    (entry,) = entries("random", settings={"cells": 3}, space="bats")
    settings = entry.architectures[0].settings
    names = ("channels", "groups", "activation")
    assert [settings[name] for name in names] == [published[name] for name in names]
    assert {"groups=12", "cells=3 (was 20)"} <= set(entry.told)


def test_spaces_of_ones_own_are_drawn_from() -> None:
    (entry,) = entries("random:2", space=one_choice)
    assert {one.space for one in entry.architectures} == {"one_choice"}


def test_the_same_names_in_other_folders_are_told_apart(tmp_path: Path) -> None:
    for name, choice in (("a", "identity"), ("b", "max_pool_3x3")):
        choices = {**ONE.choices, "normal/2": [[choice, 0], ["group_conv_3x3", 1]]}
        (tmp_path / name / "run").mkdir(parents=True)
        path = tmp_path / name / "run" / "architecture.json"
        dataclasses.replace(ONE, choices=choices).save(path)
    found = entries(str(tmp_path / "a" / "run"), tmp_path / "b" / "run", ONE.with_settings(cells=4))
    assert len({entry.folder for entry in found}) == 3


@pytest.mark.slow
def test_random_architectures_differ_and_are_the_same_again() -> None:
    (one,), (other,) = entries("random:3"), entries("random:3")
    choices = [json.dumps(a.choices, sort_keys=True) for a in one.architectures]
    assert len(set(choices)) == 3
    assert one == other


def test_a_row_without_an_end_says_why() -> None:
    row = summarize("lost", [], ["Diverged in stage `train_binary`"])
    assert row == {
        "architecture": "lost",
        "runs": 0,
        "diverged": 1,
        "failures": ["Diverged in stage `train_binary`"],
    }
    kept = {"architecture": "kept", "runs": 2, "accuracy": 0.5, "spread": 0.01}
    lines = [line for line in table([row, kept]).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["architecture", "accuracy", "spread", "runs", "diverged"]
    assert cells[1] == ["kept", "50.00%", "1.00", "2", ""]
    assert cells[2] == ["lost", "", "", "0", "1"]


@pytest.mark.parametrize(
    ("sources", "settings", "message"),
    [
        ([], {}, "`architectures` must be a list of one or more, but got"),
        (["btas"], {}, "Unknown architecture `btas`; did you mean `bats`"),
        (["randm:2"], {}, "did you mean `random:5`"),
        (
            ["bats"],
            {"cells": 2, "channels": 12},
            "`bats` cannot be built in these settings: The architecture",
        ),
        (["bats", "bats"], SMALL, "must be different ones, of different names, but got `bats`"),
        (["bats"], {**SMALL, "cels": 3}, "None of the architectures has a setting `cels`"),
        (["darts"], {}, "`darts` is a space, not an architecture: compare random:5 of it"),
        (["random:0"], {}, "`random:0` is no architecture: ask for 1 or more"),
        (["bats"], {"cells": 3, "channels": 7}, "`channels` must be divisible by `groups`"),
        ([5], {}, "must hold names, paths and objects of larq_nas.Architecture, but got 5"),
    ],
)
def test_what_cannot_be_compared_is_refused(sources: Any, settings: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        entries(*sources, settings=settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": ()}, "`seeds` must be a list of different"),
        ({"seeds": (0, 0)}, "`seeds` must be a list of different"),
        ({"seeds": 5}, "`seeds` must be a list of different"),
        ({"seeds": ([0],)}, "`seed` must be a whole number"),
        ({"seeds": (-1,)}, "`seed` must be a whole number"),
        ({"directory": None}, "`directory` must be the path of a folder, but got None"),
        ({"settings": ["cells"]}, "`settings` must be a mapping of names to values, but got"),
        ({"verbose": "x"}, "`verbose` must be \"auto\", 0, 1 or 2, but got 'x'"),
        ({"verbose": None}, "`verbose` must be .* but got None"),
        ({"preprocessing": 255}, "`preprocessing` must be a layer"),
        ({"space": "bats_larg"}, "did you mean `bats`"),
        ({"architectures": Path("bats")}, "`architectures` must be a list of one or more"),
        (
            {"architectures": ["random"], "space": always_binary, "recipe": FLOAT_FIRST},
            "`1 random always_binary` cannot be built in these settings: .* float twin",
        ),
    ],
)
def test_arguments_are_checked(
    data: Any, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    given = {"architectures": ["bats"], "directory": tmp_path / "run", "verbose": 0, **settings}
    train, validation = data
    with pytest.raises(InputError, match=message):
        larq_nas.compare(train=train, validation=validation, **given)
    assert not (tmp_path / "run").exists()


def test_other_files_are_left_alone(data: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds other files, such as notes\.txt"):
        larq_nas.compare(["bats"], *data, directory=tmp_path, settings=SMALL, verbose=0)
    with pytest.raises(InputError, match=r"`directory` must be a folder, but `.*notes.txt` is a"):
        larq_nas.compare(["bats"], *data, directory=tmp_path / "notes.txt", verbose=0)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_published_architectures_are_listed() -> None:
    assert {"bats", "bats_medium", "bats_large", "p_darts"} <= set(
        larq_nas.Architecture.published_names()
    )
    bats = larq_nas.Architecture.published("bats")
    for name, channels in (("bats_medium", 48), ("bats_large", 72)):
        found = larq_nas.Architecture.published(name)
        assert found == dataclasses.replace(
            bats, settings={**bats.settings, "channels": channels, "groups": channels // 3}
        )
    with pytest.raises(InputError, match="did you mean `bats_large`"):
        larq_nas.Architecture.published("bats_larg")


def test_random_ones_are_of_the_space_of_the_first_run_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ONE.save(tmp_path / "architecture.json")
    for sources in ([ONE, "bnas_cifar"], ["bnas_cifar", "random:2", tmp_path], [tmp_path]):
        assert _space_of(sources) == SPACE
    assert _space_of(["random:2", "bnas_cifar"]) == drawn_from("bats")
    assert _space_of([Architecture("mine")]) == drawn_from("bats")
    # A folder that has the name of a network by hand is not meant.
    (tmp_path / "resnet18_cifar").mkdir()
    (tmp_path / "random:2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert _space_of(["resnet18_cifar", "random:2"]) == drawn_from("bats")
