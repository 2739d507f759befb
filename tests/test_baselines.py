"""The uniform twin and random candidates beside a found network."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest
from test_cli import invoke

from larq_nas import Architecture, searchers, spaces
from larq_nas.baselines import read_baselines, uniform_twin
from larq_nas.cost import SpaceCosts, profile
from larq_nas.errors import InputError
from larq_nas.training import Recipe

SHAPE, CLASSES = (8, 8, 1), 3
SPACE = spaces.VggSmall(ratios=(0.03125, 0.0625, 0.125))
SEARCHER = searchers.Evolution(
    population=2, candidate_epochs=1, widest_epochs=1, recipe=Recipe(stages=("binary",)), confirm=0
)
SETTINGS: dict[str, Any] = {"recipe": {"stages": ("binary",)}, "train_epochs": 1, "verbose": 0}


def images(number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(seed).normal(size=(number, *SHAPE)).astype("float32")
    return drawn, np.arange(number, dtype="int32") % CLASSES


DATA = images(60, 0), images(30, 1)


@pytest.mark.parametrize("multiple_of", [1, 8])
@pytest.mark.parametrize("limits", [(), ("flatbuffer_bytes",), ("activation_bytes", "macs")])
def test_a_twin_costs_as_much_as_it_may(multiple_of: int, limits: tuple[str, ...]) -> None:
    """Of all multiples of a thousandth it is the one that costs most, and not too much."""
    space = spaces.VggSmall(ratios=(0.0625, 0.125, 0.25), multiple_of=multiple_of)
    costs = SpaceCosts(space, SHAPE, CLASSES)
    for seed in range(3):
        found = Architecture.random(space, SHAPE, CLASSES, seed)
        twin = uniform_twin(found, costs, limits)
        assert twin is not None
        quantity = limits[0] if limits else "binary_macs"
        assert twin.quantity == quantity
        most = costs.exact(found.choices)[quantity]
        assert twin.costs[quantity] <= most
        names = list(found.choices)
        every = costs.exact_many([dict.fromkeys(names, i / 1000) for i in range(63, 251)])
        assert twin.costs[quantity] == max(one for one in every[quantity] if one <= most)
        built = profile(twin.architecture.build(SHAPE, CLASSES, space)).summary()
        assert built["binary_macs"] == twin.costs["binary_macs"]


def test_the_twin_of_a_uniform_network_is_itself() -> None:
    costs = SpaceCosts(SPACE, SHAPE, CLASSES)
    found = Architecture(SPACE.name, SPACE.settings(), dict.fromkeys(costs.expansions, 0.0625))
    twin = uniform_twin(found, costs)
    assert twin is not None
    assert twin.architecture == found


def result(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "result.json").read_text())
    return found


@pytest.mark.slow
def test_baselines_are_told_and_trained_when_they_are_asked_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    settings = {**SETTINGS, "epochs": 1, "verbose": 2, "directory": run}
    first = larq_nas.search(*DATA, SPACE, SEARCHER, return_result=True, **settings)
    (untrained,) = first.baselines
    assert (untrained["label"], "accuracy" in untrained) == ("uniform", False)
    assert "uniform twin, every width times" in "".join(capfd.readouterr())
    trained = larq_nas.search(
        *DATA, SPACE, SEARCHER, baselines=["random", "uniform"], test=images(9, 2), **settings
    )
    told = "".join(capfd.readouterr())
    assert "Baselines, after the found network: the uniform twin takes 1 epochs" in told
    assert "uniform twin" in str(larq_nas.load(run))
    uniform, random = result(run)["baselines"]
    assert (uniform["label"], random["label"]) == ("uniform", "random")
    assert uniform["widths"] == untrained["widths"]
    for row, name in ((uniform, "uniform"), (random, "random")):
        own = run / "baselines" / name
        if name == "random" or own.exists():
            assert row["accuracy"] == result(own)["accuracy"]
            assert row["test_accuracy"] == result(own)["test_accuracy"]
            assert row["flatbuffer_bytes"] == (own / "model.tflite").stat().st_size
    drawn = json.loads((run / "baselines" / "random" / "settings.json").read_text())["settings"]
    assert drawn["searcher"]["strategy"] == {"name": "random"}
    assert result(run)["accuracy"] == first.accuracy
    np.testing.assert_array_equal(
        trained.predict(DATA[1][0], verbose=0), first.model.predict(DATA[1][0], verbose=0)
    )
    page = (run / "report.html").read_text()
    assert "What the search has to beat: uniform has one multiple for all widths" in page
    # A result that was written before it was held against others gets the same.
    whole = result(run)
    found = {key: value for key, value in whole.items() if key != "baselines"}
    (run / "result.json").write_text(json.dumps(found, indent=2) + "\n")
    larq_nas.search(
        *DATA, SPACE, SEARCHER, baselines=["random", "uniform"], test=images(9, 2), **settings
    )
    assert result(run) == whole


@pytest.mark.parametrize(
    ("baselines", "searcher", "options", "message"),
    [
        ("twin", SEARCHER, {}, "`baselines` must be True, False or names of uniform, random"),
        (3, SEARCHER, {}, "`baselines` must be True, False or names of uniform, random"),
        ([["uniform"]], SEARCHER, {}, "must be True, False or names of uniform, random"),
        ("random", SEARCHER, {"seeds": 2}, "are of one search, but `seeds` asks for several"),
        (True, SEARCHER, {"train_epochs": 0}, "`baselines` are trained .*: give `train_epochs`"),
        (
            ["random"],
            searchers.Evolution(population=2, strategy="random"),
            {},
            "the search itself is random",
        ),
        (
            ["random"],
            searchers.Dms(weight_epochs=1),
            {},
            "need a searcher that proposes some, as evolution",
        ),
    ],
)
def test_baselines_that_cannot_be_are_refused_before_anything_is_written(
    baselines: Any, searcher: Any, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "epochs": 1, "directory": tmp_path / "run", **options}
    with pytest.raises(InputError, match=message):
        larq_nas.search(*DATA, SPACE, searcher, baselines=baselines, **settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_cells_are_held_against_random_ones(tmp_path: Path) -> None:
    space = spaces.Bats(cells=1, channels=4, nodes=1)
    settings = {**SETTINGS, "epochs": 1, "directory": tmp_path, "return_result": True}
    searcher = dataclasses.replace(SEARCHER, widest_epochs=None)
    found = larq_nas.search(*DATA, space, searcher, baselines="random", **settings)
    (random,) = found.baselines
    assert (random["label"], random["widths"]) == ("random", {})
    assert random["accuracy"] == result(tmp_path / "baselines" / "random")["accuracy"]


def test_commands_refuse_what_the_function_refuses(tmp_path: Path) -> None:
    def told(*options: str) -> str:
        place = ("--batch-size", "300", "--directory", str(tmp_path / "run"))
        done = invoke("search", "--epochs", "1", "--train-epochs", "1", *options, *place)
        assert done.exit_code
        return str(done.output)

    assert "`--baselines` must be True, False or names of" in told("--baselines", "twin")
    assert "`--retrain` trains the best candidates of a search" in told("--retrain", "2")
    assert not (tmp_path / "run").exists()


def test_a_space_without_widths_has_no_twin() -> None:
    with pytest.raises(InputError, match="no uniform network of a space without widths"):
        read_baselines(True, searchers.Differentiable(), {}, several=False)
    assert read_baselines(False, searchers.Differentiable(), {}, several=False) == ()
