"""The history of a run, one row per epoch of each stage."""

import csv
from pathlib import Path

import tensorflow as tf

from larq_nas.errors import InputError
from larq_nas.files import write_table

__all__ = ["History", "read_history"]


class History(tf.keras.callbacks.Callback):
    """Keeps `history.csv` whole: a stage resumed at an epoch has each epoch once.

    # Arguments
        path: the CSV file.
        stage: name of the stage, unique in the run.
        first: epoch the stage starts or goes on with; later rows of it are dropped.
    """

    def __init__(self, path: Path, stage: str, first: int) -> None:
        super().__init__()
        self._path = path
        self._stage = stage
        self._rows = [
            row for row in read_history(path) if row["stage"] != stage or int(row["epoch"]) <= first
        ]

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        figures = {name: f"{float(value):.6g}" for name, value in (logs or {}).items()}
        self._rows.append({"stage": self._stage, "epoch": str(epoch + 1), **figures})
        write_table(self._path, self._rows)


def read_history(path: Path) -> list[dict[str, str]]:
    """Return the rows of `history.csv`, without the figures a stage does not have."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
    if not all({"stage", "epoch"} <= row.keys() for row in rows):
        raise InputError(f"`{path}` is not the history of a run: restore or delete it.")
    return rows
