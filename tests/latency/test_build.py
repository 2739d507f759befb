from functools import partial
from pathlib import Path
from typing import Any

import pytest

from larq_nas.cost import SpaceCosts
from larq_nas.errors import InputError
from larq_nas.latency import Latency, LatencyTable, build_table
from larq_nas.latency.measure import measure_here
from larq_nas.latency.table import operations_of, plan
from larq_nas.spaces import Bats, VggSmall

SPACE = VggSmall(ratios=(0.0625, 0.125))
MEASURE = partial(measure_here, runs=2, warmup_runs=1)
BUILD = partial(
    build_table, SPACE, input_shape=(8, 8, 1), classes=10, kernel="indirect", networks=3, checks=2
)


class Killed(Exception):  # noqa: N818
    pass


class Measuring:
    """Measures, and ends after so many networks."""

    def __init__(self, most: int) -> None:
        self.left = most

    def __call__(self, flatbuffer: bytes, **settings: Any) -> Latency:
        if not self.left:
            raise Killed
        self.left -= 1
        return MEASURE(flatbuffer, **settings)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("built") / "table.json"
    BUILD(MEASURE, path=path)
    return path


def test_a_table_holds_the_operations_of_its_networks_and_checks(path: Path) -> None:
    table = LatencyTable.load(path)
    costs = SpaceCosts(SPACE, (8, 8, 1), 10)
    assert len(table.networks) == 3
    of_networks = [operations_of(costs, network.choices) for network in table.networks]
    assert table.operations.keys() == set().union(*of_networks)
    assert len(table.checks) == 2
    for check in table.checks:
        assert check.choices not in [network.choices for network in table.networks]
        found = table.predict(*costs.network(check.choices))
        assert (check.predicted, check.estimated) == (found.microseconds, found.estimated)
    assert table.device.startswith("this machine (")
    assert (table.space, table.kernel, table.input_shape) == ("vgg_small", "indirect", (8, 8, 1))


@pytest.mark.slow
def test_a_build_that_was_killed_goes_on(tmp_path: Path, path: Path) -> None:
    there, lines = tmp_path / "table.json", []
    for done in (1, 2, 1):
        with pytest.raises(Killed):
            BUILD(Measuring(done), path=there, on_progress=lines.append)
    table = BUILD(Measuring(1), path=there, on_progress=lines.append)
    assert [line.split(":")[0] for line in lines] == [
        *(f"network {number} of 3" for number in (1, 2, 3)),
        *(f"check {number} of 2" for number in (1, 2)),
    ]
    whole = LatencyTable.load(path)
    assert LatencyTable.load(there) == table
    assert table.operations.keys() == whole.operations.keys()
    assert [one.choices for one in table.networks] == [one.choices for one in whole.networks]
    assert [one.choices for one in table.checks] == [one.choices for one in whole.checks]
    assert BUILD(Measuring(0), path=there) == table


def test_a_table_grows_and_predicts_its_checks_anew(tmp_path: Path, path: Path) -> None:
    there = tmp_path / "table.json"
    there.write_bytes(path.read_bytes())
    before = LatencyTable.load(there)
    table = BUILD(Measuring(1), path=there, networks=4)
    assert table.left < before.left
    assert [one.measured for one in table.checks] == [one.measured for one in before.checks]
    assert [one.predicted for one in table.checks] != [one.predicted for one in before.checks]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": "reference"}, "its kernel is 'indirect', not 'reference'"),
        ({"input_shape": (16, 16, 1)}, r"its input_shape is \(8, 8, 1\)"),
        ({"classes": 4}, "its classes is 10, not 4"),
        ({"seed": 1}, "its seed is 0, not 1"),
    ],
)
def test_other_settings_are_refused(path: Path, change: dict[str, Any], message: str) -> None:
    before = path.read_bytes()
    with pytest.raises(InputError, match=message):
        BUILD(Measuring(0), path=path, **change)
    assert path.read_bytes() == before


def test_another_device_and_other_files_are_refused(path: Path, tmp_path: Path) -> None:
    there = tmp_path / "table.json"
    there.write_text(path.read_text().replace("this machine (", "another machine ("))
    with pytest.raises(InputError, match="its device is 'another machine"):
        BUILD(MEASURE, path=there, checks=3)
    there.write_text("not a table")
    with pytest.raises(InputError, match="cut short or not JSON"):
        BUILD(Measuring(0), path=there)
    assert there.read_text() == "not a table"
    with pytest.raises(InputError, match="must be in a folder that exists"):
        BUILD(Measuring(0), path=tmp_path / "nowhere" / "table.json")


def test_a_measurement_without_each_operation_is_refused(tmp_path: Path) -> None:
    def whole_only(flatbuffer: bytes, **settings: Any) -> Latency:
        return MEASURE(flatbuffer, kernel=settings["kernel"])

    with pytest.raises(InputError, match=r"must time each of .*number 1 is CONV_2D.*nothing"):
        BUILD(whole_only, path=tmp_path / "table.json")
    assert not (tmp_path / "table.json").exists()


@pytest.mark.parametrize("change", [{"networks": 0}, {"checks": -1}, {"seed": 0.5}])
def test_numbers_that_cannot_be_used_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="must be"):
        BUILD(Measuring(0), path=tmp_path / "table.json", **change)


@pytest.mark.slow
def test_few_networks_hold_all_operations_of_cells(monkeypatch) -> None:
    monkeypatch.setattr("larq_nas.latency.table._SAMPLED", 40)
    costs = SpaceCosts(Bats(cells=2, channels=8, nodes=2), (8, 8, 1), 10)
    planned = plan(costs, 20, 5, seed=0)
    held = set().union(*(operations_of(costs, values) for values in planned.networks))
    assert held == planned.operations.keys()
    assert len(planned.networks) < 10
    assert len(planned.checks) == 5
    assert plan(costs, 2, 0, seed=0).networks == planned.networks[:2]
