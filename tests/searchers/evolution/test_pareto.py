"""Fronts and crowding against their definitions, one pair at a time."""

import numpy as np
import pytest

from larq_nas.searchers.evolution.fitness import crowding_distances, front, pareto_ranks, ranking


def dominates(a: np.ndarray, b: np.ndarray) -> bool:
    return all(a >= b) and any(a > b)


@pytest.mark.parametrize("seed", range(5))
def test_ranks_peel_off_one_front_after_another(seed: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 6, size=(40, 3)).astype(float)
    expected, left, rank = {}, set(range(40)), 0
    while left:
        best = {i for i in left if not any(dominates(scores[j], scores[i]) for j in left)}
        expected |= dict.fromkeys(best, rank)
        left -= best
        rank += 1
    assert pareto_ranks(scores).tolist() == [expected[i] for i in range(40)]
    assert front(scores.tolist()) == [i for i in range(40) if expected[i] == 0]


def test_crowding_is_the_sum_of_the_sides_between_neighbours() -> None:
    scores = np.array([[0.0, 10.0], [1.0, 6.0], [4.0, 5.0], [10.0, 0.0]])
    found = crowding_distances(scores)
    assert np.isinf(found[[0, 3]]).all()
    assert found[1] == pytest.approx((4 - 0) / 10 + (10 - 5) / 10)
    assert found[2] == pytest.approx((10 - 1) / 10 + (6 - 0) / 10)


def test_one_objective_ranks_by_score_and_then_by_age() -> None:
    assert ranking([[1.0], [3.0], [2.0], [3.0]]) == [1, 3, 2, 0]


def test_among_equals_the_one_with_more_room_comes_first() -> None:
    scores = [[0.0, 10.0], [5.0, 5.0], [5.1, 4.9], [5.2, 4.8], [10.0, 0.0]]
    order = ranking(scores)
    assert set(order[:2]) == {0, 4}
    assert order.index(2) == 4


def test_nothing_scored_has_no_order() -> None:
    assert ranking([]) == front([]) == []
