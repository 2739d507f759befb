"""Crossover and mutation against what chance gives."""

import numpy as np
import pytest

from larq_nas.errors import InputError
from larq_nas.searchers.evolution.generation import Genes, crossover, mutate, mutate_one

GENES = Genes({f"layer{n}": (0.25, 0.5, 1, 2, 3, 4) for n in range(10)})


def test_a_child_has_each_gene_of_a_parent_evenly() -> None:
    rng = np.random.default_rng(0)
    first, second = (0,) * 10, (1,) * 10
    children = np.array([crossover(first, second, rng) for _ in range(2000)])
    assert set(np.unique(children)) == {0, 1}
    assert np.abs(children.mean(axis=0) - 0.5).max() < 4 * 0.5 / 2000**0.5
    # Genes are drawn one by one: two neighbours agree in half of the children.
    assert np.mean(children[:, 0] == children[:, 1]) == pytest.approx(0.5, abs=0.05)


def test_mutation_changes_each_gene_as_often_as_asked_to_another_option_evenly() -> None:
    rng = np.random.default_rng(0)
    parent = (2,) * 10
    children = np.array([mutate(parent, GENES, 0.1, rng) for _ in range(3000)])
    assert np.mean(children != 2) == pytest.approx(0.1, abs=0.01)
    changed = children[children != 2]
    shares = np.bincount(changed, minlength=6) / len(changed)
    assert shares[2] == 0
    assert np.abs(shares[[0, 1, 3, 4, 5]] - 0.2).max() < 0.04


def test_no_probability_changes_nothing() -> None:
    assert mutate((3,) * 10, GENES, 0.0, np.random.default_rng(0)) == (3,) * 10


def test_one_mutation_changes_one_gene() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        child = mutate_one((1,) * 10, GENES, rng)
        assert sum(gene != 1 for gene in child) == 1


def test_genes_without_alternatives_stay() -> None:
    genes = Genes({"a": (1,), "b": (1, 2)})
    rng = np.random.default_rng(0)
    assert {mutate_one((0, 0), genes, rng) for _ in range(9)} == {(0, 1)}
    assert mutate_one((0,), Genes({"a": (1,)}), rng) == (0,)
    assert mutate((0,), Genes({"a": (1,)}), 1.0, rng) == (0,)


def test_genomes_and_values_are_one_another() -> None:
    genome = (0, 5, 2, 1, 3, 4, 0, 0, 1, 2)
    values = GENES.values(genome)
    assert values["layer1"] == 4
    assert GENES.genome(values) == genome
    assert GENES.size == 6**10


def test_a_value_that_is_no_option_is_refused() -> None:
    with pytest.raises(InputError, match=r"`layer3` has the options 0.25, .* but got 7"):
        GENES.genome({**GENES.values((0,) * 10), "layer3": 7})


def test_smaller_takes_one_gene_down_a_step_whatever_the_order_of_options() -> None:
    genes = Genes({"a": (4, 1, 2), "b": (1,)})
    rng = np.random.default_rng(0)
    steps = [(0, 0)]
    while (smaller := genes.smaller(steps[-1], rng)) != steps[-1]:
        steps.append(smaller)
    assert [genes.values(step)["a"] for step in steps] == [4, 2, 1]
