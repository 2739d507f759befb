"""What the processes of a search are started with; these record it and do nothing else."""

import sys
from pathlib import Path

import pytest

from larq_nas.errors import LarqNasError
from larq_nas.searchers.evolution.processes import launch

RECORDING = """
import os, signal, sys, time
from pathlib import Path
directory, name = Path(sys.argv[1]), os.environ["KERASTUNER_TUNER_ID"]
with open(directory / name, "a") as file:
    file.write(" ".join(sys.argv[2:]) + ";")
if name != "chief":
    WORKER
starts = (directory / "chief").read_text().count(";")
(directory / "settings.json").touch()
if starts == 1:
    os.kill(os.getpid(), signal.SIGKILL)
while not (directory / "worker1").exists():
    time.sleep(0.05)
time.sleep(END)
"""


def record(directory: Path, worker: str, end: float) -> int:
    script = directory / "script.py"
    script.write_text(RECORDING.replace("WORKER", worker).replace("END", str(end)))
    return launch([sys.executable, str(script), str(directory), "--no-resume", "-x"], 1, directory)


def test_only_the_first_chief_refuses_a_run_that_is_there(tmp_path: Path) -> None:
    assert record(tmp_path, worker="raise SystemExit(0)", end=0.5) == 0
    assert (tmp_path / "chief").read_text() == "--no-resume -x;-x;"
    assert (tmp_path / "worker1").read_text() == "-x;"


def test_a_worker_that_fails_again_and_again_ends_the_search_with_its_last_line(
    tmp_path: Path,
) -> None:
    with pytest.raises(LarqNasError, match=r"worker1 ended 10 times .*: no such thing"):
        record(tmp_path, worker="print('no such thing'); raise SystemExit(1)", end=60)
