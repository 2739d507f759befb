"""The contract of a searcher: its settings, and the search that it prepares."""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.cost import Limits
from larq_nas.data.data import Data
from larq_nas.run_directory import RunDirectory
from larq_nas.spaces import Space
from larq_nas.training.recipe import Recipe

Callbacks: TypeAlias = Sequence[tf.keras.callbacks.Callback]
"""Keras callbacks of a training."""

BUDGET_PENALTY = "budget_penalty"
"""The metric of what a budget adds to a loss; no search without a budget has it."""


SEARCH_SPLIT = 0.1
"""The share of the training images that a searcher compares candidates on, if it does not say."""


class Search(Protocol):
    """A validated search: every invalid input has been refused."""

    def run(
        self, directory: RunDirectory, callbacks: Callbacks = (), verbose: int | str = "auto"
    ) -> Architecture:
        """Return the architecture found.

        A search that was killed goes on from what `directory` holds, with the same result.

        # Arguments
            directory: where its files go.
            callbacks: further Keras callbacks.
            verbose: as in `tf.keras.Model.fit`; 0 prints nothing.

        # Raises
            DivergenceError: if nothing could be trained.
        """

    # `callbacks` of a searcher with `stages` are `larq_nas.training.callbacks.StageCallbacks`:
    # `larq_nas.training.loop.fit` takes those of its stage, and `of(stage)` returns them.
    #
    # Where `several_processes`, a worker calls `work(directory, callbacks)` in place of `run`: it
    # trains what the chief hands out, and returns when there is no more.


@runtime_checkable
class Searcher(Protocol):
    """Settings of a way to search, usually a frozen dataclass.

    `larq_nas.testing.SearcherConformance` tests what is promised here.

    # Attributes
        name: its name.
        default_epochs: epochs, or generations, it takes if none are given.
        several_devices: whether it trains on the devices of a `tf.distribute.Strategy`.
        several_processes: whether it trains candidates in several processes; its search has a
            method `work(directory, callbacks)` then.
        smallest_ratio: the smallest expansion ratio it may give a width, where that is not among
            the ratios of the space; `None` if it keeps to those.
    """

    # A searcher may have `stages` as well: what each of its trainings logs, by the name that its
    # callbacks are given by (`larq_nas.training.callbacks.StageLogs`). Without, there is one stage
    # `"search"`, and what monitors a metric it has not is not refused before it starts.
    #
    # Where it has a method `report(directory)`, this returns the sections that a report of its runs
    # shows, `larq_nas.report.charts.Section`, of what the directory holds by then: while a search
    # goes on too.
    #
    # Where `ranks` is true, its search writes `directory.ranking`, by
    # `larq_nas.architecture.write_ranking`: candidates that may be returned, the best first.
    #
    # Where `continues` is true, a search of more epochs does in its first ones what one of fewer
    # does, whatever has ended behind it: a run goes on to more. Without, another number is refused.
    #
    # Where it has a method `require_epochs(epochs)`, this refuses a number before data is read.
    #
    # Its data has no image that is reported: `data.validation` is a share of the training images,
    # held out of `data.train`. The share is what its method `held_out(train_examples)` returns, 0
    # for one that has no use for it, or `SEARCH_SPLIT` without that method.

    name: ClassVar[str]
    several_devices: ClassVar[bool]
    several_processes: ClassVar[bool]

    @property
    def default_epochs(self) -> int:
        """Epochs, or generations, it takes if none are given."""

    @property
    def smallest_ratio(self) -> float | None:
        """The smallest expansion ratio, if it is not of the space."""

    def settings(self) -> dict[str, Any]:
        """Return its name and settings as a run keeps them, as JSON holds them."""

    def prepare(
        self, space: Space, data: Data, limits: Limits | None, epochs: int, recipe: Recipe
    ) -> Search:
        """Return a search, or refuse what cannot be searched; nothing is written.

        # Arguments
            space: the space.
            data: validated data, and the seed; its `validation` is of the training images, to
                compare candidates on.
            limits: the budget that the found network keeps to, with the costs of the space.
            epochs: number of epochs.
            recipe: how the found network is trained, as candidates may be.

        # Raises
            InputError: if it cannot search this space, or not within the limits.
        """
