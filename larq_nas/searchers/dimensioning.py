"""A dimension search that is ready to run."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.cost import SpaceCosts
from larq_nas.dimension import DimensionModel, Dimensions, Supernet, Turns
from larq_nas.errors import InputError, callers_level, first_line
from larq_nas.expansion import expand
from larq_nas.pipeline.streams import Stream
from larq_nas.report import plot_widths
from larq_nas.run import Run
from larq_nas.searchers.estimate import RUNTIME_BYTES, estimate_widths, free_memory
from larq_nas.searchers.narrow import narrowed
from larq_nas.searchers.widths import WidthRecord, read_widths
from larq_nas.spaces import Space
from larq_nas.task import Task
from larq_nas.training.loop import fit

if TYPE_CHECKING:
    from larq_nas.searchers.dimension import Dimension

__all__ = ["Dimensioning", "require_memory"]


@dataclass(frozen=True)
class Dimensioning:
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

    def __init__(self, search: Dimensioning) -> None:
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
