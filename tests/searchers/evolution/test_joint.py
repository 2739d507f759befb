"""Evolutions of operations, widths and depths at once, of given networks, and of cells; tiny."""

import csv
import json
import warnings
from pathlib import Path
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest
import tensorflow as tf
from conftest import quick

from larq_nas.cost import SpaceCosts
from larq_nas.data.data import Data, read_data
from larq_nas.errors import InputError
from larq_nas.layers import binary_conv, classifier, stem
from larq_nas.searchers import Evolution
from larq_nas.searchers.evolution import Aging
from larq_nas.searchers.evolution.candidates import (
    CandidateTraining,
    Inheritance,
    Plan,
    Scratch,
    Shared,
)
from larq_nas.searchers.evolution.generation import Breeder, Genes, Scored, resolve_strategy
from larq_nas.searchers.evolution.initial import _own, initial_candidates
from larq_nas.searchers.evolution.search import _identity, standard_error
from larq_nas.spaces import Bats, VggSmall, resolve
from larq_nas.spaces.chooser import Chooser, Widest
from larq_nas.training import Recipe

BINARY = Recipe(stages=("binary",))
TINY: dict[str, Any] = {
    "population": 3,
    "candidate_epochs": 1,
    "subset": 60,
    "recipe": BINARY,
    "confirm": 0,
}


def joint(choose: Chooser, input_shape: tuple[int, int, int], classes: int) -> tf.keras.Model:
    x = images = tf.keras.Input(input_shape)
    width = choose.filters("width", 16, (0.5, 1, 2))
    x = tf.keras.layers.Conv2D(width, 3, 2, "same", name="stem")(x)
    x = tf.keras.layers.BatchNormalization(name="stem_bn")(x)

    def conv(kernel: int) -> Any:
        return lambda x, name: binary_conv(x, width, kernel, name=name, identity=False)

    def block(x: tf.Tensor, name: str) -> tf.Tensor:
        return choose.op(name, x, {"conv3": conv(3), "conv5": conv(5)})

    x = choose.depth("blocks", x, [block] * 3)
    x = tf.keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return tf.keras.Model(images, tf.keras.layers.Dense(classes, name="dense")(x))


@pytest.fixture(scope="module")
def data() -> tuple[tf.data.Dataset, tf.data.Dataset]:
    train, validation = larq_nas.datasets.load("digits", batch_size=20)
    return train.take(10), validation.take(2)


@pytest.fixture(scope="module")
def task(data: Any) -> Data:
    def colored(images: tf.Tensor, labels: tf.Tensor) -> Any:
        return tf.repeat(tf.image.resize(images, (16, 16)), 3, -1), labels

    parts = [part.map(colored) for part in data]
    return read_data(parts[0].take(5), parts[1], 10, "standard", 0, resolve("vgg_small"), 0)


def search(data: Any, space: Any, directory: Path, **settings: Any) -> tf.keras.Model:
    own = {name: settings.pop(name) for name in ("epochs", "budget") if name in settings}
    arguments = {"epochs": 1, "train_epochs": 0, "verbose": 0, **own}
    searcher = Evolution(**{**TINY, **settings})
    return larq_nas.search(*data, space, searcher, directory=directory, **arguments)


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open(newline="")))


def test_operations_widths_and_depth_are_evolved_at_once(data: Any, tmp_path: Path) -> None:
    budget = {"binary_macs": "300K"}
    searched = {"rungs": (1, 2), "confirm": 2, "confirm_epochs": 1, "budget": budget}
    model = search(data, joint, tmp_path, **searched)
    candidates = rows(tmp_path / "candidates.csv")
    assert {"width", "blocks", "blocks_0", "blocks_1", "blocks_2"} < candidates[0].keys()
    assert all(int(row["binary_macs"]) <= 300_000 for row in candidates)
    # Rungs of 1 and 2 epochs: the better half goes on, of 3 candidates one.
    assert sorted(row["epochs"] for row in candidates) == ["1", "1", "2"]
    assert len(rows(tmp_path / "confirmed.csv")) == 2
    result = json.loads((tmp_path / "result.json").read_text())
    found = json.loads((tmp_path / "architecture.json").read_text())["choices"]
    assert isinstance(found["blocks"], int)
    assert result["audit"]["operations"]["LceBconv2d"] == found["blocks"]
    convs = [layer for layer in model.layers if layer.name.startswith("blocks_")]
    assert {layer.name.split("_in0")[0] for layer in convs} == {
        f"blocks_{n}" for n in range(found["blocks"])
    }


def test_networks_that_are_the_same_are_one_candidate() -> None:
    costs = SpaceCosts(joint, (8, 8, 1), 10)
    genes = Genes.of({**costs.choices, **costs.expansions})
    identity = _identity(costs, genes)
    one = {"width": 1.0, "blocks": 1, "blocks_0": "conv3", "blocks_1": "conv3", "blocks_2": "conv3"}
    one = {name: one[name] for name in genes.options}
    assert identity(one) == identity({**one, "blocks_2": "conv5"})
    assert identity(one) != identity({**one, "blocks_0": "conv5"})
    assert identity({**one, "blocks": 3}) != identity({**one, "blocks": 3, "blocks_2": "conv5"})
    # Of 3 x 3 x 8 settings of the genes 3 x (2 + 4 + 8) are networks of their own.
    breeder = Breeder(genes, resolve_strategy("random"), 72, 0, identity=identity)
    assert len(breeder.generation(0, []).candidates) == 3 * 14


@pytest.fixture(scope="module")
def cells() -> SpaceCosts:
    return SpaceCosts(Bats(cells=3, channels=12, groups=3), (16, 16, 3), 10)


@pytest.mark.parametrize("strategy", ["genetic", "aging", "random"])
def test_children_of_cells_are_cells(strategy: str, cells: SpaceCosts) -> None:
    """Each node has two inputs that are before it, and an operation of the space on each."""
    genes = Genes.of(cells.choices)
    scored: list[Any] = []
    breeder = Breeder(genes, resolve_strategy(strategy), 20, 0)
    rng = np.random.default_rng(0)
    for number in range(3):
        for candidate in breeder.generation(number, scored).candidates:
            cells.decode(genes.values(candidate))
            assert genes.candidate(genes.values(candidate)) == candidate
            scored.append(_scored(candidate, float(rng.random())))
    assert len(scored) == 60


def _scored(candidate: Any, score: float) -> Any:
    return Scored(candidate, (score,))


def test_a_node_changes_one_input_or_one_operation_at_a_time(cells: SpaceCosts) -> None:
    genes = Genes.of(cells.choices)
    rng = np.random.default_rng(0)
    parent = genes.random(rng)
    aging = Aging(1)
    child = aging.children(genes, [_scored(parent, 1.0)], 1, rng)
    for _ in range(50):
        changed = child()
        names = [name for name in parent if changed[name] != parent[name]]
        assert len(names) == 1
        if names[0].endswith("/inputs"):
            old, new = (set(str(one[names[0]]).split(",")) for one in (parent, changed))
            assert len(old & new) == len(old) - 1


@pytest.mark.parametrize("kind", quick(["scratch", "shared"], 0))
def test_a_training_in_two_parts_is_the_same_with_its_state_and_without(
    kind: str, task: Any, tmp_path: Path
) -> None:
    if kind == "scratch":
        costs = SpaceCosts(joint, task.facts.input_shape, 10)
        genes = Genes.of({**costs.choices, **costs.expansions})
        evaluator: Any = Scratch(resolve(joint), CandidateTraining(task, 2, BINARY), genes)
        one = genes.random(np.random.default_rng(0))
    else:
        space = VggSmall(ratios=(0.03125, 0.0625))
        choose = Widest()
        wide = space.build(choose, task.facts.input_shape, 10)
        training = CandidateTraining(task, 2, BINARY)
        evaluator = Shared(space, training, Inheritance(wide, choose))
        one = dict.fromkeys(space.layers, 0.03125)
    state = tmp_path / "state.npz"
    first = evaluator.measure(one, Plan(3, (1,), None, state))
    other = evaluator.measure(one, Plan(4, (1,)))
    assert first != other
    went_on = evaluator.measure(one, Plan(3, (1, 2), state))
    weights = evaluator.weights()
    if kind == "scratch":
        state.unlink()
        anew = evaluator.measure(one, Plan(3, (1, 2), state))
    else:
        state.write_bytes(state.read_bytes()[:-99])
        with pytest.warns(UserWarning, match=r"state.npz` is damaged \(BadZipFile: "):
            anew = evaluator.measure(one, Plan(3, (1, 2), state))
    assert went_on == anew
    for name, weight in evaluator.weights().items():
        np.testing.assert_array_equal(weight, weights[name])


def test_the_error_of_a_difference_is_that_of_the_same_images() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(2000) < 0.6
    second = first ^ (rng.random(2000) < 0.05)
    error = standard_error(first, second)
    difference = first * 1.0 - second * 1.0
    drawn = [difference[rng.integers(2000, size=2000)].mean() for _ in range(2000)]
    assert error == pytest.approx(np.std(drawn), rel=0.1)
    assert error < 0.5 * np.sqrt(2 * 0.6 * 0.4 / 2000)


@pytest.mark.slow
def test_what_a_search_is_given_is_returned_where_nothing_is_better(
    data: Any, tmp_path: Path
) -> None:
    """Without training, all are chance; ratio 1 is a candidate of a space of widths by itself."""
    space = VggSmall(ratios=(0.015625, 0.03125, 1))
    given = {"confirm": 2, "confirm_epochs": 1, "candidate_epochs": 0, "widest_epochs": 0}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        search(data, space, tmp_path, **{**given, "trade_off": 0, "search_split": 0.5})
    confirmed = rows(tmp_path / "confirmed.csv")
    (incumbent,) = [row for row in confirmed if row["role"] == "incumbent"]
    (chosen,) = [row for row in confirmed if row["chosen"] == "1"]
    found = json.loads((tmp_path / "architecture.json").read_text())["choices"]
    named = rows(tmp_path / "candidates.csv")[int(chosen["candidate"]) - 1]
    assert found == {name: float(named[name]) for name in space.layers}
    # Ratio 1 is the first candidate of all.
    assert incumbent["candidate"] == "1"
    better = [
        row
        for row in confirmed
        if row["gain"] and float(row["gain"]) > float(row["standard_error"])
    ]
    if better:
        assert chosen == max(better, key=lambda row: float(row["fitness"]))
    else:
        assert chosen == incumbent
        assert any("No candidate was found that is better" in str(one.message) for one in told)


def test_the_first_generation_begins_with_what_is_given(data: Any, tmp_path: Path) -> None:
    space = VggSmall(ratios=(0.03125, 0.0625, 0.125))
    mixed = dict.fromkeys(space.layers, 0.0625) | {"conv3": 0.125}
    one = larq_nas.Architecture("vgg_small", space.settings(), mixed)
    one.save(tmp_path / "one.json")
    initial = ("uniform:0.125", tmp_path / "one.json", one)
    search(data, space, tmp_path / "run", widest_epochs=0, candidate_epochs=0, initial=initial)
    first, second, third = (
        [float(row[name]) for name in space.layers]
        for row in rows(tmp_path / "run" / "candidates.csv")
    )
    assert first == [0.125] * 6
    assert second == list(mixed.values())
    assert third not in (first, second)
    front = Evolution(initial=(tmp_path / "run" / "pareto",)).initial
    kept = sorted((tmp_path / "run" / "pareto").glob("*.json"))
    assert list(front) == [larq_nas.Architecture.load(path) for path in kept]


@pytest.mark.parametrize(
    ("space", "settings", "message"),
    [
        (joint, {"initial": ("bats",)}, "networks of space `joint` .* it is of space `bats`"),
        pytest.param(
            Bats(cells=3, channels=12, groups=3, nodes=2),
            {"initial": ("bats",)},
            "networks of space `bats` in its settings",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            Bats(cells=3, channels=12, groups=3),
            {"initial": ("uniform",)},
            "chooses no widths",
            marks=pytest.mark.slow,
        ),
        (
            VggSmall(ratios=(0.03125, 0.0625)),
            {"initial": ("uniform:1",)},
            "above the largest of the space",
        ),
        (joint, {"candidate_epochs": 0}, "`candidate_epochs` must be 1 or more in space `joint`"),
        (joint, {"widest_epochs": 1}, "`widest_epochs` is for a space that chooses widths alone"),
        (
            joint,
            {"initial": ("uniform", "uniform:0.5", "uniform:2", "uniform:0.7")},
            "`population`",
        ),
    ],
)
def test_what_cannot_be_evolved_is_refused_before_anything_is_written(
    space: Any, settings: Any, message: str, data: Any, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        search(data, space, tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_given_networks_over_the_budget_are_told(data: Any, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"Uniform:2 .* is over the budget"):
        search(data, joint, tmp_path, initial=("uniform:2",), budget={"binary_macs": "100K"})
    assert all(int(row["binary_macs"]) <= 100_000 for row in rows(tmp_path / "candidates.csv"))


def test_ratio_1_is_given_where_a_multiple_rounds_it_to_another_width() -> None:
    def space(choose: Any, input_shape: Any, classes: int) -> tf.keras.Model:
        images = tf.keras.Input(input_shape)
        x = stem(images, choose.filters("width", 48, (0.5, 1, 2), multiple_of=32), relu=False)
        return tf.keras.Model(images, classifier(x, classes))

    resolved = resolve(space)
    costs = SpaceCosts(resolved, (8, 8, 1), 10)
    assert costs.expansions["width"].options == [32, 64, 96]
    assert _own(resolved, costs) == {"ratio 1": {"width": 1.0}}


@pytest.mark.parametrize(
    ("keeps", "pairs", "message"),
    [
        (False, [["zero", 0], ["conv", 1]], r"has `zero`, which no network of the space has"),
        (True, [["zero", 0], ["zero", 1]], r"a cell of it is zero on every path"),
    ],
)
def test_a_given_network_that_cannot_be_or_computes_nothing_is_refused(
    keeps: bool, pairs: Any, message: str
) -> None:
    def space(choose: Any, input_shape: Any, classes: int) -> tf.keras.Model:
        images = tf.keras.Input(input_shape)
        x = stem(images, 8, relu=False)
        named = {"conv": lambda x, name: binary_conv(x, 8, 3, name=name), "zero": None}
        x = choose.cell("cell", [x, x], lambda index: named, nodes=1, keep_zero=keeps)
        return tf.keras.Model(images, classifier(x, classes))

    resolved = resolve(space)
    costs = SpaceCosts(resolved, (8, 8, 1), 10)
    given = larq_nas.Architecture(resolved.name, {}, {"cell/2": pairs})
    with pytest.raises(InputError, match=message):
        initial_candidates((given,), resolved, costs, Genes.of(costs.choices), None, with_own=False)
