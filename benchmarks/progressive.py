"""A progressive search on CIFAR-10, killed in its second and its third stage, and resumed."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from larq_nas.training.loop import read_history

from record import record  # isort: skip  (beside this file)

KILLED_IN = ("search_2", "search_3")


def command(arguments: argparse.Namespace) -> list[str]:
    options = {
        "--searcher": "progressive",
        "--data": "cifar10",
        "--train-split": f"train[:{arguments.images}]",
        "--validation-split": "test[:4000]",
        "--image-size": "16",
        "--batch-size": "48",
        "--augment": "cutout",
        "--epochs": str(arguments.epochs),
        "--train-epochs": str(arguments.train_epochs),
        "--directory": str(arguments.folder),
    }
    settings = (
        "space.cells=7",
        "space.channels=16",
        "space.search_channels=8",
        "searcher.stage_cells=3,5,7",
        "searcher.stage_operations=8,5,3",
        "searcher.architecture_learning_rate=0.01",
    )
    return [
        *(sys.executable, "-m", "larq_nas.cli", "search"),
        *(part for pair in options.items() for part in pair),
        *(part for setting in settings for part in ("--set", setting)),
    ]


def run_until(stage: str | None, arguments: argparse.Namespace) -> float:
    """Run the search, killed after an epoch of `stage`, and return how long it ran, in seconds."""
    start = time.perf_counter()
    process = subprocess.Popen(command(arguments))
    while process.poll() is None:
        time.sleep(1)
        history = read_history(arguments.folder / "history.csv")
        if stage is not None and any(row["stage"] == stage for row in history):
            time.sleep(3)  # within the next epoch
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            print(f"killed in stage {stage}", flush=True)
            return time.perf_counter() - start
    if process.returncode:
        raise SystemExit(process.returncode)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--train-epochs", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=Path("runs/progressive"))
    arguments = parser.parse_args()
    seconds = [run_until(stage, arguments) for stage in (*KILLED_IN, None)]
    stages = json.loads((arguments.folder / "stages.json").read_text())["stages"]
    result: dict[str, Any] = json.loads((arguments.folder / "result.json").read_text())
    measured = {
        "seconds": seconds,
        "stages": stages,
        "history": read_history(arguments.folder / "history.csv"),
        "architecture": json.loads((arguments.folder / "architecture.json").read_text()),
        "result": {name: result[name] for name in ("accuracy", "bytes", "costs")},
    }
    settings = {name: value for name, value in vars(arguments).items() if name != "folder"}
    record("progressive", settings, measured)


if __name__ == "__main__":
    main()
