"""Derive an architecture from a searched supernet."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from larq_nas.choices import Cell, Choice, Chosen, Pair, revive, share_parameter_free
from larq_nas.cost import Limits, strongest_within
from larq_nas.errors import callers_level
from larq_nas.searchers.differentiable.model import BilevelModel, mean_entropy
from larq_nas.supernet.relax import Relax

__all__ = [
    "derive",
    "scores_of",
    "strongest",
    "warn_if_collapsed",
    "warn_if_undecided",
    "warn_of_dropped",
    "weakened",
    "weakening",
]


_COLLAPSED = 0.75
_UNDECIDED = 0.99


def scores_of(choose: Relax, transfer_factor: float = 1.0) -> dict[str, np.ndarray]:
    """Return the probabilities of a supernet's choices, by name.

    # Arguments
        choose: the chooser that built it.
        transfer_factor: by how much the zero operation is weakened; see `weakened`.
    """
    return {
        name: weakened(choose.choices[name], mixture.probabilities.numpy(), transfer_factor)
        for name, mixture in choose.mixtures.items()
    }


def weakened(choice: Choice, probabilities: np.ndarray, transfer_factor: float) -> np.ndarray:
    r"""Return probabilities with those of the zero operation divided by \\(\gamma\\).

    Networks that are trained on more data than they were searched on underfit, and zero is
    what they have too much of (BNAS, section 4).

    # Arguments
        choice: the choice.
        probabilities: shape `(inputs, operations)`.
        transfer_factor: \\(\gamma\\), 1 or more.
    """
    return np.asarray(probabilities, dtype=np.float64) / weakening(choice, transfer_factor)


def weakening(choice: Choice, transfer_factor: float) -> np.ndarray:
    """Return what the probability of each operation is divided by; see `weakened`."""
    return np.array([transfer_factor if n in choice.zeros else 1 for n in choice.operations])


def strongest(
    choices: Mapping[str, Choice], scores: Mapping[str, np.ndarray]
) -> dict[str, list[Pair]]:
    """Return the strongest operations and inputs of each choice."""
    return {name: choice.strongest(scores[name]) for name, choice in choices.items()}


def derive(
    choices: Mapping[str, Choice],
    cells: Mapping[str, Cell],
    scores: Mapping[str, np.ndarray],
    limits: Limits | None = None,
) -> Chosen:
    """Return the strongest operations and inputs, or the best ones within the budget.

    A cell that would be zero on every path is given the best operation that mends it.

    # Arguments
        choices: the choices by name.
        cells: the cells they are part of.
        scores: how good each pair of each choice is, shape `(inputs, operations)`.
        limits: the budget to keep to.
    """
    chosen, revivals = revive(cells.values(), choices, scores, strongest(choices, scores))
    if limits:
        costs = limits.costs.of(chosen)
        if limits.budget.excess(costs):
            for revival in revivals:
                warnings.warn(
                    f"Every path of cell `{revival.cell}` was zero in the strongest architecture: "
                    "only others were looked at.",
                    stacklevel=callers_level(),
                )
            return _within(chosen, costs, scores, limits)
    for revival in revivals:
        warnings.warn(
            f"Every path of cell `{revival.cell}` was zero: `{revival.pair[0]}` on input "
            f"{revival.pair[1]} of `{revival.choice}` was taken instead, the best that is not.",
            stacklevel=callers_level(),
        )
    return chosen


def _within(
    chosen: Chosen, costs: Mapping[str, Any], scores: Mapping[str, np.ndarray], limits: Limits
) -> Chosen:
    within = strongest_within(limits.costs, scores, limits.budget)
    changed = sum(len(set(within[name]) - set(pairs)) for name, pairs in chosen.items())
    total = sum(map(len, chosen.values()))
    warnings.warn(
        f"The strongest architecture is over the budget (it needs "
        f"{limits.budget.describe(costs)}): the best one found within it was taken, with "
        f"{changed} of {total} operations changed.",
        stacklevel=callers_level(),
    )
    return within


def warn_if_undecided(model: BilevelModel, what: str = "The search") -> bool:
    """Warn of probabilities that have hardly moved, and return whether they have not."""
    entropy = float(mean_entropy(model.mixtures))
    kept = np.concatenate([mixture.kept.sum(axis=1) for mixture in model.mixtures])
    largest = float(np.log(kept).mean())
    undecided = largest > 0 and entropy > _UNDECIDED * largest
    if undecided:
        warnings.warn(
            f"{what} has hardly decided (entropy {entropy:.3f} of {largest:.3f} nats): its "
            "choices are little more than chance; search for more epochs, or raise "
            "`architecture_learning_rate`.",
            stacklevel=callers_level(),
        )
    return undecided


def warn_of_dropped(choose: Relax, chosen: Mapping[str, Sequence[Pair]]) -> None:
    """Warn of operations that were chosen although an earlier stage had dropped them."""
    back = [
        f"`{operation}` on input {index} of `{name}`"
        for name, pairs in chosen.items()
        for operation, index in pairs
        if not choose.mixtures[name].kept[index, choose.choices[name].operations.index(operation)]
    ]
    if back:
        warnings.warn(
            f"{len(back)} operations that an earlier stage had dropped came back, since no network "
            f"without them was found within the budget: {', '.join(back)}.",
            stacklevel=callers_level(),
        )


def warn_if_collapsed(choices: Mapping[str, Choice], chosen: Mapping[str, Sequence[Pair]]) -> None:
    """Warn of kinds of cells that are mostly skips and pools."""
    shares = {
        group: share_parameter_free(
            choices, {name: pairs for name, pairs in chosen.items() if choices[name].group == group}
        )
        for group in dict.fromkeys(choice.group for choice in choices.values())
    }
    collapsed = {group: share for group, share in shares.items() if share > _COLLAPSED}
    if collapsed:
        listed = ", ".join(f"{group} {share:.0%}" for group, share in collapsed.items())
        warnings.warn(
            f"The search collapsed to skips and pools (parameter-free operations: {listed}): "
            "lower the temperature, or search for fewer epochs.",
            stacklevel=callers_level(),
        )
