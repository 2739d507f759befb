"""A chief and workers as processes on this machine, killed at awkward moments."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

COMMAND = [
    *(sys.executable, "-m", "larq_nas.cli", "search", "--method", "shen2019"),
    *("--set", "space.ratios=0.03125,0.0625,0.125", "--set", "searcher.population=6"),
    *("--set", "searcher.candidate_epochs=2", "--set", "searcher.widest_epochs=1"),
    *("--set", "searcher.subset=300", "--batch-size", "20"),
    *("--epochs", "4", "--train-epochs", "1", "--seed", "3"),
]
WORKERS = ("--workers", "3")
SECONDS = 400


def start(directory: Path, *options: str, **environment: str) -> subprocess.Popen:
    log = directory.parent / f"{directory.name}.log"
    with open(log, "ab") as file:
        return subprocess.Popen(
            [*COMMAND, *options, "--directory", str(directory)],
            stdout=file,
            stderr=file,
            start_new_session=True,
            env={**os.environ, **environment},
        )


def pid_of(name: str, directory: Path) -> int | None:
    """Return the process that is `name` in the search of that directory."""
    for process in Path("/proc").iterdir():
        try:
            environment = (process / "environ").read_bytes().split(b"\0")
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if f"KERASTUNER_TUNER_ID={name}".encode() in environment and (
            str(directory).encode() in command
        ):
            return int(process.name)
    return None


def kill(name: str, directory: Path) -> None:
    wait(lambda: pid_of(name, directory) is not None)
    pid = pid_of(name, directory)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def wait(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def finished(directory: Path) -> int:
    """Return the number of candidates that were scored."""
    number = 0
    for path in (directory / "trials").glob("trial_*/trial.json"):
        number += json.loads(path.read_text())["status"] == "COMPLETED"
    return number


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("alone") / "run"
    assert start(directory).wait(timeout=SECONDS) == 0
    return directory


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_killed_workers_chief_and_all_end_in_what_one_process_finds(
    alone: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "many"
    launcher = start(directory, *WORKERS)
    wait(lambda: finished(directory) >= 2)
    kill("worker1", directory)
    wait(lambda: finished(directory) >= 6)
    kill("worker2", directory)
    kill("worker3", directory)
    wait(lambda: finished(directory) >= 10)
    kill("chief", directory)
    wait(lambda: finished(directory) >= 15)
    os.killpg(launcher.pid, signal.SIGKILL)
    launcher.wait()
    before = finished(directory)
    assert before < 24, "the search ended before everything was killed"
    assert start(directory, *WORKERS).wait(timeout=SECONDS) == 0
    state = json.loads((directory / "trials" / "oracle.json").read_text())
    # Each was scored once: what was in flight had no score yet.
    assert set(state["run_times"].values()) == {1}
    assert sorted(state["end_order"]) == [f"{number:04d}" for number in range(24)]
    for name in ("candidates.csv", "architecture.json", "pareto/front.csv", "model.tflite"):
        assert (directory / name).read_bytes() == (alone / name).read_bytes(), name


@pytest.mark.slow
def test_a_worker_of_other_settings_says_which(alone: Path) -> None:
    worker = start(
        alone,
        *("--set", "searcher.trade_off=5"),
        KERASTUNER_TUNER_ID="worker1",
        KERASTUNER_ORACLE_IP="127.0.0.1",
        KERASTUNER_ORACLE_PORT="1",
    )
    assert worker.wait(timeout=SECONDS) == 1
    said = (alone.parent / f"{alone.name}.log").read_text().splitlines()[-1]
    assert "the chief's run with other settings (searcher.trade_off was 4.0, now 5)" in said
