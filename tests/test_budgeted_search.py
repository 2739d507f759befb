"""Searches that must keep to a budget, and what is said when they cannot."""

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from conftest import quick

import larq_nas
from larq_nas.cost import COSTS, Budget, SpaceCosts, profile
from larq_nas.cost.budget import require_feasible
from larq_nas.cost.profile import read_structure
from larq_nas.errors import InputError
from larq_nas.latency import LatencyTable, build_table, measure
from larq_nas.searchers import Differentiable
from larq_nas.spaces import Bats, VggSmall

SPACE = Bats(cells=2, channels=8, nodes=1)
QUICK = {"epochs": 2, "train_epochs": 0, "verbose": 0}


TABLE = {"input_shape": (8, 8, 1), "classes": 10, "networks": 3, "checks": 2}


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> LatencyTable:
    """A table of this machine, from a few networks."""
    path = tmp_path_factory.mktemp("table") / "here.json"
    return build_table(SPACE, partial(measure, runs=2, warmup_runs=1), path=path, **TABLE)


@pytest.fixture(scope="module")
def costs(table: LatencyTable) -> SpaceCosts:
    return SpaceCosts(SPACE, (8, 8, 1), 10, table)


def asked(name: str, limit: int, table: LatencyTable) -> dict[str, Any]:
    """Arguments of a search for a limit."""
    return {"budget": {name: limit}} | ({"latency_table": table} if name == "latency" else {})


def tight(costs: SpaceCosts, name: str) -> int:
    """A limit a little above what the lightest network needs."""
    easy = Budget({name: 10**9})
    chosen = {choice.name: choice.any() for choice in costs.choices.values()}
    start = int(easy.use(costs.of(chosen))[name] * 10**9) + 1
    for share in (0.6, 0.8, 0.9, 1.0):
        try:
            require_feasible(costs, Budget({name: int(share * start)}))
        except InputError:
            continue
        return int(share * start)
    raise AssertionError


@pytest.mark.filterwarnings("ignore:The search")
@pytest.mark.filterwarnings("ignore:The strongest architecture")
# Each kind once: predicted bytes, counts and times; tests/cost has what each is.
@pytest.mark.parametrize("name", quick(["flatbuffer_bytes", "binary_macs", "latency"], 0))
def test_a_search_ends_within_its_budget(
    costs: SpaceCosts, table: LatencyTable, digits, tmp_path: Path, name: str
) -> None:
    limit = tight(costs, name)
    limits = asked(name, limit, table)
    model = larq_nas.search(*digits, SPACE, directory=tmp_path / "run", **limits, **QUICK)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    found = profile(model).summary()
    used = {
        "weight_bytes": found["weight_bytes"],
        "flatbuffer_bytes": (tmp_path / "run" / "model.tflite").stat().st_size,
        "activation_bytes": found["activation_bytes"],
        "macs": found["macs"],
        "binary_macs": found["binary_macs"],
        "parameters": found["parameters"],
        "latency": result["costs"].get("latency", 0) or None,
    }[name]
    assert used <= limit
    assert result["costs"]["weight_bytes"] == found["weight_bytes"]


@pytest.mark.slow
def test_the_strongest_is_told_if_it_is_over(costs: SpaceCosts, digits, tmp_path, capsys) -> None:
    limit = tight(costs, "binary_macs")
    searcher = Differentiable(budget_weight=1e-9, weights_only=0.0)
    with pytest.warns(UserWarning, match=r"over the budget \(it needs .* binary_macs \(limit"):
        larq_nas.search(
            *digits,
            Bats(cells=2, channels=8, nodes=1, operations=("group_conv_5x5", "max_pool_3x3")),
            searcher,
            budget={"binary_macs": limit},
            epochs=1,
            train_epochs=0,
            directory=tmp_path / "run",
            seed=3,
        )
    printed = capsys.readouterr().out
    assert f"Budget of the found network: binary_macs={limit:,} (a network that fits" in printed
    assert "budget: " in printed


@pytest.mark.parametrize("name", quick(COSTS, 0, 6))
def test_the_impossible_is_refused_before_training(digits, table, tmp_path, name: str) -> None:
    limits = asked(name, 10, table)
    with pytest.raises(InputError, match=f"`{name}` must be at least .* but got 10"):
        larq_nas.search(*digits, SPACE, directory=tmp_path / "run", **limits, **QUICK)
    assert not (tmp_path / "run").exists()


def test_a_table_is_needed_and_must_be_of_the_space(digits, table, tmp_path: Path) -> None:
    run = {"directory": tmp_path / "run", **QUICK}
    with pytest.raises(InputError, match="`budget` of latency needs `latency_table`"):
        larq_nas.search(*digits, SPACE, budget={"latency": "5ms"}, **run)
    other = Bats(cells=2, channels=4, nodes=1)
    with pytest.raises(InputError, match="its setting `channels` is 8, but the search's is 4"):
        larq_nas.search(*digits, other, budget={"latency": "5ms"}, latency_table=table, **run)
    with pytest.raises(InputError, match="its space is 'bats', but the search's is 'vgg_small'"):
        table.require_for(VggSmall(), (8, 8, 1), 10)
    (tmp_path / "cut.json").write_text('{"schema": 1, "dev')
    with pytest.raises(InputError, match="cut short"):
        larq_nas.search(*digits, SPACE, latency_table=tmp_path / "cut.json", **run)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_table_alone_predicts_what_was_found(digits, table, tmp_path: Path, capsys) -> None:
    table.save(tmp_path / "here.json")
    settings = {"latency_table": tmp_path / "here.json", "directory": tmp_path / "run", **QUICK}
    model = larq_nas.search(*digits, SPACE, **{**settings, "verbose": 2, "epochs": 1})
    took = json.loads((tmp_path / "run" / "result.json").read_text())["costs"]["latency"]
    assert took == table.predict(read_structure(model)).microseconds
    printed = capsys.readouterr().out
    assert f"predicted on {table.device}: {took / 1000:.3f} ms" in printed
    changed = dataclasses.replace(table, kernel="reference")
    with pytest.raises(InputError, match="another table of latencies"):
        larq_nas.search(
            *digits, SPACE, **{**settings, "latency_table": changed, "verbose": 0, "epochs": 1}
        )


def test_a_malformed_limit_is_refused_before_the_data_is_read(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"`weight_bytes` must be .*a number of bytes.*got '64 apples'"
    ):
        larq_nas.search(
            None, None, SPACE, directory=tmp_path / "run", budget={"weight_bytes": "64 apples"}
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_another_budget_is_another_run(digits, tmp_path: Path) -> None:
    small = Bats(cells=1, channels=4, nodes=1)
    settings = {"directory": tmp_path / "run", **QUICK}
    larq_nas.search(*digits, small, budget={"weight_bytes": "1MB"}, **settings)
    with pytest.raises(InputError, match=r"budget\.weight_bytes was 1000000, now 2000000"):
        larq_nas.search(*digits, small, budget={"weight_bytes": "2MB"}, **settings)
    larq_nas.search(*digits, small, budget={"weight_bytes": 10**6}, **settings)


class Stop(tf.keras.callbacks.Callback):
    """Stops as a killed process would, in the second epoch."""

    def on_epoch_begin(self, epoch: int, logs=None) -> None:
        if epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The s")
def test_interrupted_and_resumed_gives_the_same(costs, digits, tmp_path: Path) -> None:
    budget = {"flatbuffer_bytes": tight(costs, "flatbuffer_bytes")}
    settings: dict[str, Any] = {**QUICK, "budget": budget}
    searcher = Differentiable(architecture_learning_rate=0.05, weights_only=0.0)
    larq_nas.search(*digits, SPACE, searcher, directory=tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        larq_nas.search(
            *digits, SPACE, searcher, directory=tmp_path / "cut", callbacks=[Stop()], **settings
        )
    larq_nas.search(*digits, SPACE, searcher, directory=tmp_path / "cut", **settings)
    for name in ("architecture.json", "history.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert "budget_penalty" in (tmp_path / "cut" / "history.csv").read_text()


def test_a_space_of_widths_needs_another_searcher(digits, tmp_path: Path) -> None:
    images = tf.data.Dataset.from_tensors((tf.zeros((4, 8, 8, 3)), tf.constant([0, 1, 2, 3])))
    with pytest.raises(InputError, match=r"chooses widths .* but searcher `differentiable`"):
        larq_nas.search(
            images,
            images,
            VggSmall(),
            Differentiable(),
            directory=tmp_path / "run",
            epochs=1,
            train_epochs=0,
        )
