"""A progressive search: what goes on, killed and resumed, and what is refused."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest
import tensorflow as tf
from conftest import Interrupt, one_choice

from larq_nas.errors import InputError
from larq_nas.methods import resolve
from larq_nas.searchers import Progressive
from larq_nas.searchers.differentiable.derivation import warn_of_dropped
from larq_nas.searchers.differentiable.progressive import strongest_operations
from larq_nas.spaces import Bats, Bnas
from larq_nas.supernet.relax import Relax

SPACE = Bats(cells=3, channels=4, nodes=1, operations=("group_conv_3x3", "identity", "zero"))
SEARCHER = Progressive(stage_cells=(3, 4), stage_operations=(3, 2), architecture_learning_rate=0.05)


@pytest.fixture(scope="module")
def data() -> tuple[tf.data.Dataset, tf.data.Dataset]:
    train, validation = larq_nas.datasets.load("digits", batch_size=32)
    return train.take(8), validation.take(2)


def search(data: Any, searcher: Any = SEARCHER, space: Any = SPACE, **settings: Any) -> Any:
    settings = {"epochs": 2, "train_epochs": 0, "verbose": 0, **settings}
    return larq_nas.search(*data, space, searcher, **settings)


@pytest.fixture(scope="module")
def found(data: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("progressive") / "run"
    search(data, directory=directory)
    return directory


def probabilities(directory: Path) -> list[dict[str, str]]:
    with open(directory / "probabilities.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_most_probable_go_on() -> None:
    generator = np.random.default_rng(0)
    scores = generator.random((5, 8))
    kept = np.array([np.isin(range(8), generator.permutation(8)[:6]) for _ in range(5)])
    for row, before, going in zip(scores, kept, strongest_operations(scores, kept, 3), strict=True):
        assert sum(going) == 3
        assert not any(new and not old for new, old in zip(going, before, strict=True))
        worst = min(row[number] for number in range(8) if going[number])
        assert all(
            row[number] < worst for number in range(8) if before[number] and not going[number]
        )


def test_each_stage_is_deeper_and_has_fewer_operations(found: Path) -> None:
    (stage,) = json.loads((found / "stages.json").read_text())["stages"]
    assert (stage["cells"], stage["operations"]) == (3, 3)
    rows = probabilities(found)
    assert {row["epoch"] for row in rows} == {"1", "2", "3", "4"}
    of_epoch = {
        (row["epoch"], row["choice"], row["input"], row["operation"]): float(row["probability"])
        for row in rows
    }
    operations = SPACE.operations
    for (epoch, choice, index, operation), share in of_epoch.items():
        kept = stage["kept"][choice][int(index)]
        going = kept[operations.index(operation)]
        assert (share > 0) == (going or int(epoch) <= 2)
        if epoch == "2" and not going:
            (dropped,) = [
                one for one in stage["dropped"][choice] if one[:2] == [operation, int(index)]
            ]
            assert dropped[2] == pytest.approx(share)
            edge = [of_epoch[epoch, choice, index, name] for name in operations]
            assert share == min(edge)
    for name, pairs in larq_nas.Architecture.load(found / "architecture.json").choices.items():
        for operation, index in pairs:
            assert stage["kept"][name][index][operations.index(operation)]


@pytest.mark.slow
@pytest.mark.parametrize("fit", [1, 2])
def test_killed_and_resumed_it_finds_the_same(
    data: Any, found: Path, tmp_path: Path, capsys: Any, fit: int
) -> None:
    directory = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        search(data, directory=directory, callbacks=[Interrupt(fit, 1)])
    capsys.readouterr()
    search(data, directory=directory, verbose=2)
    told = "Stage 1 of 2: 3 cells, 3 operations on each edge: done before"
    assert (told in capsys.readouterr().out) == (fit == 2)
    for name in ("stages.json", "probabilities.csv", "history.csv", "architecture.json"):
        assert (directory / name).read_bytes() == (found / name).read_bytes(), name


@pytest.mark.slow
def test_a_stage_that_has_hardly_decided_is_told(data: Any) -> None:
    """What it drops is little more than chance."""
    slow = dataclasses.replace(SEARCHER, architecture_learning_rate=1e-6)
    with pytest.warns(UserWarning, match="Stage 1 has hardly decided"):
        search(data, slow, epochs=1)


def test_dropped_operations_that_come_back_are_told() -> None:
    """A budget may leave no other network."""
    kept = {"normal/2": [[True, True, False]] * 2, "reduction/2": [[True, False, True]] * 2}
    choose = Relax(kept=kept)
    SPACE.build(choose, (8, 8, 1), 10)
    chosen = {
        "normal/2": [("group_conv_3x3", 0), ("identity", 1)],
        "reduction/2": [("group_conv_3x3", 0), ("identity", 1)],
    }
    with pytest.warns(UserWarning, match="1 operations that an earlier stage had .* `identity` on"):
        warn_of_dropped(choose, chosen)


def test_a_damaged_record_of_stages_is_refused(data: Any, found: Path, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    shutil.copytree(found, directory)
    for name in ("architecture.json", "model.keras"):
        (directory / name).unlink()
    (directory / "stages.json").write_text('{"stages": [{"kept": {}}]}')
    with pytest.raises(InputError, match="is damaged, or not of this search: delete it"):
        search(data, directory=directory)


def test_defaults_are_those_of_the_paper() -> None:
    searcher: Any = resolve(searcher="progressive").searcher
    assert (searcher.stage_cells, searcher.stage_operations) == ((5, 11, 17), (8, 5, 3))
    assert searcher.default_epochs == 25


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stage_cells": (5, 5, 7)}, "`stage_cells` must rise from stage to stage"),
        ({"stage_operations": (8, 8, 3)}, "`stage_operations` must fall from stage to stage"),
        ({"stage_cells": (3, 5)}, "must be of as many stages, but got 2 and 3"),
        ({"stage_cells": ()}, "`stage_cells` must be a number for each stage"),
        ({"stage_operations": (8, 5, 2.5)}, r"`stage_operations\[[0-2]\]` must be a whole number"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Progressive(**settings)


@pytest.mark.parametrize(
    ("space", "searcher", "message"),
    [
        (
            one_choice,
            SEARCHER,
            "which space `one_choice` does not have",
        ),
        (Bnas(cells=3, channels=4, nodes=1), Progressive(), "must start with all 7 operations"),
        (
            SPACE,
            Progressive(stage_cells=(3, 4), stage_operations=(3, 1)),
            "`stage_operations` must end with 2 or more",
        ),
        (
            dataclasses.replace(SPACE, search_cells=5),
            SEARCHER,
            "`search_cells` of space `bats` has no effect in a search by `progressive`",
        ),
        (
            SPACE,
            Progressive(stage_cells=(2, 3), stage_operations=(3, 2)),
            "give both the same kinds of cells",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused(
    data: Any, tmp_path: Path, space: Any, searcher: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        search(data, searcher, space, directory=tmp_path / "run")
    assert not (tmp_path / "run").exists()
