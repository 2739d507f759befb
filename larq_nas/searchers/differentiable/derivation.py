"""Derive an architecture from a searched supernet."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from larq_nas.choices import Cell, Choice, Chosen, Scores, revive, share_parameter_free, strongest
from larq_nas.cost import Limits, strongest_within
from larq_nas.errors import warn
from larq_nas.supernet.relax import Relax


def scores_of(choose: Relax, transfer_factor: float = 1.0) -> dict[str, np.ndarray]:
    """Return the probabilities of a supernet's choices, by name; see `weakened`."""
    return {
        name: weakened(choose.choices[name], mixture.probabilities.numpy(), transfer_factor)
        for name, mixture in choose.mixtures.items()
    }


def weakened(choice: Choice, probabilities: np.ndarray, transfer_factor: float) -> np.ndarray:
    r"""Return probabilities with those of the zero operation divided by \\(\gamma\\).

    Networks that are trained on more data than they were searched on underfit, and zero is
    what they have too much of (BNAS, section 4).
    """
    return np.asarray(probabilities, dtype=np.float64) / weakening(choice, transfer_factor)


def weakening(choice: Choice, transfer_factor: float) -> np.ndarray:
    """Return what the probability of each operation is divided by; see `weakened`."""
    return np.array([transfer_factor if n in choice.zeros else 1 for n in choice.operations])


def derive(
    choices: Mapping[str, Choice],
    cells: Mapping[str, Cell],
    scores: Scores,
    limits: Limits | None = None,
) -> Chosen:
    """Return the strongest operations and inputs, or the best ones within the budget.

    A cell that would be zero on every path is given the best operation that mends it.
    """
    chosen, revivals = revive(cells.values(), choices, scores, strongest(choices, scores))
    if limits:
        costs = limits.costs.of(chosen)
        if limits.budget.excess(costs):
            for revival in revivals:
                warn(
                    f"Every path of cell `{revival.cell}` was zero in the strongest architecture: "
                    "only others were looked at."
                )
            return _within(chosen, costs, scores, limits)
    for revival in revivals:
        warn(
            f"Every path of cell `{revival.cell}` was zero: `{revival.pair[0]}` on input "
            f"{revival.pair[1]} of `{revival.choice}` was taken instead, the best that is not."
        )
    return chosen


def _within(chosen: Chosen, costs: Mapping[str, Any], scores: Scores, limits: Limits) -> Chosen:
    within = strongest_within(limits.costs, scores, limits.budget)
    changed = sum(len(set(within[name]) - set(pairs)) for name, pairs in chosen.items())
    total = sum(map(len, chosen.values()))
    warn(
        f"The strongest architecture is over the budget (it needs "
        f"{limits.budget.describe(costs)}): the best one found within it was taken, with "
        f"{changed} of {total} operations changed."
    )
    return within


def warn_of_dropped(choose: Relax, chosen: Chosen) -> None:
    """Warn of operations that were chosen although an earlier stage had dropped them."""
    back = [
        f"`{operation}` on input {index} of `{name}`"
        for name, pairs in chosen.items()
        for operation, index in pairs
        if not choose.mixtures[name].kept[index, choose.choices[name].operations.index(operation)]
    ]
    if back:
        warn(
            f"{len(back)} operations that an earlier stage had dropped came back, since no network "
            f"without them was found within the budget: {', '.join(back)}."
        )


_COLLAPSED = 0.75


def collapsed_kinds(choices: Mapping[str, Choice], chosen: Chosen) -> dict[str, float]:
    """Return the kinds of cells that are mostly skips and pools, and the share of these."""
    shares = {
        group: share_parameter_free(
            choices, {name: pairs for name, pairs in chosen.items() if choices[name].group == group}
        )
        for group in dict.fromkeys(choice.group for choice in choices.values())
    }
    return {group: share for group, share in shares.items() if share > _COLLAPSED}


def describe_collapse(collapsed: Mapping[str, float]) -> str:
    """Return what a search collapsed to."""
    listed = ", ".join(f"{share:.0%} in {group} cells" for group, share in collapsed.items())
    return f"The search collapsed to skips and pools (of the operations {listed})"


def warn_of_collapse(collapsed: Mapping[str, float], undecided: bool = False) -> None:
    """Warn of kinds of cells that collapsed; `undecided` as was warned before."""
    if not collapsed:
        return
    # In their first steps pools are ahead, since they have nothing to learn.
    advice = "lower the temperature, search for fewer epochs, or raise `diversity`"
    if undecided:
        advice = "search on until it decides, before anything else is changed"
    warn(f"{describe_collapse(collapsed)}: {advice}.")
