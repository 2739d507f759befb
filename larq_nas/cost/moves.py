"""From one network to a better or lighter one, changing a pair at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

import numpy as np

from larq_nas.cells import Chosen, all_alive
from larq_nas.choices import Pair
from larq_nas.cost.budget import BUDGETS, Budget
from larq_nas.cost.linear import Linearized
from larq_nas.cost.space import SpaceCosts

__all__ = ["Scores", "improve", "score"]

_CHANGES = 8

Scores: TypeAlias = Mapping[str, np.ndarray]
"""How good each `(input, operation)` of each choice is."""


@dataclass(frozen=True)
class _Move:
    """One pair of one choice replaced by another."""

    choice: str
    slot: int
    pair: Pair
    costs: np.ndarray
    score: float


def improve(
    around: Linearized, costs: SpaceCosts, scores: Scores, budget: Budget
) -> dict[str, list[Pair]]:
    """Return the network that changing pair after pair leads to, by the linear costs.

    While it is over the budget, the change is made that saves most for the score it gives up;
    then those that raise the score and keep to the budget. No cell is made zero on every path.
    """
    chosen = {name: list(pairs) for name, pairs in around.chosen.items()}
    quantities = [BUDGETS[name] for name in budget.limits]
    now = np.array([float(around.costs[name]) for name in quantities])

    def excess(values: np.ndarray) -> float:
        return budget.excess(dict(zip(quantities, values, strict=True)))

    for _ in range(_CHANGES * sum(map(len, chosen.values()))):
        over = excess(now)
        worth = _worth_when_over(over, now, excess) if over else _worth_within(now, excess)
        moves = [m for m in _moves(around, costs, scores, chosen, quantities) if worth(m) > 1e-9]
        moves.sort(key=worth, reverse=True)
        for move in moves:
            changed = {**chosen, move.choice: _replaced(chosen[move.choice], move)}
            if all_alive(costs.cells, costs.choices, changed):
                chosen, now = changed, now + move.costs
                break
        else:
            break
    return chosen


def _replaced(pairs: Sequence[Pair], move: _Move) -> list[Pair]:
    changed = [move.pair if slot == move.slot else pair for slot, pair in enumerate(pairs)]
    return sorted(changed, key=lambda pair: pair[1])


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


def score(costs: SpaceCosts, scores: Scores, chosen: Chosen) -> float:
    one_hot = {name: costs.choices[name].one_hot(pairs) for name, pairs in chosen.items()}
    return float(sum((scores[name] * matrix).sum() for name, matrix in one_hot.items()))
