"""What a search must keep to."""

import warnings
from pathlib import Path

from larq_nas.cost import Budget, Limits, SpaceCosts
from larq_nas.errors import InputError, callers_level
from larq_nas.latency import LatencyTable
from larq_nas.pipeline.check import DataFacts
from larq_nas.searchers import Dimension, Searcher
from larq_nas.spaces import Space

__all__ = ["limits_of", "resolve_table"]


def resolve_table(
    given: str | Path | LatencyTable | None, max_latency: float | str | None
) -> LatencyTable | None:
    """Return the table of latencies, if any, or raise `InputError` if there must be one."""
    if max_latency is not None and given is None:
        raise InputError(
            "`max_latency` needs `latency_table`, of the device that it is about: measure one "
            "with larq-nas latency --build-table."
        )
    return given if given is None or isinstance(given, LatencyTable) else LatencyTable.load(given)


def limits_of(
    budget: Budget,
    space: Space,
    facts: DataFacts,
    table: LatencyTable | None,
    searcher: Searcher,
    verbose: int | str,
) -> Limits | None:
    """Return what the search must keep to, or raise `InputError` if nothing can."""
    if not budget:
        return None
    if verbose:
        print("Costing the space: one build of all of it", flush=True)
        if table:
            print(table, flush=True)
    # It finds any width, down to this one.
    least = searcher.least_mean if isinstance(searcher, Dimension) else None
    limits = Limits(SpaceCosts(space, facts.input_shape, facts.classes, table, least), budget)
    feasible = limits.require_feasible()
    if verbose:
        print(feasible, flush=True)
    if limits.costs.unknown:
        warnings.warn(
            f"The budget does not count the operations of {', '.join(limits.costs.unknown)}: "
            "larq_nas does not know these layers.",
            stacklevel=callers_level(),
        )
    return limits
