import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import larq_nas
from larq_nas.choosers import Relax
from larq_nas.cost import Budget, Limits, SpaceCosts
from larq_nas.errors import InputError
from larq_nas.searchers import Differentiable, derive_again
from larq_nas.searchers.derive import derive, weakened
from larq_nas.spaces import Bnas

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


def test_no_cell_is_mended_beyond_the_budget(choose: Relax) -> None:
    """A pool fits where the stronger convolution does not."""
    costs = SpaceCosts(SPACE, SHAPE, 10)
    pools = {
        name: [("zero", 0), ("max_pool_3x3" if name.endswith("/2") else "zero", 1)]
        for name in choose.choices
    }
    given = scores(choose, conv_3x3=0.3, max_pool_3x3=0.2)
    budget = Budget.parse({"max_binary_macs": costs.of(pools)["binary_macs"]})
    with pytest.warns(UserWarning, match=r"`max_pool_3x3` on input 1 of `normal/2`"):
        chosen = derive(choose.choices, choose.cells, given, Limits(costs, budget))
    assert not budget.excess(costs.of(chosen))


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


def test_derived_again_it_is_the_same(run: Path) -> None:
    found = larq_nas.Architecture.load(run / "architecture.json")
    assert derive_again(run) == found


def test_derived_for_more_data_it_has_fewer_zeros(run: Path) -> None:
    counts = [
        sum(pair[0] == "zero" for pairs in architecture.choices.values() for pair in pairs)
        for architecture in (derive_again(run), derive_again(run, transfer_factor=100.0))
    ]
    assert counts[0] >= counts[1] == 0


def test_what_cannot_be_derived_again_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`transfer_factor` must be 1 or more, but got 0\.5"):
        derive_again(run, transfer_factor=0.5)
    with pytest.raises(InputError, match="holds no run"):
        derive_again(tmp_path)
    copied = tmp_path / "copied"
    copied.mkdir()
    for name in ("settings.json", "architecture.json"):
        (copied / name).write_text((run / name).read_text())
    with pytest.raises(InputError, match="Cannot read"):
        derive_again(copied)
    (copied / "probabilities.csv").write_text("epoch,choice\n1,normal/2\n")
    with pytest.raises(InputError, match="is not the record of a search"):
        derive_again(copied)
    settings = json.loads((run / "settings.json").read_text())
    settings["settings"]["space"] = {"name": "bats", "cells": 3, "channels": 8, "nodes": 2}
    (copied / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="never keeps it"):
        derive_again(copied, transfer_factor=3.0)


def test_spaces_without_kept_zeros_refuse_the_transfer_factor(digits) -> None:
    with pytest.raises(InputError, match="`transfer_factor` weakens the zero operation, but"):
        larq_nas.search(
            *digits, "bats", Differentiable(transfer_factor=3.0), epochs=1, classes=10, verbose=0
        )
