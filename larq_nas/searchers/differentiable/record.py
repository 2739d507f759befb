"""Record of a differentiable search: probabilities, entropies, chosen operations."""

import csv
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.choices import Choice, share_parameter_free, share_zero, strongest
from larq_nas.errors import InputError
from larq_nas.files import read_table, write_table
from larq_nas.report.charts import Section, heat, lines, thinned
from larq_nas.run_directory import RunDirectory
from larq_nas.searchers.differentiable.derivation import scores_of
from larq_nas.searchers.searcher import BUDGET_PENALTY
from larq_nas.supernet.relax import Relax
from larq_nas.training.trainer import FlipRatio

# Shares of what would be chosen now: the second where zeros may be.
WITHOUT_WEIGHTS, ZEROS = "skips_and_pools", "zero"

_COLUMNS = ("epoch", "choice", "input", "operation", "probability")


class Health(FlipRatio):
    """Reports after each epoch what is being chosen, and keeps it.

    `skips_and_pools` and `zero` are the shares of operations without weights, and of zeros, in
    the architecture as it would be derived; `flip_ratio` is that of `FlipRatio`. TensorBoard
    shows how often each operation would be chosen, and the entropy of each edge, in nats.
    `probabilities.csv` has every edge of every epoch, those of stages before counted too, without
    the transfer factor.
    """

    def __init__(
        self,
        choose: Relax,
        run: RunDirectory,
        stage: str = "search",
        epochs_before: int = 0,
        transfer_factor: float = 1.0,
    ) -> None:
        super().__init__()
        self._choose = choose
        self._transfer_factor = transfer_factor
        self._path = run.probabilities
        self._logs = run.logs(stage) / "choices"
        self._epochs_before = epochs_before
        self._rows: list[dict[str, Any]] | None = None
        self._writer: tf.summary.SummaryWriter | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        if self._rows is None:
            rows = _read_rows(self._path) if self._path.exists() else []
            self._rows = [row for row in rows if int(row["epoch"]) <= self._epochs_before + epoch]
            self._writer = tf.summary.create_file_writer(str(self._logs))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        probabilities = scores_of(self._choose)
        choices = self._choose.choices
        chosen = strongest(choices, scores_of(self._choose, self._transfer_factor))
        if logs is not None:
            logs[WITHOUT_WEIGHTS] = share_parameter_free(choices, chosen)
            if any(choice.keeps_zero for choice in choices.values()):
                logs[ZEROS] = share_zero(choices, chosen)
        self._keep(self._epochs_before + epoch + 1, probabilities)
        self._show(epoch, probabilities, chosen)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        if self._writer:
            self._writer.close()

    def _keep(self, epoch: int, probabilities: dict[str, np.ndarray]) -> None:
        assert self._rows is not None
        for name, matrix in probabilities.items():
            operations = self._choose.choices[name].operations
            for (index, column), value in np.ndenumerate(matrix):
                figures = (epoch, name, index, operations[column], f"{value:.9g}")
                self._rows.append(dict(zip(_COLUMNS, map(str, figures), strict=True)))
        write_table(self._path, self._rows)

    def _show(self, epoch: int, probabilities: dict[str, np.ndarray], chosen: Any) -> None:
        assert self._writer is not None
        counts: dict[str, int] = {}
        for name, choice in self._choose.choices.items():
            for operation in choice.operations:
                label = f"operations/{choice.group}/{operation}"
                counted = sum(operation == taken for taken, _ in chosen[name])
                counts[label] = counts.get(label, 0) + counted
        with self._writer.as_default(step=epoch):
            for label, count in counts.items():
                tf.summary.scalar(label, count)
            for name, matrix in probabilities.items():
                safe = np.maximum(matrix, np.finfo(np.float64).tiny)
                for index, entropy in enumerate(-(safe * np.log(safe)).sum(axis=1)):
                    tf.summary.scalar(f"entropy/{name}/input{index}", entropy)


def read_scores(path: Path, choices: Mapping[str, Choice]) -> dict[int, dict[str, np.ndarray]]:
    """Return the probabilities of each epoch: of each choice, shape `(inputs, operations)`.

    # Raises
        InputError: if `path` is not the record of a search with these choices.
    """
    epochs: dict[int, dict[str, np.ndarray]] = {}
    for row in _read_rows(path):
        of_epoch = epochs.setdefault(int(row["epoch"]), {})
        name, index, operation = str(row["choice"]), int(row["input"]), str(row["operation"])
        choice = choices.get(name)
        if choice is None or operation not in choice.operations or index >= choice.inputs:
            continue
        shape = choice.inputs, len(choice.operations)
        matrix = of_epoch.setdefault(name, np.full(shape, np.nan))
        matrix[index, choice.operations.index(operation)] = float(row["probability"])
    for of_epoch in epochs.values():
        if of_epoch.keys() != choices.keys() or any(map(_has_gaps, of_epoch.values())):
            raise InputError(
                f"`{path}` is damaged, or not the record of this space: restore it, or search "
                "again in another directory."
            )
    return epochs


def _has_gaps(matrix: np.ndarray) -> bool:
    return bool(np.isnan(matrix).any())


def _read_rows(path: Path) -> list[dict[str, Any]]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"Cannot read the record of the search, `{path}` ({type(error).__name__}): restore it, "
            "or search again in another directory."
        ) from None
    if not rows or tuple(rows[0]) != _COLUMNS or not all(map(_is_whole, rows)):
        raise InputError(f"`{path}` is not the record of a search: restore or delete it.")
    return rows


def _is_whole(row: dict[str, Any]) -> bool:
    try:
        int(row["epoch"]), int(row["input"]), float(row["probability"])
    except (TypeError, ValueError):
        return False
    return True


_HEALTH = ("entropy", "max_probability", WITHOUT_WEIGHTS, ZEROS, "flip_ratio", "diversity")
_EPOCH = "epoch of the search"


def sections(run: RunDirectory) -> list[Section]:
    """Return what a report shows of a search: how the operations were decided, and its health."""
    found = []
    if run.probabilities.exists():
        kept = _kept(run.architecture) if run.architecture.exists() else {}
        found += _decisions(read_table(run.probabilities, *_COLUMNS), kept)
    health = [row for row in read_table(run.history) if row["stage"].startswith("search")]
    # The epochs of a progressive search are counted on from stage to stage.
    health = [{**row, _EPOCH: number} for number, row in enumerate(health, 1)]
    charts = [
        lines(thinned(rows, _EPOCH), _EPOCH, name, title=name)
        for name in (*_HEALTH, BUDGET_PENALTY)
        if len(rows := [row for row in health if name in row]) > 1 and any(r[name] for r in rows)
    ]
    if charts:
        told = {
            "entropy": "entropy and max_probability are means over all edges and over the steps of "
            "an epoch: the first falls and the second rises as the search decides.",
            WITHOUT_WEIGHTS: f"{WITHOUT_WEIGHTS} is the share of operations without weights in the "
            "cells of all kinds as they would be derived: above three quarters in one kind, it has "
            "collapsed.",
            "flip_ratio": "flip_ratio is the share of binary weights that changed their sign.",
            BUDGET_PENALTY: f"{BUDGET_PENALTY} is what the budget adds to the loss.",
        }
        text = " ".join(words for name, words in told.items() if any(name in row for row in health))
        found.append(Section("Health of the search", text, charts))
    if run.stages.exists():
        found.append(_stages(run))
    return found


def _kept(path: Path) -> dict[tuple[str, int], str]:
    """Return the operation on each input that the network keeps."""
    choices: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["choices"]
    found: dict[tuple[str, int], str] = {}
    for name, value in choices.items():
        if isinstance(value, str | int):  # an operation, or a number of blocks
            found[name, 0] = str(value)
        elif isinstance(value, list):
            found |= {(name, index): operation for operation, index in value}
    return found


def _decisions(
    rows: Sequence[Mapping[str, Any]], kept: Mapping[tuple[str, int], str]
) -> list[Section]:
    """Return the probabilities over time, and the two that are the largest in the end."""
    edges: dict[tuple[str, int], dict[int, dict[str, float]]] = {}
    for row in rows:
        epochs = edges.setdefault((row["choice"], row["input"]), {})
        epochs.setdefault(row["epoch"], {})[str(row["operation"])] = row["probability"]
    told, undecided, table = [], [], []
    for (choice, index), epochs in edges.items():
        edge = f"{choice}, input {index}"
        for epoch, of_epoch in epochs.items():
            undecided.append({"edge": edge, _EPOCH: epoch, "undecided": _undecided(of_epoch)})
            told += [
                {"edge": edge, _EPOCH: epoch, "operation": operation, "probability": round(p, 4)}
                for operation, p in of_epoch.items()
            ]
        ordered = sorted(epochs[max(epochs)].items(), key=lambda pair: -pair[1])
        line = {"edge": edge, "kept": kept.get((choice, index), "-")}
        for place, (operation, p) in zip(("first", "second"), ordered, strict=False):
            line |= {place: operation, f"{place}, probability": f"{p:.3f}"}
        table.append({**line, "undecided": f"{undecided[-1]['undecided']:.3f}"})
    probabilities = lines(
        thinned(told, _EPOCH),
        _EPOCH,
        "probability",
        color="operation",
        select="edge",
        title="Probabilities of an edge",
        domain=(0, 1),
    )
    title = "How undecided each edge is"
    squares = heat(thinned(undecided, _EPOCH), _EPOCH, "edge", "undecided", title=title)
    text = (
        "Each edge of a cell holds all operations at first; the search raises the probability of "
        "those that serve best. Each node keeps the inputs whose best operation is the most "
        "probable, unless a budget, or a cell of zeros, changed that. Undecided is the entropy as "
        "a share of its largest: 1 while all operations that are left are as probable, 0 when one "
        "has all. The table has the end of the search."
    )
    return [Section("Why these operations", text, [probabilities, squares], rows=table)]


def _undecided(probabilities: Mapping[str, float]) -> float:
    """Return the entropy as a share of that of as many operations that are as probable."""
    left = [p for p in probabilities.values() if p > 0]
    if len(left) < 2:
        return 0.0
    return round(-sum(p * math.log(p) for p in left) / math.log(len(left)), 3)


def _stages(run: RunDirectory) -> Section:
    try:
        records = json.loads(run.stages.read_text(encoding="utf-8"))["stages"]
        rows = [
            {
                "stage": number,
                "cells": record["cells"],
                "operations of an edge": record["operations"],
                "dropped most often": ", ".join(
                    f"{operation} ({count})" for operation, count in _dropped(record).most_common(4)
                ),
            }
            for number, record in enumerate(records, 1)
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"`{run.stages}` cannot be read ({type(error).__name__}).") from None
    settings = run.settings.get("searcher", {})
    given = zip(settings.get("stage_cells", ()), settings.get("stage_operations", ()), strict=False)
    further = list(enumerate(given, 1))[len(rows) :]
    rows += [
        {"stage": number, "cells": cells, "operations of an edge": operations}
        for number, (cells, operations) in further
    ]
    text = "Each stage is deeper, and leaves the least probable operations out."
    return Section("Stages", text, rows=rows)


def _dropped(record: Mapping[str, Any]) -> Counter[str]:
    """Return how often a stage has dropped each operation."""
    return Counter(operation for dropped in record["dropped"].values() for operation, *_ in dropped)
