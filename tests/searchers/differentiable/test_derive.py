import csv
import json
import shutil
from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import larq_nas
from larq_nas.choices import all_alive, revive
from larq_nas.cost import Budget, Limits, SpaceCosts, require_feasible
from larq_nas.errors import InputError
from larq_nas.layers import binary_conv, classifier
from larq_nas.run_directory import RunDirectory
from larq_nas.searchers import Differentiable
from larq_nas.searchers.differentiable.derivation import derive, weakened
from larq_nas.spaces import Bnas
from larq_nas.spaces.chooser import Chooser
from larq_nas.supernet.relax import Relax

SHAPE = (8, 8, 1)
SPACE = Bnas(cells=3, channels=8, nodes=2)


@pytest.fixture(scope="module")
def choose() -> Relax:
    choose = Relax()
    SPACE.build(choose, SHAPE, 10)
    return choose


def scores(choose: Relax, **best: float) -> dict[str, np.ndarray]:
    """Zero is best everywhere; `best` gives the score of other operations, on input 1."""
    found = {}
    for name, choice in choose.choices.items():
        matrix = np.full((choice.inputs, len(choice.operations)), 0.01)
        matrix[:, choice.operations.index("zero")] = 0.9
        for operation, score in best.items():
            matrix[1, choice.operations.index(operation)] = score
        found[name] = matrix
    return found


def test_gamma_divides_the_zero_column_and_no_other(choose: Relax) -> None:
    choice = choose.choices["normal/3"]
    probabilities = np.random.default_rng(0).dirichlet(np.ones(7), 3)
    zero = choice.operations.index("zero")
    expected = probabilities.copy()
    expected[:, zero] = probabilities[:, zero] / 3
    np.testing.assert_array_equal(weakened(choice, probabilities, 3.0), expected)
    assert probabilities.sum() == pytest.approx(3)  # what was given is left alone


def test_a_zero_that_is_weakened_loses(choose: Relax) -> None:
    choice = choose.choices["normal/2"]
    probabilities = np.full((2, 7), 0.1)
    probabilities[0, choice.operations.index("zero")] = 0.5
    probabilities[0, choice.operations.index("conv_5x5")] = 0.2
    probabilities[1, choice.operations.index("zero")] = 0.4
    probabilities[1, choice.operations.index("max_pool_3x3")] = 0.3
    found = [choice.strongest(weakened(choice, probabilities, gamma)) for gamma in (1.0, 2.0, 3.0)]
    assert found[0] == [("zero", 0), ("zero", 1)]
    assert found[1] == [("zero", 0), ("max_pool_3x3", 1)]
    assert found[2] == [("conv_5x5", 0), ("max_pool_3x3", 1)]


def test_a_cell_that_is_zero_on_every_path_gets_the_best_that_is_not(choose: Relax) -> None:
    given = scores(choose, conv_3x3=0.3, max_pool_3x3=0.2)
    given["reduction/3"][0, choose.choices["reduction/3"].operations.index("conv_5x5")] = 0.5
    with pytest.warns(UserWarning, match="Every path") as told:
        chosen = derive(choose.choices, choose.cells, given)
    texts = [str(warning.message) for warning in told]
    assert chosen["normal/2"] == [("zero", 0), ("conv_3x3", 1)]
    assert chosen["normal/3"] == [("zero", 0), ("zero", 1)]
    assert chosen["reduction/3"] == [("conv_5x5", 0), ("zero", 1)]
    assert sorted(texts) == [
        "Every path of cell `normal` was zero: `conv_3x3` on input 1 of `normal/2` was taken "
        "instead, the best that is not.",
        "Every path of cell `reduction` was zero: `conv_5x5` on input 0 of `reduction/3` was "
        "taken instead, the best that is not.",
    ]


def test_an_operation_on_a_node_of_zeros_gives_no_life(choose: Relax) -> None:
    """A convolution of zeros is a constant, whatever the image."""
    given = scores(choose, conv_3x3=0.3)
    operations = choose.choices["normal/3"].operations
    given["normal/3"][2, operations.index("conv_5x5")] = 0.99
    with pytest.warns(UserWarning, match="Every path of cell"):
        chosen = derive(choose.choices, choose.cells, given)
    assert ("conv_5x5", 2) in chosen["normal/3"]
    assert ("conv_3x3", 1) in chosen["normal/2"] + chosen["normal/3"]


def test_a_live_cell_is_left_alone(choose: Relax, recwarn) -> None:
    given = scores(choose, max_pool_3x3=0.95)
    derive(choose.choices, choose.cells, given)
    assert not recwarn.list


@pytest.mark.slow
def test_no_cell_is_mended_beyond_the_budget(choose: Relax) -> None:
    """A pool fits where the stronger convolution does not."""
    costs = SpaceCosts(SPACE, SHAPE, 10)
    pools = {
        name: [("zero", 0), ("max_pool_3x3" if name.endswith("/2") else "zero", 1)]
        for name in choose.choices
    }
    given = scores(choose, conv_3x3=0.3, max_pool_3x3=0.2)
    budget = Budget.parse({"binary_macs": costs.of(pools)["binary_macs"]})
    with pytest.warns(UserWarning, match="over the budget") as told:
        chosen = derive(choose.choices, choose.cells, given, Limits(costs, budget))
    texts = [str(warning.message) for warning in told]
    assert texts[:2] == [
        f"Every path of cell `{cell}` was zero in the strongest architecture: only others were "
        "looked at."
        for cell in ("normal", "reduction")
    ]
    assert texts[2].startswith("The strongest architecture is over the budget")
    assert len(texts) == 3
    assert not budget.excess(costs.of(chosen))
    assert all_alive(choose.cells.values(), choose.choices, chosen)


def test_a_budget_that_only_dead_cells_keep_to_is_refused() -> None:
    costs = SpaceCosts(SPACE, SHAPE, 10)
    dead = {name: [("zero", index) for _, index in c.any()] for name, c in costs.choices.items()}
    assert not all_alive(costs.cells, costs.choices, dead)
    budget = Budget.parse({"binary_macs": 1})
    assert not budget.excess(costs.of(dead))
    with pytest.raises(InputError, match=r"`binary_macs` must be at least [\d,]+, but got 1:"):
        require_feasible(costs, budget)


@pytest.mark.parametrize("concat", [None, [4], [2, 4]])
def test_one_changed_pair_is_enough_and_costs_least(concat: list[int] | None) -> None:
    """Against trying everything, also where some nodes are not concatenated."""

    def build(choose: Chooser, input_shape: tuple[int, int, int], classes: int) -> tf.keras.Model:
        x = tf.keras.Input(input_shape)
        pools = {"max": lambda y, name: tf.keras.layers.MaxPool2D(3, 1, "same", name=name)(y)}
        conv = {"conv": lambda y, name: binary_conv(y, y.shape[-1], 3, name=name)}
        named = {"zero": None, **pools, **conv}
        y = choose.cell("a", [x, x], lambda _: named, nodes=3, concat=concat, keep_zero=True)
        return tf.keras.Model(x, classifier(y, classes))

    choose = Relax()
    build(choose, (8, 8, 3), 2)
    generator = np.random.default_rng(len(concat or ()))
    for _ in range(20):
        given = {n: generator.random((c.inputs, 3)) * 0.5 for n, c in choose.choices.items()}
        for matrix in given.values():
            matrix[:, 0] += generator.random() * 2
        before = {name: choice.strongest(given[name]) for name, choice in choose.choices.items()}
        after, changes = revive(choose.cells.values(), choose.choices, given, before)
        alive = all_alive(choose.cells.values(), choose.choices, before)
        assert all_alive(choose.cells.values(), choose.choices, after)
        assert len(changes) == (0 if alive else 1)
        if not alive:
            gains = list(every_revival(choose, given, before))
            assert total(choose, given, after) == pytest.approx(max(gains))


def every_revival(choose: Relax, given: Any, before: Any) -> Iterator[float]:
    for name, choice in choose.choices.items():
        for pairs in combinations(product(choice.operations, range(choice.inputs)), 2):
            changed = {**before, name: list(pairs)}
            new = set(pairs) - set(before[name])
            alive = all_alive(choose.cells.values(), choose.choices, changed)
            if alive and pairs[0][1] != pairs[1][1] and len(new) == 1:
                yield total(choose, given, changed)


def total(choose: Relax, given: Any, chosen: Any) -> float:
    return sum((choose.choices[n].one_hot(pairs) * given[n]).sum() for n, pairs in chosen.items())


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "bnas"
    train, validation = larq_nas.datasets.load("digits", 64)
    searcher = Differentiable(architecture_learning_rate=0.05)
    larq_nas.search(
        train.take(4),
        validation.take(1),
        SPACE,
        searcher,
        epochs=2,
        train_epochs=0,
        classes=10,
        directory=directory,
        verbose=0,
    )
    return directory


@pytest.mark.slow
def test_the_health_of_a_search_is_kept(run: Path) -> None:
    with open(run / "history.csv", newline="") as file:
        history = list(csv.DictReader(file))
    with open(run / "probabilities.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * (2 + 3) * 7  # epochs, kinds of cells, edges, operations
    for epoch in (1, 2):
        edges: dict[tuple[str, str], list[float]] = {}
        for row in rows:
            if int(row["epoch"]) == epoch:
                edges.setdefault((row["choice"], row["input"]), []).append(
                    float(row["probability"])
                )
        assert all(sum(edge) == pytest.approx(1, abs=1e-6) for edge in edges.values())
        assert 0 <= float(history[epoch - 1]["zero"]) <= 1
        assert 0 <= float(history[epoch - 1]["flip_ratio"]) <= 1
    values = list(_tensorboard(run / "logs" / "search" / "choices"))
    tags = {tag for tag, _ in values}
    assert {"entropy/normal/3/input2", "operations/reduction/zero"} <= tags
    shown = [value for tag, value in values if tag.startswith("operations/")]
    assert sum(shown) == 2 * 2 * 2 * 2  # epochs, kinds, nodes, inputs kept


def _tensorboard(directory: Path):
    for path in directory.glob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                yield value.tag, float(tf.make_ndarray(value.tensor))


@pytest.mark.slow
def test_derived_again_it_is_the_same(run: Path) -> None:
    found = larq_nas.Architecture.load(run / "architecture.json")
    assert larq_nas.derive(run) == found


@pytest.mark.slow
def test_another_epoch_is_derived_from_the_record(run: Path) -> None:
    with open(run / "probabilities.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["epoch"] == "1"]
    found = larq_nas.derive(run, epoch=1)
    for name, pairs in found.choices.items():
        of_choice = [row for row in rows if row["choice"] == name]
        for operation, index in pairs:
            edge = [row for row in of_choice if int(row["input"]) == index]
            assert max(edge, key=lambda row: float(row["probability"]))["operation"] == operation
    with pytest.raises(InputError, match=r"`epoch` must be from 1 to .*, but got 99"):
        larq_nas.derive(run, epoch=99)


def test_a_budget_that_is_not_kept_to_is_said(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(run, copied)
    record = json.loads((copied / "settings.json").read_text())
    record["settings"]["budget"] = {"binary_macs": 300_000}
    (copied / "settings.json").write_text(json.dumps(record))
    with pytest.warns(UserWarning, match=r"budget \(binary_macs 300,000\) is not kept to"):
        larq_nas.derive(copied)


@pytest.mark.slow
def test_the_factor_of_the_search_is_used_again(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(run, copied)
    record = json.loads((copied / "settings.json").read_text())
    record["settings"]["searcher"]["transfer_factor"] = 100.0
    (copied / "settings.json").write_text(json.dumps(record))
    assert larq_nas.derive(copied) == larq_nas.derive(run, transfer_factor=100.0)


@pytest.mark.slow
def test_derived_for_more_data_it_has_fewer_zeros(run: Path) -> None:
    counts = [
        sum(pair[0] == "zero" for pairs in architecture.choices.values() for pair in pairs)
        for architecture in (larq_nas.derive(run), larq_nas.derive(run, transfer_factor=100.0))
    ]
    assert counts[0] >= counts[1] == 0


def test_a_run_of_several_seeds_names_the_directory_of_one(tmp_path: Path) -> None:
    settings = {"space": {"name": "bats"}, "data": {}, "searcher": {}, "seeds": 2, "seed": 3}
    with RunDirectory(tmp_path, settings), pytest.raises(InputError, match=r"such as `.*/seed3`"):
        larq_nas.derive(tmp_path)


@pytest.mark.slow
def test_what_cannot_be_derived_again_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`transfer_factor` must be 1 or more, but got 0\.5"):
        larq_nas.derive(run, transfer_factor=0.5)
    with pytest.raises(InputError, match="holds no run"):
        larq_nas.derive(tmp_path)
    copied = tmp_path / "copied"
    copied.mkdir()
    for name in ("settings.json", "architecture.json"):
        (copied / name).write_text((run / name).read_text())
    with pytest.raises(InputError, match="Cannot read"):
        larq_nas.derive(copied)
    (copied / "probabilities.csv").write_text("epoch,choice\n1,normal/2\n")
    with pytest.raises(InputError, match="is not the record of a search"):
        larq_nas.derive(copied)
    settings = json.loads((run / "settings.json").read_text())
    settings["settings"]["space"] = {"name": "bats", "cells": 3, "channels": 8, "nodes": 2}
    (copied / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="never keeps it"):
        larq_nas.derive(copied, transfer_factor=3.0)


@pytest.mark.slow
def test_spaces_without_kept_zeros_refuse_the_transfer_factor(digits) -> None:
    with pytest.raises(InputError, match="`transfer_factor` weakens the zero operation, but"):
        larq_nas.search(
            *digits, "bats", Differentiable(transfer_factor=3.0), epochs=1, classes=10, verbose=0
        )
