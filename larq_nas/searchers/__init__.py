"""Ways to search a space."""

from typing import TypeAlias

from larq_nas.errors import InputError, unknown_name
from larq_nas.searchers.differentiable import Differentiable

__all__ = ["Differentiable", "Searcher", "resolve_searcher"]

Searcher: TypeAlias = Differentiable

_BY_NAME: dict[str, type[Searcher]] = {Differentiable.name: Differentiable}


def resolve_searcher(searcher: str | Searcher) -> Searcher:
    """Return the searcher that a name stands for."""
    if isinstance(searcher, Searcher):
        return searcher
    if not isinstance(searcher, str):
        raise InputError(f"`searcher` must be a name or a searcher, but got {searcher!r}.")
    if searcher not in _BY_NAME:
        raise unknown_name("searcher", searcher, _BY_NAME)
    return _BY_NAME[searcher]()
