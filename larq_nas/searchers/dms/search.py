"""Run a search of widths."""

import csv
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.choices import expand
from larq_nas.cost import Limits, SpaceCosts
from larq_nas.data.data import Task
from larq_nas.data.streams import Stream
from larq_nas.errors import InputError, callers_level, first_line
from larq_nas.files import write_table
from larq_nas.report.plots import plot_widths
from larq_nas.run_directory import Run
from larq_nas.searchers.dms.model import DimensionModel, Turns
from larq_nas.searchers.dms.supernet import Supernet
from larq_nas.searchers.dms.widths import Dimensions
from larq_nas.searchers.estimate import RUNTIME_BYTES, estimate_widths, free_memory
from larq_nas.spaces import Space
from larq_nas.training.loop import fit

if TYPE_CHECKING:
    from larq_nas.searchers.dms.settings import Dimension

__all__ = ["DmsSearch", "narrowed", "read_widths", "require_memory"]


_ROUNDS = 30


def narrowed(limits: Limits, ratios: Mapping[str, float], least: float) -> dict[str, float]:
    """Return the widest network that keeps to a budget, of all ratios times one factor.

    # Arguments
        limits: the budget, and the costs of the space.
        ratios: the ratio of each choice by name.
        least: the smallest ratio.

    # Returns
        The ratios; those given if they keep to the budget.

    # Raises
        InputError: if even the smallest ratio is over the budget.
    """

    def at(factor: float) -> dict[str, float]:
        found = {}
        for name, ratio in ratios.items():
            filters = limits.costs.expansions[name].filters
            found[name] = expand(filters, min(ratio, max(factor * ratio, least))) / filters
        return found

    def fits(values: Mapping[str, float]) -> bool:
        return not limits.budget.excess(limits.costs.exact(values))

    if fits(ratios):
        return dict(ratios)
    low, high = 0.0, 1.0
    if not fits(at(low)):
        raise InputError(
            f"The budget must leave room for widths of {least} times their own, but those need "
            f"{limits.budget.describe(limits.costs.exact(at(low)))}: raise it, or lower "
            "`least_mean`."
        )
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(at(middle)) else (low, middle)
    return at(low)


_COLUMNS = ("epoch", "choice", "mean", "sigma", "low", "middle", "high")


class WidthRecord(tf.keras.callbacks.Callback):
    """Keeps `widths.csv`: after each epoch the mean of each choice, sigma and the widths tried.

    # Arguments
        dimensions: the widths.
        run: where the record goes.
    """

    def __init__(self, dimensions: Dimensions, run: Run) -> None:
        super().__init__()
        self._dimensions = dimensions
        self._path = run.widths
        self._logs = run.logs("search") / "widths"
        self._rows: list[dict[str, Any]] | None = None
        self._writer: tf.summary.SummaryWriter | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self._rows is None:
            kept = read_widths(self._path) if self._path.exists() else []
            self._rows = [row for row in kept if int(row["epoch"]) <= epoch]
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


@dataclass(frozen=True)
class DmsSearch:
    """A dimension search that is ready to run.

    # Arguments
        searcher: its settings.
        space: where to search.
        task: the data to search on.
        costs: the costs of the space.
        turns: which epochs train what.
        supernet: the network.
        model: trains it.
        stream: pairs of batches, for weights and means.
    """

    searcher: "Dimension"
    space: Space
    task: Task
    costs: SpaceCosts
    turns: Turns
    supernet: Supernet
    model: DimensionModel
    stream: Stream

    def search(
        self,
        run: Run,
        callbacks: Sequence[tf.keras.callbacks.Callback] = (),
        verbose: int | str = "auto",
    ) -> Architecture:
        """Return the architecture found.

        # Arguments
            run: where checkpoints, history and logs go.
            callbacks: further Keras callbacks.
            verbose: as in `fit`; 0 prints nothing.
        """
        self._announce(verbose)
        fit(
            self.model,
            "search",
            self.stream,
            self.turns.epochs,
            run,
            seed=self.task.seed,
            optimizers=[self.model.optimizer, self.model.architecture_optimizer],
            callbacks=[WidthRecord(self.model.dimensions, run), _Schedule(self), *callbacks],
            verbose=verbose,
        )
        values: dict[str, Any] = self._within_budget(self.model.dimensions.ratios())
        self._report(values, run, verbose)
        return Architecture(self.space.name, self.space.settings(), values)

    def _announce(self, verbose: int | str) -> None:
        if verbose:
            turns, steps = self.turns, self.stream.steps
            needed = memory_of(self.costs, self.model.dimensions, self.task.facts.batch_size)
            print(
                f"Widths of {len(self.costs.expansions)} choices: {turns.count} turns of "
                f"{turns.weight_epochs} epochs for the weights and one for the widths, "
                f"{turns.epochs * steps:,} steps of {self.task.facts.batch_size} images; about "
                f"{needed / 2**30:.1f} GiB of memory at first",
                flush=True,
            )

    def _within_budget(self, ratios: dict[str, float]) -> dict[str, float]:
        """Return ratios that keep to the budget: those found, or as few narrower ones as can be."""
        limits = self.task.limits
        if limits is None:
            return ratios
        found = narrowed(limits, ratios, self.searcher.least_mean)
        if found != ratios:
            warnings.warn(
                "The widths found are over the budget "
                f"({limits.budget.describe(limits.costs.exact(ratios))}): all are made narrower, "
                "until they keep to it. A higher `budget_weight` leaves less to be cut.",
                stacklevel=callers_level(),
            )
        return found

    def _report(self, ratios: dict[str, float], run: Run, verbose: int | str) -> None:
        uniform = {name: asked.filters for name, asked in self.costs.expansions.items()}
        found = {name: expand(filters, ratios[name]) for name, filters in uniform.items()}
        try:
            plotted = plot_widths(read_widths(run.widths), uniform, found, run.plot)
            told = f"plotted in {run.plot.name}" if plotted else "not plotted: no matplotlib"
        except Exception as error:  # noqa: BLE001 - a plot must not cost what was found
            told = f"not plotted: {first_line(error)}"
        if verbose:
            widths = ", ".join(f"{name} {filters}" for name, filters in found.items())
            print(f"Widths found: {widths} ({told})", flush=True)


def memory_of(costs: SpaceCosts, dimensions: Dimensions, batch_size: int) -> float:
    """Return the bytes that training takes at the widths that are tried now."""
    return estimate_widths(costs.structure({}), dimensions.widest(), batch_size)


def require_memory(
    costs: SpaceCosts, dimensions: Dimensions, batch_size: int, held: float = RUNTIME_BYTES
) -> None:
    """Raise `InputError` if widths do not fit in the memory that is free.

    # Arguments
        costs: the costs of the space.
        dimensions: the widths.
        batch_size: images in a batch.
        held: bytes that this process takes already.
    """
    needed, free = memory_of(costs, dimensions, batch_size), free_memory()
    if free is not None and needed - held > free:
        widest = max(dimensions.widest().values())
        raise InputError(
            f"Widths of up to {widest:,} filters need about {needed / 2**30:.1f} GiB of memory, "
            f"but only {(free + held) / 2**30:.1f} GiB are to be had: use a lower `initial_ratio`, "
            "a budget or `memory_target` that holds them down, or smaller batches, in another "
            "directory."
        )


class _Schedule(tf.keras.callbacks.Callback):
    """Trains weights and means in turns, and moves the widths after each."""

    def __init__(self, search: DmsSearch) -> None:
        super().__init__()
        self._search = search

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        # A checkpoint may have brought other widths.
        search = self._search
        search.supernet.follow()
        require_memory(search.costs, search.model.dimensions, search.task.facts.batch_size)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        model = self._search.model
        model.searching.assign(self._search.turns.trains_means(epoch))
        for term in model.terms.values():
            term.begin_epoch(epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        search, turns = self._search, self._search.turns
        means = turns.trains_means(epoch)
        if logs is not None:
            idle = ("loss", "accuracy") if means else ("search_loss", "search_accuracy")
            for name in (*idle, *(() if means else search.model.terms)):
                logs.pop(name, None)
        if means and turns.next(epoch) < turns.count:
            self._move(turns.next(epoch))

    def _move(self, turn: int) -> None:
        search, dimensions = self._search, self._search.model.dimensions
        if not np.isfinite(dimensions.mean.numpy()).all():
            return  # what watches for that ends the search
        size = search.task.facts.batch_size
        held = memory_of(search.costs, dimensions, size)
        dimensions.move(search.turns.scale_of(turn))
        require_memory(search.costs, dimensions, size, held)
        search.supernet.resize(turn, search.searcher.best_effort)
        search.model.optimizer.reset()
