"""What each strategy breeds, on a problem whose best is known."""

from collections.abc import Callable

import numpy as np
import pytest

from larq_nas.errors import InputError
from larq_nas.searchers.evolution.generation import (
    Aging,
    Breeder,
    Genes,
    Genetic,
    Genome,
    Random,
    Scored,
    Strategy,
    resolve_strategy,
)

GENES = Genes({f"layer{n}": (0.25, 0.5, 1, 2, 3, 4) for n in range(8)})
TARGET = (0, 1, 2, 3, 4, 5, 0, 3)


def near(genome: Genome) -> tuple[float, ...]:
    return (-float(np.abs(np.subtract(genome, TARGET)).sum()),)


def evolve(
    strategy: Strategy,
    seed: int = 0,
    generations: int = 10,
    score: Callable[[Genome], tuple[float, ...] | None] = near,
    **settings: object,
) -> list[Scored]:
    breeder = Breeder(GENES, strategy, 12, seed, **settings)
    scored: list[Scored] = []
    for number in range(generations):
        bred = breeder.generation(number, scored)
        scored += [Scored(genome, score(genome)) for genome in bred.genomes]
    return scored


@pytest.mark.parametrize("strategy", [Genetic(), Aging()], ids=["genetic", "aging"])
def test_evolution_beats_as_many_random_candidates(strategy: Strategy) -> None:
    pairs = [
        (max(near(one.genome) for one in evolve(kind, seed)) for kind in (strategy, Random()))
        for seed in range(10)
    ]
    evolved, random = zip(*pairs, strict=True)
    assert np.mean(evolved) > np.mean(random) + 2 * np.std(random) / 10**0.5


@pytest.mark.parametrize("name", ["genetic", "aging", "random"])
def test_the_same_seed_breeds_the_same_and_each_candidate_once(name: str) -> None:
    first, again = (evolve(resolve_strategy(name), 3) for _ in range(2))
    assert first == again
    assert len({one.genome for one in first}) == len(first) == 120
    assert evolve(resolve_strategy(name), 4) != first


def test_genetic_keeps_the_best_of_all_generations_as_parents() -> None:
    children = [
        Genetic(crossover=0, mutation=0).children(
            GENES,
            [Scored((0,) * 8, (9.0,)), *(Scored((1,) * 7 + (n,), (float(-n),)) for n in range(6))],
            2,
            np.random.default_rng(0),
        )
        for _ in range(1)
    ]
    drawn = {children[0]() for _ in range(50)}
    assert drawn == {(0,) * 8, (1,) * 7 + (0,)}


def test_aging_takes_parents_of_the_youngest_alone() -> None:
    old = Scored((5,) * 8, (100.0,))
    young = [Scored((0,) * 8, (1.0,)), Scored((1,) * 8, (2.0,))]
    draw = Aging(sample=2).children(GENES, [old, *young], 2, np.random.default_rng(0))
    for _ in range(30):
        child = draw()
        assert sum(gene != 1 for gene in child) == 1


def test_failed_candidates_are_no_parents_and_are_not_drawn_again() -> None:
    def score(genome: Genome) -> tuple[float, ...] | None:
        return None if genome[0] < 3 else near(genome)

    scored = evolve(Genetic(), score=score)
    assert len({one.genome for one in scored}) == len(scored)
    assert any(one.scores is None for one in scored)
    alive = [one for one in scored if one.scores is not None]
    draw = Genetic(crossover=0, mutation=0).children(GENES, scored, 12, np.random.default_rng(0))
    assert {draw() for _ in range(60)} <= {one.genome for one in alive}


def test_where_all_failed_children_are_random() -> None:
    dead = [Scored((0,) * 8, None)]
    for strategy in (Genetic(), Aging()):
        draw = strategy.children(GENES, dead, 4, np.random.default_rng(0))
        assert len({draw() for _ in range(20)}) == 20


def test_what_is_over_budget_is_made_smaller_until_it_fits() -> None:
    def fits(genome: Genome) -> bool:
        return sum(genome) <= 6

    breeder = Breeder(GENES, Random(), 20, 0, fits)
    bred = breeder.generation(0, [])
    assert len(bred.genomes) == 20
    assert all(fits(genome) for genome in bred.genomes)
    assert bred.over_budget > 0


def test_where_nothing_fits_nothing_is_bred() -> None:
    assert Breeder(GENES, Random(), 4, 0, lambda genome: False).generation(0, []).genomes == ()


def test_a_small_space_is_trained_whole_and_then_ends() -> None:
    genes = Genes({"a": (1, 2), "b": (1, 2)})
    breeder = Breeder(genes, Genetic(), 3, 0)
    first = breeder.generation(0, []).genomes
    scored = [Scored(genome, (float(sum(genome)),)) for genome in first]
    second = breeder.generation(1, scored).genomes
    assert len(first) == 3
    assert len(set(first + second)) == 4
    scored += [Scored(genome, (0.0,)) for genome in second]
    assert breeder.generation(2, scored).genomes == ()


def test_several_objectives_spread_over_the_front() -> None:
    def score(genome: Genome) -> tuple[float, ...]:
        return float(sum(genome[:4])), -float(sum(genome))

    scored = evolve(Genetic(), score=score, generations=15)
    found = {one.scores for one in scored if sum(one.genome[4:]) == 0}
    assert len({scores[0] for scores in found if scores}) > 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Genetic(mutation=1.5),
            "`mutation` must be a probability from 0 to 1, but got 1.5",
        ),
        (lambda: Genetic(crossover=True), "`crossover` must be a probability"),
        (lambda: Aging(sample=0), "`sample` must be positive"),
        (lambda: resolve_strategy("genetics"), "did you mean `genetic`"),
        (lambda: resolve_strategy(3), "`strategy` must be one of genetic"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
