"""Several processes that train one network: they share a run, and end together."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import pytest
import tensorflow as tf
from replicas import TIMEOUT, run, run_two, two_processes

from larq_nas.errors import DivergenceError, InputError, ProcessLostError
from larq_nas.run_directory import RunDirectory
from larq_nas.spaces import Bats
from larq_nas.training import distribution as processes
from larq_nas.training.loop import read_history

SPACE = Bats(cells=2, channels=4, nodes=1)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_of_two_processes_one_is_killed_and_both_go_on(killed: int, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    first = directory / "checkpoints" / "search" / "checkpoint"
    with two_processes(directory, directory) as started:
        for _ in range(5 * TIMEOUT):
            if first.exists():
                break
            assert all(process.poll() is None for process in started)
            time.sleep(0.2)
        started[killed].kill()
        _, errors = started[1 - killed].communicate(timeout=TIMEOUT)
    assert started[1 - killed].returncode == 1
    assert "ProcessLostError: Another of the 2 processes has ended" in errors.splitlines()[-1]
    assert not (directory / "architecture.json").exists()

    chief, other = run_two(directory, directory)
    assert "(1 done before)" in chief or "(2 done before)" in chief
    assert other == f"One of 2 processes; the chief writes `{directory}`\n"
    result = json.loads((directory / "result.json").read_text())
    assert all(parity["agreement"] == 1 for parity in result["parity"])
    whole = tmp_path / "whole"
    run_two(whole, whole)
    for name in ("history.csv", "architecture.json", "result.json"):
        assert (directory / name).read_text() == (whole / name).read_text()
    run(2, tmp_path / "one")
    alike = (read_history(place / "history.csv") for place in (whole, tmp_path / "one"))
    for mine, others in zip(*alike, strict=True):
        assert mine.keys() == others.keys()
        for name in mine.keys() - {"stage"}:
            assert float(mine[name]) == pytest.approx(float(others[name]), rel=1e-3), name


@pytest.fixture
def second(monkeypatch: Any) -> Any:
    """The second process of a strategy of two, which never talks to the first."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    cluster = tf.train.ClusterSpec({"worker": ["localhost:1", "localhost:2"]})
    resolver = SimpleNamespace(cluster_spec=lambda: cluster, task_type="worker", task_id=1)
    monkeypatch.setattr(type(strategy), "cluster_resolver", resolver)
    monkeypatch.setattr(processes, "_summed", lambda number, strategy: number)
    monkeypatch.setattr(processes, "_WAIT_SECONDS", 0.0)
    return strategy


def test_processes_share_a_directory(second: Any, digits: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`directory` must be given with a strategy of several"):
        larq_nas.search(*digits, SPACE, strategy=second)
    with (
        pytest.raises(InputError, match="`directory` must be one that all processes share, but"),
        processes.working_in(RunDirectory(tmp_path, {}), second),
    ):
        pass


def test_the_others_work_in_a_copy(second: Any, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run", {"seed": 0})
    with run:
        (run.directory / "stages.json").write_text("{}")
    with processes.working_in(run, second) as copy:
        assert copy.stages.read_text() == "{}"
        copy.architecture.write_text("")
    assert not run.architecture.exists()
    with (
        pytest.raises(DivergenceError, match=f"^kept in `{run.directory}/checkpoints`$"),
        processes.working_in(run, second) as copy,
    ):
        raise DivergenceError(f"kept in `{copy.directory}/checkpoints`")
    with (
        pytest.raises(InputError, match=r"holds the chief's run with other settings \(seed was 0"),
        processes.working_in(RunDirectory(run.directory, {"seed": 1}), second),
    ):
        pass


def test_processes_that_find_other_files_are_told(
    second: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    run = RunDirectory(tmp_path, {})
    before = run.digest()
    (tmp_path / "stages.json").write_text("{}")
    assert run.digest() != before

    alike = iter((True, False, False))
    monkeypatch.setattr(processes, "_is_alike", lambda number, strategy: next(alike))
    with (
        pytest.raises(InputError, match="must hold the same for all processes"),
        processes.noticing_lost_processes(second, run),
    ):
        pass
    with (
        pytest.raises(InputError, match="must be given the same data and settings, but these"),
        processes.noticing_lost_processes(second, run),
    ):
        pass


@pytest.mark.parametrize(("mine", "others"), [(3, 3), (3, 4), (0, 2**24 - 1)])
def test_what_is_alike_shows_in_sums(second: Any, monkeypatch: Any, mine: int, others: int) -> None:
    monkeypatch.setattr(type(second), "num_replicas_in_sync", 2)
    terms = iter((mine**2 + others**2, mine + others))
    monkeypatch.setattr(processes, "_summed", lambda number, strategy: next(terms))
    assert processes._is_alike(mine, second) == (mine == others)


def test_only_what_is_computed_together_tells_of_a_lost_process(second: Any) -> None:
    run = RunDirectory(None, {})
    with (
        pytest.raises(ProcessLostError, match="Another of the 2 processes has ended"),
        processes.noticing_lost_processes(second, run),
    ):
        raise tf.errors.UnavailableError(None, None, "Collective ops is aborted by: ...")
    with (
        pytest.raises(tf.errors.UnavailableError, match="file"),
        processes.noticing_lost_processes(second, run),
    ):
        raise tf.errors.UnavailableError(None, None, "file server")
