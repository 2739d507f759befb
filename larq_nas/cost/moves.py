"""From one network to a better or lighter one, changing a pair at a time."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from larq_nas.cells import Chosen, all_alive, exchanges, revivals
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
    """Some choices made otherwise: by one pair, or two where one alone would leave only zeros."""

    changed: Mapping[str, list[Pair]]
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

    moves = _Moves(around, costs, scores, quantities)
    for _ in range(_CHANGES * sum(map(len, chosen.values()))):
        over = excess(now)
        worth = _worth_when_over(over, now, excess) if over else _worth_within(now, excess)
        best = max(moves.living(chosen), key=worth, default=None)
        if best is None or worth(best) <= 1e-9:
            break
        chosen, now = {**chosen, **best.changed}, now + best.costs
    return chosen


class _Moves:
    """The changes that can be made to a network, with what they cost and gain."""

    def __init__(
        self, around: Linearized, costs: SpaceCosts, scores: Scores, quantities: list[str]
    ) -> None:
        self._choices = costs.choices
        self._cells_of = {
            name: [cell for cell in costs.cells if name in cell.questions.values()]
            for name in costs.choices
        }
        self._scores = scores
        self._slopes = {
            name: np.stack([around.slopes[quantity][name] for quantity in quantities])
            for name in costs.choices
        }

    def living(self, chosen: Mapping[str, list[Pair]]) -> Iterator[_Move]:
        """Yield each change of a pair, together with one that keeps its cell alive if need be."""
        for name, pairs in chosen.items():
            choice = self._choices[name]
            for _, changed in exchanges(pairs, choice.eligible, range(choice.inputs)):
                after = {**chosen, name: changed}
                dead = [
                    cell
                    for cell in self._cells_of[name]
                    if not all_alive([cell], self._choices, after)
                ]
                if not dead:
                    yield self._move(chosen, {name: changed})
                elif len(dead) == 1:
                    for mended in revivals(dead[0], self._choices, self._scores, after):
                        both = {name: changed, mended.choice: mended.pairs}
                        yield self._move(chosen, both)

    def _move(self, chosen: Chosen, changed: Mapping[str, list[Pair]]) -> _Move:
        costs: Any = 0.0
        gain = 0.0
        for name, pairs in changed.items():
            choice = self._choices[name]
            difference = choice.one_hot(pairs) - choice.one_hot(chosen[name])
            costs = costs + (self._slopes[name] * difference).sum(axis=(1, 2))
            gain += float((self._scores[name] * difference).sum())
        return _Move(changed, costs, gain)


def _worth_when_over(
    over: float, now: np.ndarray, excess: Callable[[np.ndarray], float]
) -> Callable[[_Move], float]:
    return lambda move: (over - excess(now + move.costs)) / (max(0.0, -move.score) + 1e-3)


def _worth_within(
    now: np.ndarray, excess: Callable[[np.ndarray], float]
) -> Callable[[_Move], float]:
    return lambda move: move.score if not excess(now + move.costs) else 0.0


def score(costs: SpaceCosts, scores: Scores, chosen: Chosen) -> float:
    one_hot = {name: costs.choices[name].one_hot(pairs) for name, pairs in chosen.items()}
    return float(sum((scores[name] * matrix).sum() for name, matrix in one_hot.items()))
