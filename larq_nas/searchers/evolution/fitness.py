"""Fitness of candidates (Shen et al., Eq. 4), and Pareto ranks for several objectives."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from larq_nas.choices import Parameter, Value
from larq_nas.cost import COSTS, SpaceCosts
from larq_nas.errors import InputError, require_known


def pareto_ranks(scores: np.ndarray) -> np.ndarray:
    """Return the number of the front each candidate is in, 0 for those that none dominates.

    A candidate dominates another if it is nowhere worse and somewhere better.
    """
    at_least = (scores[:, None] >= scores[None]).all(axis=-1)
    better = (scores[:, None] > scores[None]).any(axis=-1)
    dominates = at_least & better
    ranks = np.full(len(scores), -1)
    rank = 0
    while (ranks < 0).any():
        open_ = ranks < 0
        ranks[open_ & ~dominates[open_].any(axis=0)] = rank
        rank += 1
    return ranks


def crowding_distances(scores: np.ndarray) -> np.ndarray:
    """Return how much room each candidate of one front has to itself; infinite at the ends.

    For each objective, the distance between the two neighbours as a share of the range.
    """
    distances = np.zeros(len(scores))
    for column in scores.T:
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        span = ordered[-1] - ordered[0]
        distances[order[[0, -1]]] = np.inf
        if span > 0 and len(order) > 2:
            distances[order[1:-1]] += (ordered[2:] - ordered[:-2]) / span
    return distances


def ranking(scores: Sequence[Sequence[float]]) -> list[int]:
    """Return the candidates from the best to the worst: by front, then by crowding, then by age."""
    if not len(scores):
        return []
    array = np.asarray(scores, dtype=np.float64)
    ranks = pareto_ranks(array)
    distances = np.zeros(len(array))
    for rank in range(ranks.max() + 1):
        members = np.flatnonzero(ranks == rank)
        distances[members] = crowding_distances(array[members])
    if array.shape[1] == 1:
        # Candidates of one front are equals then: of those, the older is as good as any.
        distances[:] = 0
    return sorted(range(len(array)), key=lambda i: (ranks[i], -distances[i], i))


def front(scores: Sequence[Sequence[float]]) -> list[int]:
    """Return the candidates that none dominates, in the order they were made."""
    if not len(scores):
        return []
    return [int(i) for i in np.flatnonzero(pareto_ranks(np.asarray(scores, np.float64)) == 0)]


BINARY_SPEEDUP = 64
"""Binary operations that count as one of floating point."""

_MAXIMIZED = ("fitness", "accuracy")
OBJECTIVES = (*_MAXIMIZED, "flops", *COSTS)
"""What candidates may be compared by."""


def flops(costs: Mapping[str, Any]) -> Any:
    """Return operations as Shen et al. count them: a binary one is 1/64.

    They are those of convolutions and dense layers. The paper's tables add others, 1 to 3 %: see
    `larq_nas.cost.by_convention`.
    """
    return costs["macs"] + costs["binary_macs"] / BINARY_SPEEDUP


def fitness(accuracy: float, operations: float, original: float, trade_off: float) -> float:
    r"""Return what a candidate is worth (Eq. 4).

    \\[ f = \max(100 \, Acc - \lambda \frac{FLOPs}{FLOPs_{original}}, 0) \\]
    """
    return max(100 * accuracy - trade_off * operations / original, 0.0)  # Eq. 4


def scores_of(figures: Mapping[str, float], objectives: tuple[str, ...]) -> tuple[float, ...]:
    """Return what is to be maximized of a candidate, for each objective; costs are negative."""
    return tuple(float(figures[name]) * (1 if name in _MAXIMIZED else -1) for name in objectives)


def require_objectives(objectives: object) -> None:
    """Raise `InputError` for objectives that a search cannot have."""
    if not isinstance(objectives, tuple | list) or not objectives:
        raise InputError(f"`objectives` must be a list of names, but got {objectives!r}.")
    for name in objectives:
        require_known("objective", name, OBJECTIVES)
    if len(set(objectives)) < len(objectives):
        raise InputError(f"`objectives` must differ from each other, but got {objectives!r}.")
    if not set(objectives) & set(_MAXIMIZED):
        raise InputError(
            f"`objectives` must hold accuracy or fitness, but got {', '.join(objectives)}: the "
            "smallest network needs no search."
        )


class Fitness:
    """Costs and fitness of the candidates of a space.

    # Arguments
        costs: the costs of the space.
        trade_off: lambda of Eq. 4.
        values: returns the values of the choices that genes stand for; by default they are these.
        reference: the values of the original network; by default every ratio 1, in a space that
            chooses nothing else.
    """

    def __init__(
        self,
        costs: SpaceCosts,
        trade_off: float,
        values: Callable[[Mapping[str, Parameter]], Mapping[str, Value]] = dict,
        reference: Mapping[str, Value] | None = None,
    ) -> None:
        self.costs = costs
        self.trade_off = trade_off
        self._values = values
        self._reference = reference
        # Each generation asks for all candidates before it.
        self._known: dict[tuple[tuple[str, Any], ...], dict[str, Any]] = {}

    @cached_property
    def original(self) -> float:
        """FLOPs of the original binary network, whether or not a search tries it."""
        reference = self._reference or dict.fromkeys(self.costs.expansions, 1)
        return float(flops(self.costs.exact(reference)))

    def figures(self, candidate: Mapping[str, Parameter], accuracy: float) -> dict[str, Any]:
        """Return accuracy, costs and fitness of a candidate."""
        key = tuple(candidate.items())
        if key not in self._known:
            self._known[key] = self.costs.exact(self._values(candidate))
        costs = self._known[key]
        operations = float(flops(costs))
        figure = fitness(accuracy, operations, self.original, self.trade_off)
        return {"fitness": figure, "accuracy": accuracy, "flops": operations, **costs}
