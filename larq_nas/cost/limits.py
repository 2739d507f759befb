"""Networks that keep to a budget: the lightest of a space, and the best within."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from larq_nas.cells import Chosen, all_alive, revive
from larq_nas.cost.budget import Budget, required
from larq_nas.cost.linear import linearize
from larq_nas.cost.moves import Scores, improve, score
from larq_nas.cost.space import SpaceCosts
from larq_nas.errors import InputError

__all__ = ["Limits", "require_feasible", "strongest_within"]

_ROUNDS, _TRIED = 8, 32


@dataclass(frozen=True)
class Limits:
    """What a search must keep to.

    # Arguments
        costs: the costs of the space that the found network is of.
        budget: what it may cost at most.
    """

    costs: SpaceCosts
    budget: Budget

    def require_feasible(self) -> str:
        """Return a line on what a light network uses, or raise `InputError` if none fits."""
        light = self.costs.of(require_feasible(self.costs, self.budget), self.costs.narrowest)
        uses = [
            f"{name}={limit:,} (a network that fits needs {required(name, light):,})"
            for name, limit in self.budget.limits.items()
        ]
        return f"Budget of the found network: {', '.join(uses)}"


def require_feasible(costs: SpaceCosts, budget: Budget) -> Chosen:
    """Return operations of a network that keeps to `budget`, at the smallest widths.

    # Raises
        InputError: if none was found, naming the smallest limit that one was found for.
    """
    lightest = _lightest(costs, budget)
    needs = costs.of(lightest, costs.narrowest)
    if not budget.excess(needs):
        return lightest
    refused = []
    for name, limit in budget.limits.items():
        alone = lightest
        if len(budget.limits) > 1:
            alone = _lightest(costs, Budget({name: limit}))
        smallest = required(name, costs.of(alone, costs.narrowest))
        if smallest > limit:
            unit = " microseconds" if name == "max_latency" else ""
            refused.append(f"`{name}` must be at least {smallest:,}{unit}, but got {limit:,}")
    if refused:
        raise InputError(
            f"{'; '.join(refused)}: the lightest network found in space `{costs.space.name}` with "
            "these settings needs so much; raise the limit, or make the space smaller."
        )
    raise InputError(
        f"No network of space `{costs.space.name}` was found that keeps to all limits at once; "
        f"the nearest needs {budget.describe(needs)}: raise a limit, or make the space smaller."
    )


def strongest_within(costs: SpaceCosts, scores: Scores, budget: Budget) -> Chosen:
    """Return the operations of the best network that keeps to `budget`.

    The best is the one with the largest sum of scores, and no cell that is zero on every path.
    It is looked for by changing single pairs, from the strongest network down and from the
    lightest up; every network is costed exactly before it is taken.

    # Arguments
        costs: the costs of the space.
        scores: how good each pair of each choice is, shape `(inputs, operations)`.
        budget: what to keep to.

    # Raises
        InputError: if no network is found that keeps to it, or the space chooses widths.
    """
    if costs.expansions:
        raise InputError(
            f"Space `{costs.space.name}` must choose operations alone, but it chooses widths too."
        )
    strongest = {name: choice.strongest(scores[name]) for name, choice in costs.choices.items()}
    living, _ = revive(costs.cells, costs.choices, scores, strongest)
    starts = [living, require_feasible(costs, budget)]
    found = [_best_from(start, costs, scores, budget) for start in starts]
    within = [chosen for chosen in found if chosen is not None]
    return max(within, key=lambda chosen: score(costs, scores, chosen))


def _best_from(start: Chosen, costs: SpaceCosts, scores: Scores, budget: Budget) -> Chosen | None:
    """Return the best network within the budget on the way from `start`, if there is one."""
    best, found = None, start
    for _ in range(_ROUNDS):
        within = not budget.excess(costs.of(found))
        if within and (best is None or score(costs, scores, found) > score(costs, scores, best)):
            best = found
        changed = improve(linearize(costs, found), costs, scores, budget)
        if changed == found:
            break
        found = changed
    return best


def _lightest(costs: SpaceCosts, budget: Budget) -> Chosen:
    """Return the operations that exceed `budget` least, as far as is found.

    Memory that several operations hold does not shrink when one of them is changed. So many
    networks are tried, and the least heavy is made lighter by single changes.
    """
    ratios, draw = costs.narrowest, random.Random(0)
    alike = [living for one in _of_one_operation(costs) for living in _revived(costs, one)]
    drawn = [_random(costs, draw) for _ in range(_TRIED)]
    tried = [one for one in (*alike, *drawn) if all_alive(costs.cells, costs.choices, one)]

    def excess(chosen: Chosen) -> float:
        return budget.excess(costs.of(chosen, ratios))

    found = min(tried, key=excess)
    nothing = {
        name: np.zeros((choice.inputs, len(choice.operations)))
        for name, choice in costs.choices.items()
    }
    while now := excess(found):
        changed = improve(linearize(costs, found, ratios), costs, nothing, budget)
        if excess(changed) >= now:
            break
        found = changed
    return found


def _of_one_operation(costs: SpaceCosts) -> list[Chosen]:
    """Return the networks that take the same operation wherever it is offered."""
    names = dict.fromkeys(n for choice in costs.choices.values() for n in choice.eligible)
    networks: list[Chosen] = [
        {
            choice.name: [
                (name if name in choice.eligible else other, index) for other, index in choice.any()
            ]
            for choice in costs.choices.values()
        }
        for name in names
    ]
    return networks or [{}]


def _revived(costs: SpaceCosts, chosen: Chosen) -> Iterator[Chosen]:
    """Yield `chosen`, or where a cell would be zero, the networks with one operation in each."""
    if all_alive(costs.cells, costs.choices, chosen):
        yield chosen
        return
    choices = costs.choices
    names = dict.fromkeys(n for c in choices.values() for n in c.eligible if n not in c.zeros)
    inputs = max(choice.inputs for choice in choices.values())
    for operation, index in product(names, range(inputs)):
        wanted = {
            name: choice.one_hot([(operation, index)])
            if operation in choice.operations and index < choice.inputs
            else np.zeros((choice.inputs, len(choice.operations)))
            for name, choice in choices.items()
        }
        yield revive(costs.cells, choices, wanted, chosen)[0]


def _random(costs: SpaceCosts, draw: random.Random) -> Chosen:
    return {
        name: [
            (draw.choice(choice.eligible), index)
            for index in sorted(draw.sample(range(choice.inputs), len(choice.any())))
        ]
        for name, choice in costs.choices.items()
    }
