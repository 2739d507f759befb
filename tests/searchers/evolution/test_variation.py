"""Crossover and mutation against what chance gives."""

import numpy as np
import pytest

from larq_nas.searchers.evolution.generation import (
    Candidate,
    Genes,
    crossover,
    mutate,
    mutate_one,
)

GENES = Genes({f"layer{n}": (0, 1, 2, 3, 4, 5) for n in range(10)})


def all_of(value: float) -> Candidate:
    return dict.fromkeys(GENES.options, value)


def test_a_child_has_each_value_of_a_parent_evenly() -> None:
    rng = np.random.default_rng(0)
    first, second = all_of(0), all_of(1)
    children = np.array([list(crossover(first, second, GENES, rng).values()) for _ in range(2000)])
    assert set(np.unique(children)) == {0, 1}
    assert np.abs(children.mean(axis=0) - 0.5).max() < 4 * 0.5 / 2000**0.5
    # Values are drawn one by one: two neighbours agree in half of the children.
    assert np.mean(children[:, 0] == children[:, 1]) == pytest.approx(0.5, abs=0.05)


def test_mutation_changes_each_value_as_often_as_asked_to_another_option_evenly() -> None:
    rng = np.random.default_rng(0)
    mutated = [mutate(all_of(2), GENES, 0.1, rng) for _ in range(3000)]
    children = np.array([list(child.values()) for child in mutated])
    assert np.mean(children != 2) == pytest.approx(0.1, abs=0.01)
    changed = children[children != 2]
    shares = np.bincount(changed, minlength=6) / len(changed)
    assert shares[2] == 0
    assert np.abs(shares[[0, 1, 3, 4, 5]] - 0.2).max() < 0.04


def test_no_probability_changes_nothing() -> None:
    assert mutate(all_of(3), GENES, 0.0, np.random.default_rng(0)) == all_of(3)


def test_one_mutation_changes_one_value() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        child = mutate_one(all_of(1), GENES, rng)
        assert sum(value != 1 for value in child.values()) == 1


def test_choices_without_alternatives_stay() -> None:
    genes = Genes({"a": (1,), "b": (1, 2)})
    rng = np.random.default_rng(0)
    for _ in range(9):
        assert mutate_one({"a": 1, "b": 1}, genes, rng) == {"a": 1, "b": 2}
    assert mutate_one({"a": 1}, Genes({"a": (1,)}), rng) == {"a": 1}
    assert mutate({"a": 1}, Genes({"a": (1,)}), 1.0, rng) == {"a": 1}


def test_all_candidates_are_counted() -> None:
    assert GENES.size == 6**10


def test_smaller_takes_one_value_down_a_step_whatever_the_order_of_options() -> None:
    genes = Genes({"a": (4, 1, 2), "b": (1,)})
    rng = np.random.default_rng(0)
    steps: list[Candidate] = [{"a": 4, "b": 1}]
    while (smaller := genes.smaller(steps[-1], rng)) != steps[-1]:
        steps.append(smaller)
    assert [step["a"] for step in steps] == [4, 2, 1]
