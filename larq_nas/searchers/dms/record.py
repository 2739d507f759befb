"""Record of a search of widths: the means, sigma, and the widths tried."""

import csv
from pathlib import Path
from typing import Any

import tensorflow as tf

from larq_nas.errors import InputError
from larq_nas.files import read_table, write_table
from larq_nas.report.charts import Section, lines, thinned
from larq_nas.run_directory import RunDirectory
from larq_nas.searchers.dms.widths import Dimensions
from larq_nas.searchers.searcher import BUDGET_PENALTY

_COLUMNS = ("epoch", "choice", "mean", "sigma", "low", "middle", "high")


class WidthRecord(tf.keras.callbacks.Callback):
    """Keeps `widths.csv`: after each epoch the mean of each choice, sigma and the widths tried."""

    def __init__(self, dimensions: Dimensions, run: RunDirectory) -> None:
        super().__init__()
        self._dimensions = dimensions
        self._path = run.widths
        self._logs = run.logs("search") / "widths"
        self._rows: list[dict[str, Any]] | None = None
        self._writer: tf.summary.SummaryWriter | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self._rows is None:
            rows: list[Any] = read_widths(self._path) if self._path.exists() else []
            self._rows = [row for row in rows if int(row["epoch"]) <= epoch]
            self._writer = tf.summary.create_file_writer(str(self._logs))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert self._rows is not None
        assert self._writer is not None
        dimensions = self._dimensions
        scale = float(dimensions.scale.numpy())
        if logs is not None:
            logs["sigma"] = scale
        figures = zip(
            dimensions.names, dimensions.mean.numpy(), dimensions.widths.numpy(), strict=True
        )
        with self._writer.as_default(step=epoch):
            tf.summary.scalar("sigma", scale)
            for name, mean, widths in figures:
                row = (epoch + 1, name, f"{mean:.7g}", f"{scale:.7g}", *widths)
                self._rows.append(dict(zip(_COLUMNS, map(str, row), strict=True)))
                tf.summary.scalar(f"mean/{name}", mean)
                for label, width in zip(_COLUMNS[-3:], widths, strict=True):
                    tf.summary.scalar(f"width/{name}/{label}", width)
        write_table(self._path, self._rows)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        if self._writer:
            self._writer.close()


def read_widths(path: Path) -> list[dict[str, str]]:
    """Return the rows of `widths.csv`.

    # Raises
        InputError: if `path` is not the record of a search.
    """
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not all(tuple(row) == _COLUMNS and str(row["epoch"]).isdigit() for row in rows):
        raise InputError(f"`{path}` is not the record of a search: restore or delete it.")
    return rows


def sections(run: RunDirectory) -> list[Section]:
    """Return what a report shows of a search of widths: the means, and sigma, over time."""
    if not run.widths.exists():
        return []
    every = read_table(run.widths, *_COLUMNS)
    rows = thinned(every)
    means = [{"epoch": row["epoch"], "layer": row["choice"], "mean": row["mean"]} for row in rows]
    sigma = {row["epoch"]: {"epoch": row["epoch"], "sigma": row["sigma"]} for row in rows}
    charts = [
        lines(means, "epoch", "mean", color="layer", title="Mean of each width (DMS, figure 4)"),
        lines(list(sigma.values()), "epoch", "sigma", title="Sigma"),
    ]
    history = [row for row in read_table(run.history) if row["stage"] == "search"]
    for name in ("memory_penalty", BUDGET_PENALTY):
        penalties = [row for row in history if name in row]
        if len(penalties) > 1:
            charts.append(lines(thinned(penalties), "epoch", name, title=name))
    first = {row["choice"]: row["mean"] for row in reversed(every)}
    last = {row["choice"]: row["mean"] for row in every}
    table = [
        {"layer": name, "mean at first": f"{first[name]:.3f}", "at the end": f"{mean:.3f}"}
        for name, mean in last.items()
    ]
    moved = max((abs(mean / first[name] - 1) for name, mean in last.items()), default=0.0)
    text = (
        "A width is its mean times the filters of the uniform network. The gradient of the loss "
        "moves the means, in epochs that follow those that train the weights; sigma, how far "
        "widths are tried around them, falls as the search ends. "
        f"The largest move of a mean in this search was {moved:.1%}."
    )
    return [Section("Widths over time", text, charts, rows=table)]
