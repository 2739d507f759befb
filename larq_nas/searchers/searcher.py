"""The contract of a searcher: its settings, and the search that they prepare."""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.data.data import Task
from larq_nas.run_directory import Run
from larq_nas.spaces import Space

__all__ = ["Search", "Searcher"]


class Search(Protocol):
    """A search that is ready to run: everything that can be refused was refused."""

    def search(
        self,
        run: Run,
        callbacks: Sequence[tf.keras.callbacks.Callback] = (),
        verbose: int | str = "auto",
    ) -> Architecture:
        """Return the architecture found.

        A search that was killed goes on from what `run` holds, with the same result.

        # Arguments
            run: the directory of the run, where files go.
            callbacks: further Keras callbacks.
            verbose: as in `tf.keras.Model.fit`.
        """


@runtime_checkable
class Searcher(Protocol):
    """Settings of a way to search, usually a frozen dataclass.

    # Attributes
        name: its name.
        several_devices: whether it trains on the devices of a `tf.distribute.Strategy`.
        several_processes: whether it trains candidates in several processes; its search has a
            method `work(run, callbacks)` then, which a worker calls in place of `search`.
        smallest_ratio: the smallest expansion ratio it may give a width, where that is not among
            the ratios of the space; `None` if it keeps to those.
    """

    name: ClassVar[str]
    several_devices: ClassVar[bool]
    several_processes: ClassVar[bool]

    @property
    def smallest_ratio(self) -> float | None:
        """The smallest expansion ratio, if it is not of the space."""

    def epochs(self, space: Space) -> int:
        """Return the number of epochs it takes if none is given."""

    def settings(self, space: Space) -> dict[str, Any]:
        """Return its settings as a run keeps them, as JSON holds them."""

    def prepare(self, space: Space, task: Task, epochs: int) -> Search:
        """Return a search that is ready to run.

        # Arguments
            space: the space.
            task: validated data, the seed and the limits to keep to.
            epochs: number of epochs.

        # Raises
            InputError: if it cannot search this space, or not within the limits.
        """
