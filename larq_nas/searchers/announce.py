"""What is said of a search before it starts."""

import warnings
from typing import TYPE_CHECKING

from larq_nas.choosers import Fuse
from larq_nas.errors import callers_level
from larq_nas.layers.precision import warn_if_unused
from larq_nas.searchers.estimate import estimate, warn_if_too_large
from larq_nas.searchers.penalty import BudgetPenalty

if TYPE_CHECKING:
    from larq_nas.searchers.prepared import Prepared

__all__ = ["announce"]

_LONG = 5.0


def announce(search: "Prepared", verbose: int | str) -> None:
    """Say what a search will need, and warn of settings that do nothing.

    # Arguments
        search: the search that is ready to run.
        verbose: as in `fit`; warnings are given in any case.
    """
    model, choose, batch_size = search.model, search.choose, search.task.facts.batch_size
    memory = estimate(model, batch_size)
    if verbose:
        print(
            f"Supernet: {model.count_params():,} parameters, about {memory / 2**30:.1f} GiB of "
            f"memory, {search.stream.steps * search.epochs:,} steps of {batch_size} images from "
            "each half.",
            flush=True,
        )
        _say_what_is_slow(search)
    warn_if_too_large(memory, can_rematerialize=bool(choose.fused) and not choose.rematerialize)
    warn_if_unused(model, model.precision)
    if choose.rematerialize and not choose.fused:
        warnings.warn(
            f"`rematerialize=True` has no effect: {_why_none(choose)}.",
            stacklevel=callers_level(),
        )


def _say_what_is_slow(search: "Prepared") -> None:
    obstacles = search.choose.obstacles
    if obstacles:
        first, reason = next(iter(obstacles.items()))
        print(
            f"{len(obstacles)} of {len(obstacles) + search.choose.fused} cells are computed "
            f"operation by operation, which takes longer; `{first}`: {reason}",
            flush=True,
        )
    penalty = search.model.terms.get("budget_penalty")
    if isinstance(penalty, BudgetPenalty) and penalty.seconds > _LONG:
        print(
            f"Budget: its costs take up to {penalty.seconds:.0f} s before each epoch",
            flush=True,
        )


def _why_none(choose: Fuse) -> str:
    if not choose.obstacles:
        return "the space has no cells"
    first, reason = next(iter(choose.obstacles.items()))
    return f"no cell is fused; `{first}`: {reason}"
