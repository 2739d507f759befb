"""Widths that keep to a budget, all narrowed alike."""

from collections.abc import Mapping

from larq_nas.cost import Limits
from larq_nas.errors import InputError
from larq_nas.expansion import expand

__all__ = ["narrowed"]

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
