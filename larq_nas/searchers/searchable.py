"""Whether a space is one that a searcher of widths can search."""

import warnings

from larq_nas.cost import SpaceCosts
from larq_nas.errors import InputError, callers_level
from larq_nas.spaces import Space

__all__ = ["require_no_operations", "require_open_widths", "warn_of_few_filters"]


def require_no_operations(space: Space, costs: SpaceCosts, searcher: str) -> None:
    """Raise `InputError` for a space that chooses operations."""
    if costs.choices:
        raise InputError(
            f"Space `{space.name}` chooses operations ({next(iter(costs.choices))}, ...), but "
            f"searcher `{searcher}` only chooses widths: search it by `differentiable`."
        )


def require_open_widths(space: Space, costs: SpaceCosts) -> None:
    """Raise `InputError` for a space that asks for no width, or for more than layers tell."""
    if not costs.expansions:
        raise InputError(
            f"Space `{space.name}` has no width to choose: give it no `expansion`, or ask for "
            "widths with `choose.filters`."
        )
    costs.require_following()


def warn_of_few_filters(costs: SpaceCosts, step: float) -> None:
    """Warn of layers with so few filters that, in the end, all widths that are tried are one.

    # Arguments
        costs: the costs of the space.
        step: how far apart the ratios are in the end.
    """
    few = [name for name, asked in costs.expansions.items() if asked.filters * step < 0.5]
    if few:
        warnings.warn(
            f"Choices {', '.join(few)} have so few filters that widths {step:.2g} times their own "
            "apart are the same: they stop learning before the end. A higher `final_scale` keeps "
            "them apart.",
            stacklevel=callers_level(),
        )
