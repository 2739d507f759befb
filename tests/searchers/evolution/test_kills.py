"""Searches of a joint space, killed at random moments, alone and with workers: the same bytes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TypeAlias

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest
import tensorflow as tf
from test_processes import SECONDS, pid_of, wait

COMMAND = [
    *(sys.executable, "-m", "larq_nas.cli", "search", "--searcher", "evolution"),
    *("--space", f"{Path(__file__).parents[2] / 'joint_space.py'}:joint"),
    *("--set", "searcher.rungs=1,2", "--set", "searcher.subset=200"),
    *("--set", "searcher.confirm=2", "--set", "searcher.confirm_epochs=1"),
    *("--set", "searcher.objectives=accuracy,binary_macs", "--set", "recipe.stages=binary"),
    *("--batch-size", "20", "--train-epochs", "1", "--seed", "3"),
]
SHORT = ("--epochs", "1", "--set", "searcher.population=2")
LONG = ("--epochs", "2", "--set", "searcher.population=4")
WORKERS = ("--workers", "2")
NEEDS_PROC = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
KILLED = ("chief", "everything", "worker1", "worker2")
FILES = ("candidates.csv", "confirmed.csv", "architecture.json", "history.csv", "model.tflite")


def start(directory: Path, *options: str) -> subprocess.Popen:
    with open(directory.parent / f"{directory.name}.log", "ab") as log:
        return subprocess.Popen(
            [*COMMAND, *options, "--directory", str(directory)],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def wait_for_run(directory: Path, process: subprocess.Popen) -> float:
    """Wait for a run to begin, and return when it did."""
    wait(lambda: process.poll() is not None or (directory / "settings.json").exists())
    return time.monotonic()


Whole: TypeAlias = tuple[Path, float]
"""A run that nothing killed, and the seconds that it took."""


def run_whole(directory: Path, *options: str) -> Whole:
    process = start(directory, *options)
    began = wait_for_run(directory, process)
    assert process.wait(SECONDS) == 0, (directory.parent / "run.log").read_text()
    return directory, time.monotonic() - began


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return run_whole(tmp_path_factory.mktemp("short") / "run", *SHORT)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return run_whole(tmp_path_factory.mktemp("long") / "run", *LONG)


def require_same(one: Path, other: Path) -> None:
    """Fail if two runs left other bytes, or other weights."""
    fronts = [sorted(path.name for path in (run / "pareto").iterdir()) for run in (one, other)]
    assert fronts[0] == fronts[1]
    for name in (*FILES, *(f"pareto/{file}" for file in fronts[0])):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    weights = [
        tf.keras.models.load_model(run / "model.keras").get_weights() for run in (one, other)
    ]
    for mine, theirs in zip(*weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def end(process: subprocess.Popen) -> None:
    """Kill a search and all of its processes."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def kill_all(number: int, whole: Whole, directory: Path, *options: str) -> None:
    """Kill a search at a random moment, let it go on, and compare it with one that was not."""
    process = start(directory, *options)
    wait_for_run(directory, process)
    time.sleep(whole[1] * random.Random(number).random())
    end(process)
    log = directory.parent / "run.log"
    assert start(directory, *options).wait(SECONDS) == 0, log.read_text()
    require_same(directory, whole[0])


def kill_one(name: str, number: int, whole: Whole, directory: Path, *options: str) -> None:
    """Kill the chief or a worker at a random moment, and compare what all of them end in."""
    launcher = start(directory, *options)
    try:
        wait_for_run(directory, launcher)
        time.sleep(whole[1] * random.Random(number).random())
        wait(lambda: launcher.poll() is not None or pid_of(name, directory) is not None)
        pid = pid_of(name, directory)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        assert launcher.wait(SECONDS) == 0, (directory.parent / "run.log").read_text()
    finally:
        if launcher.poll() is None:
            end(launcher)
    require_same(directory, whole[0])


@pytest.mark.slow
def test_killed_a_search_goes_on_to_the_same(short: Whole, tmp_path: Path) -> None:
    kill_all(0, short, tmp_path / "run", *SHORT)


@NEEDS_PROC
@pytest.mark.slow
def test_where_the_chief_is_killed_workers_go_on_to_the_same(short: Whole, tmp_path: Path) -> None:
    kill_one("chief", 0, short, tmp_path / "run", *SHORT, *WORKERS)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(10))
def test_killed_at_a_random_moment_a_search_goes_on_to_the_same(
    number: int, long: Whole, tmp_path: Path
) -> None:
    kill_all(number, long, tmp_path / "run", *LONG)


@NEEDS_PROC
@pytest.mark.slow
@pytest.mark.parametrize("number", range(10))
def test_killed_at_a_random_moment_workers_go_on_to_the_same(
    number: int, long: Whole, tmp_path: Path
) -> None:
    name, options = KILLED[number % len(KILLED)], (*LONG, *WORKERS)
    if name == "everything":
        kill_all(number, long, tmp_path / "run", *options)
    else:
        kill_one(name, number, long, tmp_path / "run", *options)


assert larq_nas
