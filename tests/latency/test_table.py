import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from larq_nas.cost import SpaceCosts
from larq_nas.errors import InputError
from larq_nas.latency import LatencyTable
from larq_nas.latency.signature import parse, predicted
from larq_nas.latency.table import Check, Estimate, Measured, Timing
from larq_nas.spaces import VggSmall

SHAPE = (16, 16, 3)
WIDTHS = (0.25, 0.5, 1)


@pytest.fixture(scope="module")
def costs() -> SpaceCosts:
    return SpaceCosts(VggSmall(ratios=WIDTHS), SHAPE, 10)


def filters(costs: SpaceCosts, number: int) -> dict[str, int]:
    """Return the widths of one of many networks."""
    draw = np.random.default_rng(number)
    return {name: int(draw.choice(asked.options)) for name, asked in costs.expansions.items()}


def made(costs: SpaceCosts, networks: int) -> LatencyTable:
    """Return a table in which an operation takes a time that follows from its work."""
    operations = {}
    for number in range(networks):
        for signature in predicted(costs.structure({}), filters(costs, number)):
            time = 1.0 + signature.moved / 1e4 + signature.steps / 1e5
            operations[str(signature)] = Timing((0.9 * time, time, 1.2 * time))
    return LatencyTable(
        device="a board",
        kernel="indirect",
        threads=1,
        engine="0.16.0",
        space="vgg_small",
        settings=costs.space.settings(),
        input_shape=SHAPE,
        classes=10,
        seed=0,
        operations=operations,
        networks=[Measured({"conv1": 1}, 110.0, 100.0)],
        checks=[
            Check({"conv1": 0.5}, predicted, measured, 0.25)
            for predicted, measured in ((90.0, 100.0), (200.0, 200.0), (310.0, 300.0))
        ],
        left=3,
    )


def test_a_prediction_is_the_sum_over_the_operations(costs: SpaceCosts) -> None:
    table, structure = made(costs, 2), costs.structure({})
    found = table.predict(structure, filters(costs, 1))
    texts = [str(signature) for signature in predicted(structure, filters(costs, 1))]
    expected = 1.1 * sum(table.operations[text].microseconds for text in texts)
    assert found.microseconds == pytest.approx(expected)
    assert found.estimated == 0


def test_what_is_missing_is_estimated_and_told(costs: SpaceCosts) -> None:
    structure, unseen = costs.structure({}), filters(costs, 99)
    table, whole = made(costs, 8), made(costs, 100)
    texts = [str(signature) for signature in predicted(structure, unseen)]
    missing = [text for text in texts if text not in table.operations]
    assert missing
    found, expected = table.predict(structure, unseen), whole.predict(structure, unseen)
    assert found.microseconds == pytest.approx(expected.microseconds, rel=0.01)
    share = sum(whole.operations[text].microseconds for text in missing) / sum(
        whole.operations[text].microseconds for text in texts
    )
    assert found.estimated == pytest.approx(share, rel=0.05)


def test_many_widths_are_predicted_at_once(costs: SpaceCosts) -> None:
    table, structure = made(costs, 3), costs.structure({})
    each = [filters(costs, number) for number in range(40)]
    arrays = {name: np.array([one[name] for one in each]) for name in costs.expansions}
    at_once = table.predict(structure, arrays)
    alone = [table.predict(structure, one) for one in each]
    np.testing.assert_allclose(at_once.microseconds, [one.microseconds for one in alone])
    np.testing.assert_allclose(at_once.estimated, [one.estimated for one in alone])


def test_an_operation_of_a_kind_never_measured_is_estimated_from_the_others() -> None:
    measured = {
        parse(f"ADD: {size}x8 float + {size}x8 float -> {size}x8 float"): 0.01 * size
        for size in (100, 200, 400)
    }
    known = Estimate(measured)(parse("ADD: 300x8 float + 300x8 float -> 300x8 float"))
    assert known == pytest.approx(3.0, rel=0.01)
    assert Estimate(measured)(parse("RELU: 300x12 float -> 300x12 float")) > 0


def test_a_table_says_how_well_it_predicts(costs: SpaceCosts) -> None:
    table = made(costs, 1)
    assert table.error == pytest.approx(1 / 30)
    assert table.kendall_tau == 1
    assert "median error 3.3%, largest 10.0%, too few to say how well it ranks; 25.0%" in str(table)
    ranked = dataclasses.replace(table, checks=2 * table.checks)
    assert "largest 10.0%, Kendall tau 1.00; 25.0%" in str(ranked)
    assert "3 more that networks of the space have are estimated" in str(table)
    assert "1.100 times the sum" in str(table)
    unchecked = dataclasses.replace(table, checks=[])
    assert math.isnan(unchecked.error)
    assert "Not checked" in str(unchecked)


def test_a_table_is_kept_whole(costs: SpaceCosts, tmp_path: Path) -> None:
    table = made(costs, 2)
    table.save(tmp_path / "table.json")
    again = LatencyTable.load(tmp_path / "table.json")
    assert again == table
    assert str(again) == str(table)
    row = next(iter(json.loads((tmp_path / "table.json").read_text())["operations"].values()))
    assert set(row) == {"microseconds", "spread", "measurements", "times"}


@pytest.fixture
def record(costs: SpaceCosts, tmp_path: Path) -> dict:
    made(costs, 1).save(tmp_path / "table.json")
    return json.loads((tmp_path / "table.json").read_text())


def refused(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        LatencyTable.load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_table_cut_short_is_refused(record: dict, tmp_path: Path) -> None:
    text = json.dumps(record)
    for length in (0, 1, 100, len(text) // 2, len(text) - 1):
        assert "cut short or not JSON" in refused(tmp_path / "cut.json", text[:length])


def test_other_files_are_refused(record: dict, tmp_path: Path) -> None:
    for other in ("[]", "3", "null", "{}", '{"schema": 1, "space": "bats", "choices": {}}'):
        assert "it is something else" in refused(tmp_path / "other.json", other)
    newer = json.dumps({**record, "schema": 2})
    assert "its schema must be 1, but is 2" in refused(tmp_path / "newer.json", newer)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    for name, reason in (("bytes.json", "it is not text"), ("none.json", "No such file")):
        with pytest.raises(InputError, match=f"Cannot read latency table.*{reason}"):
            LatencyTable.load(tmp_path / name)


@pytest.mark.parametrize("time", [0, -1.0, math.nan, math.inf, "1", None, True])
def test_times_that_nothing_takes_are_refused(record: dict, tmp_path: Path, time: object) -> None:
    row = next(iter(record["operations"].values()))
    row["times"] = row["times"][:2] + [time]
    message = refused(tmp_path / "table.json", json.dumps(record))
    assert "must be a positive number" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": "fast"}, "kernel must be one of"),
        ({"threads": 0}, "sizes must be whole numbers above 0"),
        ({"input_shape": [32, 32]}, "three numbers"),
        ({"operations": {}}, "and operations"),
        ({"operations": {"nonsense": {"times": [1.0]}}}, "must read like"),
        ({"device": 3}, "`device` must be of type str"),
        ({"extra": 3}, "missing or unknown: extra"),
        ({"checks": [{"predicted": 1.0}]}, "a network must hold"),
    ],
)
def test_entries_that_do_not_fit_are_refused(
    record: dict, tmp_path: Path, change: dict, message: str
) -> None:
    assert message in refused(tmp_path / "table.json", json.dumps(record | change))


def test_a_median_that_is_not_that_of_its_times_is_refused(record: dict, tmp_path: Path) -> None:
    next(iter(record["operations"].values()))["microseconds"] *= 2
    message = refused(tmp_path / "table.json", json.dumps(record))
    assert "must be the median of its times" in message
