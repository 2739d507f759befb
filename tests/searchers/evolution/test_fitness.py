"""Eq. 4 by hand, and what objectives make of figures."""

import pytest

from larq_nas.errors import InputError
from larq_nas.searchers.evolution.fitness import fitness, flops, require_objectives, scores_of


def test_fitness_is_points_of_accuracy_minus_lambda_times_the_share_of_operations() -> None:
    # VGG-Auto-A of the paper's Table 1: 92.17 %, 11.3M of 13.2M, lambda 4.
    assert fitness(0.9217, 11.3e6, 13.2e6, 4) == pytest.approx(92.17 - 4 * 11.3 / 13.2)


def test_fitness_is_never_below_zero() -> None:
    assert fitness(0.1, 166e6, 13.2e6, 4) == 0


def test_a_binary_operation_counts_as_a_sixty_fourth() -> None:
    assert flops({"macs": 1000, "binary_macs": 6400}) == 1100


def test_costs_are_maximized_negative() -> None:
    figures = {"accuracy": 0.5, "weight_bytes": 800, "fitness": 40.0}
    assert scores_of(figures, ("accuracy", "weight_bytes")) == (0.5, -800.0)
    assert scores_of(figures, ("fitness",)) == (40.0,)


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        ((), "must be a list of names"),
        (("accuracy", "size"), "Unknown objective `size`"),
        (("weight_bytes", "flops"), "must hold accuracy or fitness"),
        (("accuracy", "accuracy"), "must differ"),
    ],
)
def test_objectives_that_cannot_be_searched_for_are_refused(
    objectives: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        require_objectives(objectives)
