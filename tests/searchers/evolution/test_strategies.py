"""What each strategy breeds, on a problem whose best is known."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import larq_nas  # noqa: F401  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest

from larq_nas.choices import Choice, Depth, Expansion
from larq_nas.errors import InputError
from larq_nas.searchers import Evolution
from larq_nas.searchers.evolution.generation import (
    Aging,
    Breeder,
    Candidate,
    Genes,
    Genetic,
    Random,
    Scored,
    Strategy,
    resolve_strategy,
)

GENES = Genes({f"layer{n}": (0, 1, 2, 3, 4, 5) for n in range(8)})
TARGET = (0, 1, 2, 3, 4, 5, 0, 3)


def of(*values: float) -> Candidate:
    return dict(zip(GENES.options, values, strict=True))


def values(candidate: Candidate) -> tuple[float, ...]:
    return tuple(candidate.values())


def near(candidate: Candidate) -> tuple[float, ...]:
    return (-float(np.abs(np.subtract(values(candidate), TARGET)).sum()),)


def evolve(
    strategy: Strategy,
    seed: int = 0,
    generations: int = 10,
    score: Callable[[Candidate], tuple[float, ...] | None] = near,
    **settings: object,
) -> list[Scored]:
    breeder = Breeder(GENES, strategy, 12, seed, **settings)
    scored: list[Scored] = []
    for number in range(generations):
        bred = breeder.generation(number, scored)
        scored += [Scored(one, score(one)) for one in bred.candidates]
    return scored


@pytest.mark.parametrize("strategy", [Genetic(), Aging()], ids=["genetic", "aging"])
def test_evolution_beats_as_many_random_candidates(strategy: Strategy) -> None:
    pairs = [
        (max(near(one.candidate) for one in evolve(kind, seed)) for kind in (strategy, Random()))
        for seed in range(10)
    ]
    evolved, random = zip(*pairs, strict=True)
    assert np.mean(evolved) > np.mean(random) + 2 * np.std(random) / 10**0.5


@pytest.mark.parametrize("name", ["genetic", "aging", "random"])
def test_the_same_seed_breeds_the_same_and_each_candidate_once(name: str) -> None:
    first, again = (evolve(resolve_strategy(name), 3) for _ in range(2))
    assert first == again
    assert len({values(one.candidate) for one in first}) == len(first) == 120
    assert evolve(resolve_strategy(name), 4) != first


def test_genetic_keeps_the_best_of_all_generations_as_parents() -> None:
    children = [
        Genetic(crossover=0, mutation=0).children(
            GENES,
            [
                Scored(of(*[0] * 8), (9.0,)),
                *(Scored(of(*[1] * 7, n), (float(-n),)) for n in range(6)),
            ],
            2,
            np.random.default_rng(0),
        )
        for _ in range(1)
    ]
    drawn = {values(children[0]()) for _ in range(50)}
    assert drawn == {(0,) * 8, (1,) * 7 + (0,)}


def test_aging_takes_parents_of_the_youngest_alone() -> None:
    old = Scored(of(*[5] * 8), (100.0,))
    young = [Scored(of(*[0] * 8), (1.0,)), Scored(of(*[1] * 8), (2.0,))]
    draw = Aging(sample=2).children(GENES, [old, *young], 2, np.random.default_rng(0))
    for _ in range(30):
        child = draw()
        assert sum(value != 1 for value in child.values()) == 1


def test_failed_candidates_are_no_parents_and_are_not_drawn_again() -> None:
    def score(candidate: Candidate) -> tuple[float, ...] | None:
        return None if candidate["layer0"] < 3 else near(candidate)

    scored = evolve(Genetic(), score=score)
    assert len({values(one.candidate) for one in scored}) == len(scored)
    assert any(one.scores is None for one in scored)
    alive = [one for one in scored if one.scores is not None]
    draw = Genetic(crossover=0, mutation=0).children(GENES, scored, 12, np.random.default_rng(0))
    assert {values(draw()) for _ in range(60)} <= {values(one.candidate) for one in alive}


def test_where_all_failed_children_are_random() -> None:
    dead = [Scored(of(*[0] * 8), None)]
    for strategy in (Genetic(), Aging()):
        draw = strategy.children(GENES, dead, 4, np.random.default_rng(0))
        assert len({values(draw()) for _ in range(20)}) == 20


def test_what_is_over_budget_is_made_smaller_until_it_fits() -> None:
    def fits(candidate: Candidate) -> bool:
        return sum(values(candidate)) <= 6

    breeder = Breeder(GENES, Random(), 20, 0, fits)
    bred = breeder.generation(0, [])
    assert len(bred.candidates) == 20
    assert all(fits(candidate) for candidate in bred.candidates)
    assert bred.over_budget > 0


def test_where_nothing_fits_nothing_is_bred() -> None:
    assert (
        Breeder(GENES, Random(), 4, 0, lambda candidate: False).generation(0, []).candidates == ()
    )


def test_a_small_space_is_trained_whole_and_then_ends() -> None:
    genes = Genes({"a": (1, 2), "b": (1, 2)})
    breeder = Breeder(genes, Genetic(), 3, 0)
    first = breeder.generation(0, []).candidates
    scored = [Scored(one, (float(sum(values(one))),)) for one in first]
    second = breeder.generation(1, scored).candidates
    assert len(first) == 3
    assert len({values(one) for one in first + second}) == 4
    scored += [Scored(one, (0.0,)) for one in second]
    assert breeder.generation(2, scored).candidates == ()


def test_several_objectives_spread_over_the_front() -> None:
    def score(candidate: Candidate) -> tuple[float, ...]:
        return float(sum(values(candidate)[:4])), -float(sum(values(candidate)))

    scored = evolve(Genetic(), score=score, generations=15)
    found = {one.scores for one in scored if sum(values(one.candidate)[4:]) == 0}
    assert len({scores[0] for scores in found if scores}) > 5


class Widest:
    """A strategy of a stranger's."""

    name = "widest"

    def children(self, genes, scored, population, rng):
        return lambda: {name: max(options) for name, options in genes.options.items()}


def test_a_strategy_of_ones_own_is_used() -> None:
    strategy = resolve_strategy(Widest())
    bred = Breeder(GENES, strategy, 4, 0).generation(0, [])
    assert bred.candidates[0] == of(*[5] * 8)


class Numpy:
    """Gives scalars of NumPy, in another order than that of the options."""

    name = "numpy"

    def children(self, genes: Genes, scored: object, population: object, rng: np.random.Generator):
        return lambda: {n: rng.choice(genes.options[n]) for n in reversed([*genes.options])}


def test_what_a_strategy_of_ones_own_gives_becomes_the_options_themselves() -> None:
    genes = Genes({"kernel": ("conv3", "conv5"), "blocks": (1, 2, 3), "width": (0.5, 1.0)})
    for candidate in Breeder(genes, Numpy(), 4, seed=0).generation(0, []).candidates:
        assert list(candidate) == list(genes.options)
        assert [type(value) for value in candidate.values()] == [str, int, float]


OPEN = Choice("open", ("a", "b"), inputs=3, keep=2)
CLOSED = Choice("closed", ("a", "b"), inputs=2, keep=2)
QUESTIONS = {
    "closed": CLOSED,
    "open": OPEN,
    "blocks": Depth.between("blocks", 1, 3),
    "width": Expansion("width", 8, (0.5, 1)),
}


@pytest.mark.parametrize("strategy", [Genetic(mutation=1.0, crossover=0), Genetic(), Aging()])
def test_children_inherit_what_is_no_option_of_a_network_that_was_given(strategy: Strategy) -> None:
    # A published cell may read one input twice, as two of NASNet-A's nodes do.
    genes = Genes.of(QUESTIONS)
    given = genes.candidate(
        {
            "closed": [["a", 0], ["b", 0]],
            "open": [["a", 1], ["b", 1]],
            "blocks": 2,
            "width": 0.75,
        }
    )
    breeder = Breeder(genes, strategy, 4, seed=0, initial=(given,))
    assert breeder.generation(0, []).candidates[0] == given
    children = breeder.generation(1, [Scored(given, (1.0,))]).candidates
    for child in children:
        for name, value in genes.values(child).items():
            QUESTIONS[name].decode(value)
    assert any(child.get("closed/inputs") == "0,0" for child in children)


def test_a_network_that_was_given_takes_no_place_of_the_options() -> None:
    genes = Genes.of({"width": QUESTIONS["width"]})
    breeder = Breeder(genes, Random(), 2, seed=0, initial=({"width": 0.75},))
    scored: list[Scored] = []
    for number in range(3):
        bred = breeder.generation(number, scored)
        scored += [Scored(candidate, (1.0,)) for candidate in bred.candidates]
    assert {one.candidate["width"] for one in scored} == {0.75, 0.5, 1.0}


def test_settings_of_a_strategy_that_no_run_can_keep_are_refused() -> None:
    @dataclass(frozen=True)
    class Tabular(Widest):
        table: Any = None

    with pytest.raises(InputError, match="Settings of strategy `widest` must be what JSON holds"):
        Evolution(strategy=Tabular(np.ones(2))).settings()


def test_a_strategy_returns_what_draws() -> None:
    class Nothing:
        name = "nothing"

        def children(self, *arguments: object) -> None:
            """Return nothing, by mistake."""

    with pytest.raises(InputError, match="`children` of strategy `nothing` must return a function"):
        Breeder(GENES, Nothing(), 2, seed=0).generation(0, [])


@pytest.mark.parametrize("ratio", [0.7, -1.0, 99.0])
def test_a_width_that_is_no_option_is_refused(ratio: float) -> None:
    class Other:
        name = "other"

        def children(self, *arguments: object):
            return lambda: {"width": ratio}

    breeder = Breeder(Genes.of({"width": QUESTIONS["width"]}), Other(), 2, seed=0)
    with pytest.raises(InputError, match=r"Strategy `other` must give a value of each choice"):
        breeder.generation(0, [])


def test_a_strategy_gives_options_of_the_space() -> None:
    class Wrong(Widest):
        name = "wrong"

        def children(self, genes, scored, population, rng):
            return lambda: dict.fromkeys(genes.options, 7)

    with pytest.raises(InputError, match=r"Strategy `wrong` must give a value of each choice"):
        Breeder(GENES, Wrong(), 4, 0).generation(0, [])


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
