"""kill -9 at awkward moments, the same command again, the same bytes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import run_files

COMMAND = [
    str(Path(sys.executable).parent / "larq-nas"),
    *(
        "search",
        "--space",
        "bats",
        "--set",
        "cells=1",
        "--set",
        "channels=4",
        "--set",
        "nodes=1",
    ),
    *("--batch-size", "8", "--epochs", "2", "--train-epochs", "4", "--augment", "standard"),
]


def start(directory: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [*COMMAND, "--directory", str(directory)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def finish(directory: Path) -> None:
    assert start(directory).wait(timeout=300) == 0


def kill_when(directory: Path, moment: Callable[[Path], bool]) -> None:
    process = start(directory)
    deadline = time.monotonic() + 300
    while not moment(directory):
        assert process.poll() is None, "the run ended before the moment to kill it"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def results(directory: Path) -> dict[str, bytes]:
    return {**run_files(directory), "probabilities": (directory / "probabilities.csv").read_bytes()}


def in_epoch(stage: str, epochs_done: int) -> Callable[[Path], bool]:
    """In the middle of an epoch: some time after the checkpoint of the one before it."""
    seen: list[float] = []

    def moment(directory: Path) -> bool:
        folder = directory / "checkpoints" / stage
        if not seen and list(folder.glob(f"ckpt-{epochs_done}.index")):
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() > seen[0] + 0.15

    return moment


def converting(directory: Path) -> bool:
    """The images to compare on are written just before the model is converted."""
    return (directory / "sample.npy").exists()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> dict[str, bytes]:
    directory = tmp_path_factory.mktemp("whole") / "run"
    finish(directory)
    return results(directory)


@pytest.mark.slow
def test_killed_in_search_training_and_conversion(
    uninterrupted: dict[str, bytes], tmp_path
) -> None:
    """One run, killed three times."""
    directory = tmp_path / "run"
    moments = (("search", 1), ("train_binary", 1))
    for stage, epochs_done in moments:
        kill_when(directory, in_epoch(stage, epochs_done))
        unfinished = "architecture.json" if stage == "search" else "model.keras"
        assert not (directory / unfinished).exists()
    kill_when(directory, converting)
    assert (directory / "model.keras").exists()
    assert not (directory / "result.json").exists()
    finish(directory)
    assert results(directory) == uninterrupted
