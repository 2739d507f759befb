"""Ways to search a space."""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

from larq_nas.errors import InputError, unknown_name
from larq_nas.searchers.again import derive_again
from larq_nas.searchers.differentiable import Differentiable
from larq_nas.searchers.dimension import Dimension
from larq_nas.searchers.dimensioning import Dimensioning
from larq_nas.searchers.evolution import Evolution
from larq_nas.searchers.evolving import Evolving
from larq_nas.searchers.prepared import Prepared
from larq_nas.searchers.progressive import Progressive
from larq_nas.searchers.stages import Staged
from larq_nas.spaces import Space
from larq_nas.task import Task

__all__ = [
    "Differentiable",
    "Dimension",
    "Evolution",
    "Prepared",
    "Progressive",
    "Ready",
    "Searcher",
    "derive_again",
    "resolve_searcher",
]


Ready: TypeAlias = Prepared | Staged | Evolving | Dimensioning
"""A search that is ready to run."""


@runtime_checkable
class Searcher(Protocol):
    """Finds an architecture in a space; settings are checked before anything is written."""

    name: ClassVar[str]

    def epochs(self, space: Space) -> int:
        """Return the number of epochs it takes if none is given."""

    def settings(self, space: Space) -> dict[str, Any]:
        """Return the settings as a run keeps them, all of them known."""

    def prepare(self, space: Space, task: Task, epochs: int) -> Ready:
        """Return a search that is ready to run, or raise `InputError`."""


_BY_NAME: dict[str, Callable[[], Any]] = {
    **{kind.name: kind for kind in (Differentiable, Dimension, Evolution, Progressive)},
    "dms_a": lambda: Dimension(initial_ratio=1.5, memory_target=0.12),
    "dms_b": lambda: Dimension(initial_ratio=2.5, memory_target=1.0),
}


def resolve_searcher(searcher: str | Searcher) -> Searcher:
    """Return the searcher that a name stands for."""
    if isinstance(searcher, str):
        if searcher not in _BY_NAME:
            raise unknown_name("searcher", searcher, _BY_NAME)
        made: Searcher = _BY_NAME[searcher]()
        return made
    if not isinstance(searcher, Searcher):
        raise InputError(f"`searcher` must be a name or a searcher, but got {searcher!r}.")
    return searcher
