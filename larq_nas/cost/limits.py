"""Networks that keep to a budget: the lightest of a space, and the best within."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from larq_nas.choices import Pair
from larq_nas.cost.budget import BUDGETS, Budget, required
from larq_nas.cost.linear import Chosen, Linearized, linearize
from larq_nas.cost.space import SpaceCosts
from larq_nas.errors import InputError

__all__ = ["Limits", "require_feasible", "strongest_within"]

_ROUNDS = 8

Scores = Mapping[str, np.ndarray]
"""How good each `(input, operation)` of each choice is."""


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
        """Return a line on what the lightest network uses, or raise `InputError` if too much."""
        costs = self.costs.narrowest()
        lightest = costs.of(require_feasible(self.costs, self.budget))
        uses = [
            f"{name}={limit:,} (a light one needs {required(name, lightest):,})"
            for name, limit in self.budget.limits.items()
        ]
        return f"Budget of the found network: {', '.join(uses)}"


@dataclass(frozen=True)
class _Move:
    """One pair of one choice replaced by another."""

    choice: str
    slot: int
    pair: Pair
    costs: np.ndarray
    score: float


def require_feasible(costs: SpaceCosts, budget: Budget) -> Chosen:
    """Return operations of a network that keeps to `budget`.

    # Raises
        InputError: if no network of the space does, naming the smallest that one could need.
    """
    costs = costs.narrowest()
    lightest = _lightest(costs, budget)
    if not budget.excess(costs.of(lightest)):
        return lightest
    for name, limit in budget.limits.items():
        alone = _lightest(costs, Budget({name: limit}))
        smallest = required(name, costs.of(alone))
        if smallest > limit:
            raise InputError(
                f"`{name}` must be at least {smallest:,} in space `{costs.space.name}` with these "
                f"settings (its lightest network needs so much), but got {limit:,}: raise it, or "
                "make the space smaller."
            )
    raise InputError(
        f"No network of space `{costs.space.name}` was found that keeps to all limits at once; "
        f"the nearest needs {budget.describe(costs.of(lightest))}: raise a limit, or make the "
        "space smaller."
    )


def strongest_within(costs: SpaceCosts, scores: Scores, budget: Budget) -> Chosen:
    """Return the operations of the best network that keeps to `budget`.

    The best is the one with the largest sum of scores. It is looked for by changing single
    pairs, from the strongest network down and from the lightest up; every network is costed
    exactly before it is taken.

    # Arguments
        costs: the costs of the space.
        scores: how good each pair of each choice is, shape `(inputs, operations)`.
        budget: what to keep to.
    """
    strongest = {name: choice.strongest(scores[name]) for name, choice in costs.choices.items()}
    found = _best_from(strongest, costs, scores, budget)
    if found is None:
        found = _best_from(require_feasible(costs, budget), costs, scores, budget)
    assert found is not None, "require_feasible gives a network within the budget"
    return found


def _best_from(start: Chosen, costs: SpaceCosts, scores: Scores, budget: Budget) -> Chosen | None:
    """Return the best network within the budget on the way from `start`, if there is one."""
    best, found = None, start
    for _ in range(_ROUNDS):
        within = not budget.excess(costs.of(found))
        if within and (best is None or _score(costs, scores, found) > _score(costs, scores, best)):
            best = found
        changed = _improve(linearize(costs, found), costs, scores, budget)
        if changed == found:
            break
        found = changed
    return best


def _lightest(costs: SpaceCosts, budget: Budget) -> Chosen:
    """Return the operations that exceed `budget` least, as far as single changes find."""
    found: Chosen = {name: choice.any() for name, choice in costs.choices.items()}
    nothing = {
        name: np.zeros((choice.inputs, len(choice.operations)))
        for name, choice in costs.choices.items()
    }
    for _ in range(_ROUNDS):
        excess = budget.excess(costs.of(found))
        if not excess:
            break
        changed = _improve(linearize(costs, found), costs, nothing, budget)
        if budget.excess(costs.of(changed)) >= excess:
            break
        found = changed
    return found


def _improve(
    around: Linearized, costs: SpaceCosts, scores: Scores, budget: Budget
) -> dict[str, list[Pair]]:
    """Return the network that changing pair after pair leads to, by the linear costs.

    While it is over the budget, the change is made that saves most for the score it gives up;
    then those that raise the score and keep to the budget.
    """
    chosen = {name: list(pairs) for name, pairs in around.chosen.items()}
    quantities = [BUDGETS[name] for name in budget.limits]
    now = np.array([float(around.costs[name]) for name in quantities])

    def excess(values: np.ndarray) -> float:
        return budget.excess(dict(zip(quantities, values, strict=True)))

    for _ in range(_ROUNDS * sum(map(len, chosen.values()))):
        over = excess(now)
        moves = list(_moves(around, costs, scores, chosen, quantities))
        worth = _worth_when_over(over, now, excess) if over else _worth_within(now, excess)
        best = max(moves, key=worth, default=None)
        if best is None or worth(best) <= 1e-9:
            break
        chosen[best.choice][best.slot] = best.pair
        chosen[best.choice].sort(key=lambda pair: pair[1])
        now = now + best.costs
    return chosen


def _worth_when_over(
    over: float, now: np.ndarray, excess: Callable[[np.ndarray], float]
) -> Callable[[_Move], float]:
    return lambda move: (over - excess(now + move.costs)) / (max(0.0, -move.score) + 1e-3)


def _worth_within(
    now: np.ndarray, excess: Callable[[np.ndarray], float]
) -> Callable[[_Move], float]:
    return lambda move: move.score if not excess(now + move.costs) else 0.0


def _moves(
    around: Linearized,
    costs: SpaceCosts,
    scores: Scores,
    chosen: Mapping[str, list[Pair]],
    quantities: list[str],
) -> list[_Move]:
    moves = []
    for name, pairs in chosen.items():
        choice = costs.choices[name]
        slopes = np.stack([around.slopes[quantity][name] for quantity in quantities])
        operations = choice.eligible
        for slot, (old, old_index) in enumerate(pairs):
            taken = {index for k, (_, index) in enumerate(pairs) if k != slot}
            free = [index for index in range(choice.inputs) if index not in taken]
            before = (old_index, choice.operations.index(old))
            for index, operation in product(free, operations):
                after = (index, choice.operations.index(operation))
                if after != before:
                    change = slopes[:, after[0], after[1]] - slopes[:, before[0], before[1]]
                    gain = float(scores[name][after] - scores[name][before])
                    moves.append(_Move(name, slot, (operation, index), change, gain))
    return moves


def _score(costs: SpaceCosts, scores: Scores, chosen: Chosen) -> float:
    one_hot = {name: costs.choices[name].one_hot(pairs) for name, pairs in chosen.items()}
    return float(sum((scores[name] * matrix).sum() for name, matrix in one_hot.items()))
