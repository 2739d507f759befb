"""Which of several candidates are better in more than one respect: NSGA-II's two measures."""

from collections.abc import Sequence

import numpy as np

__all__ = ["crowding_distances", "front", "pareto_ranks", "ranking"]


def pareto_ranks(scores: np.ndarray) -> np.ndarray:
    """Return the number of the front each candidate is in, 0 for those that none dominates.

    A candidate dominates another if it is nowhere worse and somewhere better.

    # Arguments
        scores: what to maximize, shape `(candidates, objectives)`.

    # References
        - [A Fast and Elitist Multiobjective Genetic Algorithm:
          NSGA-II](https://doi.org/10.1109/4235.996017)
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

    # Arguments
        scores: what to maximize, shape `(candidates, objectives)`.
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
    """Return the candidates from the best to the worst: by front, then by crowding, then by age.

    # Arguments
        scores: what to maximize of each candidate, in the order they were made.
    """
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
