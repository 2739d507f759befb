"""From a searched supernet to an architecture, and what should be said of it."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from larq_nas.choices import Choice, Pair, share_parameter_free
from larq_nas.choosers import Relax
from larq_nas.cost import Limits, strongest_within
from larq_nas.searchers.bilevel import BilevelModel, mean_entropy

__all__ = ["derive", "strongest", "warn_if_collapsed", "warn_if_undecided"]

_COLLAPSED = 0.75
_UNDECIDED = 0.99


def strongest(choose: Relax) -> dict[str, list[Pair]]:
    """Return the strongest operations and inputs of each choice of a supernet."""
    return {
        name: choose.choices[name].strongest(mixture.probabilities.numpy())
        for name, mixture in choose.mixtures.items()
    }


def derive(choose: Relax, limits: Limits | None) -> Mapping[str, Sequence[Pair]]:
    """Return the strongest operations and inputs, or the best ones within the budget."""
    chosen: Mapping[str, Sequence[Pair]] = strongest(choose)
    if limits is None:
        return chosen
    costs = limits.costs.of(chosen)
    if not limits.budget.excess(costs):
        return chosen
    scores = {name: mixture.probabilities.numpy() for name, mixture in choose.mixtures.items()}
    within = strongest_within(limits.costs, scores, limits.budget)
    changed = sum(len(set(within[name]) - set(pairs)) for name, pairs in chosen.items())
    total = sum(map(len, chosen.values()))
    warnings.warn(
        f"The strongest architecture is over the budget (it needs "
        f"{limits.budget.describe(costs)}): the best one found within it was taken, with "
        f"{changed} of {total} operations changed.",
        stacklevel=4,
    )
    return within


def warn_if_undecided(model: BilevelModel) -> None:
    """Warn of probabilities that have hardly moved."""
    entropy = float(mean_entropy(model.mixtures))
    largest = float(np.log([mixture.operations for mixture in model.mixtures]).mean())
    if largest > 0 and entropy > _UNDECIDED * largest:
        warnings.warn(
            f"The search has hardly decided (entropy {entropy:.3f} of {largest:.3f} nats): its "
            "choices are little more than chance; search for more epochs, or raise "
            "`architecture_learning_rate`.",
            stacklevel=4,
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
            stacklevel=4,
        )
