"""Training on two devices: what it computes is what one does."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest
import tensorflow as tf

from larq_nas.errors import InputError
from larq_nas.spaces import Bats
from larq_nas.training.distribution import require_strategy

PROCESS = Path(__file__).with_name("on_replicas.py")
TIMEOUT = 300
SPACE = Bats(cells=2, channels=4, nodes=1)


def run(count: int, target: Path) -> subprocess.CompletedProcess[str]:
    """Devices are split before TensorFlow starts, in a process of its own."""
    command = [sys.executable, str(PROCESS), str(count), str(target)]
    return subprocess.run(command, check=True, capture_output=True, text=True)


def start_two(*targets: Path) -> list[subprocess.Popen[str]]:
    """Start two processes of one replica each, on loopback."""
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


def test_five_bilevel_steps_on_two_replicas_are_those_of_one(tmp_path: Path) -> None:
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
def test_of_two_processes_one_is_killed_and_both_go_on(killed: int, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    processes = start_two(directory, directory)
    first = directory / "checkpoints" / "search" / "checkpoint"
    while not first.exists():
        assert all(process.poll() is None for process in processes)
        time.sleep(0.2)
    processes[killed].kill()
    _, errors = processes[1 - killed].communicate(timeout=TIMEOUT)
    assert processes[1 - killed].returncode == 1
    assert "ProcessLostError: Another of the 2 processes has ended" in errors.splitlines()[-1]
    processes[killed].communicate()
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


def test_processes_must_share_a_directory(digits: Any, strategy: Any, monkeypatch: Any) -> None:
    cluster = tf.train.ClusterSpec({"worker": ["localhost:1", "localhost:2"]})
    resolver = SimpleNamespace(cluster_spec=lambda: cluster, task_type="worker", task_id=0)
    monkeypatch.setattr(type(strategy), "cluster_resolver", resolver)
    with pytest.raises(InputError, match="`directory` must be given with a strategy of several"):
        larq_nas.search(*digits, SPACE, strategy=strategy)
    with pytest.raises(InputError, match="MultiWorkerMirroredStrategy, but got MirroredStrategy"):
        require_strategy(strategy, 32)


def test_batches_that_do_not_divide_are_refused(strategy: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(type(strategy), "num_replicas_in_sync", 3)
    with pytest.raises(InputError, match="3 replicas, which do not divide batches of 32 images"):
        require_strategy(strategy, 32)
    require_strategy(strategy, 33)
