"""Searchers, by name or of your own."""

from collections.abc import Callable
from typing import Any

from larq_nas.errors import InputError, unknown_name
from larq_nas.searchers.differentiable.progressive import Progressive
from larq_nas.searchers.differentiable.settings import Differentiable
from larq_nas.searchers.dms.settings import Dimension
from larq_nas.searchers.evolution.settings import Evolution
from larq_nas.searchers.searcher import Search, Searcher

__all__ = [
    "Differentiable",
    "Dimension",
    "Evolution",
    "Progressive",
    "Search",
    "Searcher",
    "resolve_searcher",
]


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
