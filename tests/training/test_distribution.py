"""Training on two devices: what it computes is what one does."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest
import tensorflow as tf

from larq_nas.errors import DivergenceError, InputError, ProcessLostError
from larq_nas.run import Run
from larq_nas.spaces import Bats
from larq_nas.training import processes
from larq_nas.training.distribution import require_strategy
from larq_nas.training.history import read_history

PROCESS = Path(__file__).with_name("on_replicas.py")
TIMEOUT = 300
Start = Callable[..., list[subprocess.Popen[str]]]
SPACE = Bats(cells=2, channels=4, nodes=1)


def run(count: int, target: Path) -> subprocess.CompletedProcess[str]:
    """Devices are split before TensorFlow starts, in a process of its own."""
    command = [sys.executable, str(PROCESS), str(count), str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def start_two() -> Iterator[Start]:
    """Starts two processes of one replica each, on loopback; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*targets: Path) -> list[subprocess.Popen[str]]:
        started.extend(two := _start_two(*targets))
        return two

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _start_two(*targets: Path) -> list[subprocess.Popen[str]]:
    with socket.create_server(("localhost", 0)) as one, socket.create_server(("", 0)) as two:
        addresses = [f"localhost:{s.getsockname()[1]}" for s in (one, two)]
    processes = []
    for index, target in enumerate(targets):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        processes.append(
            subprocess.Popen(
                [sys.executable, str(PROCESS), "processes", str(target)],
                env={**os.environ, "TF_CONFIG": json.dumps(task)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return processes


def ended(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Return what processes said that have ended well."""
    said = [process.communicate(timeout=TIMEOUT) for process in processes]
    for process, (_, errors) in zip(processes, said, strict=True):
        assert process.returncode == 0, errors
    return [output for output, _ in said]


def test_five_bilevel_steps_on_two_replicas_are_those_of_one(
    start_two: Start, tmp_path: Path
) -> None:
    """Of all weights and alphas; Keras' synchronized variance is that of a batch, n for n - 1."""
    names = ("one", "two", "first_of_two_processes", "second_of_two_processes")
    paths = [tmp_path / f"{name}.npz" for name in names]
    run(1, paths[0])
    run(2, paths[1])
    ended(start_two(*paths[2:]))
    one, *others = [dict(np.load(path)) for path in paths]
    assert any("alpha" in name for name in one)
    for label, other in zip(names[1:], others, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            tolerance = 1e-2 if "moving_variance" in name else 1e-6
            message = f"{label}: {name}"
            np.testing.assert_allclose(other[name], value, atol=tolerance, err_msg=message)


@pytest.mark.slow
def test_a_search_on_two_replicas_ends_in_a_flatbuffer(tmp_path: Path) -> None:
    said = run(2, tmp_path / "run").stdout
    assert "2 of 2 cells are computed operation by operation" in said
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert all(parity["agreement"] == 1 for parity in result["parity"])
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())["settings"]
    assert settings["replicas"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_of_two_processes_one_is_killed_and_both_go_on(
    start_two: Start, killed: int, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    processes = start_two(directory, directory)
    first = directory / "checkpoints" / "search" / "checkpoint"
    for _ in range(5 * TIMEOUT):
        if first.exists():
            break
        assert all(process.poll() is None for process in processes)
        time.sleep(0.2)
    processes[killed].kill()
    _, errors = processes[1 - killed].communicate(timeout=TIMEOUT)
    assert processes[1 - killed].returncode == 1
    assert "ProcessLostError: Another of the 2 processes has ended" in errors.splitlines()[-1]
    assert not (directory / "architecture.json").exists()

    chief, other = ended(start_two(directory, directory))
    assert "(1 done before)" in chief or "(2 done before)" in chief
    assert other == f"One of 2 processes; the chief writes `{directory}`\n"
    result = json.loads((directory / "result.json").read_text())
    assert all(parity["agreement"] == 1 for parity in result["parity"])
    whole = tmp_path / "whole"
    ended(start_two(whole, whole))
    for name in ("history.csv", "architecture.json", "result.json"):
        assert (directory / name).read_text() == (whole / name).read_text()
    run(2, tmp_path / "one")
    alike = (read_history(place / "history.csv") for place in (whole, tmp_path / "one"))
    for mine, others in zip(*alike, strict=True):
        assert mine.keys() == others.keys()
        for name in mine.keys() - {"stage"}:
            assert float(mine[name]) == pytest.approx(float(others[name]), rel=1e-3), name


@pytest.fixture
def strategy() -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(["CPU:0"])


def test_what_cannot_be_used_is_refused(digits: Any, strategy: Any, tmp_path: Path) -> None:
    settings: Any = {"space": SPACE, "directory": tmp_path / "run", "verbose": 0}
    with pytest.raises(
        InputError, match=r"`strategy` must be a tf\.distribute\.Strategy, but got 2"
    ):
        larq_nas.search(*digits, **settings, strategy=2)
    with (
        strategy.scope(),
        pytest.raises(InputError, match="call it outside, and give the strategy"),
    ):
        larq_nas.search(*digits, **settings)
    with pytest.raises(InputError, match="Searcher `evolution` trains on one device"):
        larq_nas.search(*digits, **settings, searcher="evolution", strategy=strategy)
    assert not (tmp_path / "run").exists()


def test_other_strategies_of_several_processes_are_refused(strategy: Any, monkeypatch: Any) -> None:
    cluster = tf.train.ClusterSpec({"worker": ["localhost:1", "localhost:2"]})
    resolver = SimpleNamespace(cluster_spec=lambda: cluster, task_type="worker", task_id=0)
    monkeypatch.setattr(type(strategy), "cluster_resolver", resolver)
    with pytest.raises(InputError, match="MultiWorkerMirroredStrategy, but got MirroredStrategy"):
        require_strategy(strategy, 32)


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
        processes.working_in(Run(tmp_path, {}), second),
    ):
        pass


def test_the_others_work_in_a_copy(second: Any, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", {"seed": 0})
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
        processes.working_in(Run(run.directory, {"seed": 1}), second),
    ):
        pass


def test_processes_that_find_other_files_are_told(
    second: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    run = Run(tmp_path, {})
    before = run.digest()
    (tmp_path / "stages.json").write_text("{}")
    assert run.digest() != before
    monkeypatch.setattr(processes, "_summed", lambda number, strategy: number + before)
    with (
        pytest.raises(InputError, match="must hold the same for all processes"),
        processes.noticing_lost_processes(second, run),
    ):
        pass


def test_only_what_is_computed_together_tells_of_a_lost_process(second: Any) -> None:
    run = Run(None, {})
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


def test_batches_that_do_not_divide_are_refused(strategy: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(type(strategy), "num_replicas_in_sync", 3)
    with pytest.raises(InputError, match="3 replicas, which do not divide batches of 32 images"):
        require_strategy(strategy, 32)
    require_strategy(strategy, 33)
