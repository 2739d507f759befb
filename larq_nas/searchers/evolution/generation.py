"""Crossover, mutation, strategies and generations; no TensorFlow."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np

from larq_nas.errors import (
    InputError,
    is_number,
    require_fields,
    require_known,
    require_whole,
    use_plain_numbers,
)
from larq_nas.searchers.evolution.fitness import ranking

Candidate: TypeAlias = Mapping[str, float]
"""The value of each choice by its name, as an `Architecture` holds them."""


@dataclass(frozen=True)
class Genes:
    """The options of each choice of a space, such as expansion ratios, by its name."""

    options: Mapping[str, tuple[float, ...]]

    @property
    def size(self) -> int:
        """Number of different candidates."""
        return math.prod(len(options) for options in self.options.values())

    def require(self, candidate: Candidate, strategy: str) -> None:
        """Raise `InputError` for a candidate that a strategy must not give."""
        known = isinstance(candidate, Mapping) and list(candidate) == list(self.options)
        if not known or any(candidate[name] not in self.options[name] for name in self.options):
            options = "; ".join(f"{name}: {values}" for name, values in self.options.items())
            raise InputError(
                f"Strategy `{strategy}` must give a value of each choice ({options}), but gave "
                f"{candidate!r}."
            )

    def random(self, rng: np.random.Generator) -> Candidate:
        """Return a candidate drawn evenly."""
        return {
            name: options[int(rng.integers(len(options)))] for name, options in self.options.items()
        }

    def smaller(self, candidate: Candidate, rng: np.random.Generator) -> Candidate:
        """Return a candidate with one choice at its next smaller option, if there is one."""
        ranked = {name: sorted(options) for name, options in self.options.items()}
        movable = [name for name, options in ranked.items() if candidate[name] > options[0]]
        if not movable:
            return candidate
        name = movable[int(rng.integers(len(movable)))]
        return {**candidate, name: ranked[name][ranked[name].index(candidate[name]) - 1]}


def crossover(first: Candidate, second: Candidate, rng: np.random.Generator) -> Candidate:
    """Return a child with the value of each choice from either parent, evenly."""
    takes_first = rng.random(len(first)) < 0.5
    pairs = zip(first, takes_first, strict=True)
    return {name: (first if takes else second)[name] for name, takes in pairs}


def mutate(
    candidate: Candidate, genes: Genes, probability: float, rng: np.random.Generator
) -> Candidate:
    """Return a candidate with each choice changed to another of its options by chance."""
    pairs = zip(candidate.items(), rng.random(len(candidate)) < probability, strict=True)
    return {
        name: _other(value, genes.options[name], rng) if changes else value
        for (name, value), changes in pairs
    }


def mutate_one(candidate: Candidate, genes: Genes, rng: np.random.Generator) -> Candidate:
    """Return a candidate with one choice changed to another of its options."""
    free = [name for name, options in genes.options.items() if len(options) > 1]
    if not free:
        return candidate
    name = free[int(rng.integers(len(free)))]
    return {**candidate, name: _other(candidate[name], genes.options[name], rng)}


def _other(value: float, options: Sequence[float], rng: np.random.Generator) -> float:
    if len(options) == 1:
        return value
    drawn = int(rng.integers(len(options) - 1))
    return options[drawn + (drawn >= options.index(value))]


Draw = Callable[[], Candidate]


@dataclass(frozen=True)
class Scored:
    """A candidate that was trained, and what is to be maximized of it: `None` if it failed."""

    candidate: Candidate
    scores: tuple[float, ...] | None


@runtime_checkable
class Strategy(Protocol):
    """Proposes candidates; what it proposes follows from its arguments alone."""

    name: ClassVar[str]

    def children(
        self, genes: Genes, scored: Sequence[Scored], population: int, rng: np.random.Generator
    ) -> Draw:
        """Return what draws one child after the other.

        # Arguments
            genes: the options.
            scored: all candidates so far, oldest first.
            population: number of candidates that may be parents.
            rng: what decides.
        """


@dataclass(frozen=True)
class Genetic:
    """Crossover and mutation of the best candidates so far.

    Two parents are the better ones of two random pairs each. With one objective the better one
    has the higher score, as Shen et al. evolve the fitness of Eq. 4; with several it is in an
    earlier Pareto front, or has more room to itself in the same: NSGA-II.

    # Arguments
        crossover: how probable a child has two parents.
        mutation: how probable each of its genes changes; by default one gene in the mean.

    # References
        - [Searching for Accurate Binary Neural Architectures](https://arxiv.org/abs/1909.07378)
        - [A Fast and Elitist Multiobjective Genetic Algorithm:
          NSGA-II](https://doi.org/10.1109/4235.996017)
    """

    name: ClassVar[str] = "genetic"

    crossover: float = 0.9
    mutation: float | None = None

    def __post_init__(self) -> None:
        use_plain_numbers(self)
        require_fields(_require_probability, self, "crossover", "mutation")

    def children(
        self, genes: Genes, scored: Sequence[Scored], population: int, rng: np.random.Generator
    ) -> Draw:
        alive = [one for one in scored if one.scores is not None]
        order = ranking([one.scores for one in alive if one.scores is not None])[:population]
        parents = [alive[index].candidate for index in order]
        probability = 1 / len(genes.options) if self.mutation is None else self.mutation

        def parent() -> Candidate:
            # Parents are ordered, so the better of two has the smaller index.
            return parents[int(rng.integers(len(parents), size=2).min())]

        def child() -> Candidate:
            candidate = parent()
            if rng.random() < self.crossover:
                candidate = crossover(candidate, parent(), rng)
            return mutate(candidate, genes, probability, rng)

        return child if parents else lambda: genes.random(rng)


@dataclass(frozen=True)
class Aging:
    """Mutation of the best of a few random candidates; the oldest ones die (Real et al.).

    # Arguments
        sample: number of candidates, of the youngest `population`, that the parent is best of;
            by default a quarter of them.

    # References
        - [Regularized Evolution for Image Classifier Architecture
          Search](https://arxiv.org/abs/1802.01548)
    """

    name: ClassVar[str] = "aging"

    sample: int | None = None

    def __post_init__(self) -> None:
        use_plain_numbers(self)
        require_fields(require_whole, self, "sample")

    def children(
        self, genes: Genes, scored: Sequence[Scored], population: int, rng: np.random.Generator
    ) -> Draw:
        alive = [one for one in scored if one.scores is not None][-population:]
        sample = min(self.sample or max(2, population // 4), len(alive))

        def child() -> Candidate:
            drawn = [alive[int(i)] for i in sorted(rng.choice(len(alive), sample, replace=False))]
            best = ranking([one.scores for one in drawn if one.scores is not None])[0]
            return mutate_one(drawn[best].candidate, genes, rng)

        return child if alive else lambda: genes.random(rng)


@dataclass(frozen=True)
class Random:
    """Candidates drawn evenly, whatever was found: what a search has to beat."""

    name: ClassVar[str] = "random"

    def children(
        self, genes: Genes, scored: Sequence[Scored], population: int, rng: np.random.Generator
    ) -> Draw:
        return lambda: genes.random(rng)


STRATEGIES: dict[str, type[Any]] = {kind.name: kind for kind in (Genetic, Aging, Random)}


def resolve_strategy(strategy: "str | Strategy") -> Strategy:
    """Return the strategy that a name stands for."""
    if isinstance(strategy, str):
        require_known("strategy", strategy, STRATEGIES)
        made: Strategy = STRATEGIES[strategy]()
        return made
    if isinstance(strategy, type):
        raise InputError(f"`strategy` must be an instance, such as {strategy.__name__}().")
    if not isinstance(strategy, Strategy):
        raise InputError(
            f"`strategy` must be one of {', '.join(STRATEGIES)}, or have a `name` and a method "
            f"`children`, but got {strategy!r}."
        )
    return strategy


def _require_probability(**values: float) -> None:
    for name, value in values.items():
        if not is_number(value) or not 0 <= value <= 1:
            raise InputError(f"`{name}` must be a probability from 0 to 1, but got {value!r}.")


_TRIES = 50


@dataclass(frozen=True)
class Generation:
    """Candidates to train, and how many drawn ones were over the budget or seen before."""

    candidates: tuple[Candidate, ...]
    over_budget: int = 0
    repeated: int = 0


@dataclass(frozen=True)
class Breeder:
    """Makes generations; the same seed and scores give the same.

    `fits` tells whether a candidate keeps to the budget.
    """

    genes: Genes
    strategy: Strategy
    population: int
    seed: int
    fits: Callable[[Candidate], bool] = lambda candidate: True

    def generation(self, number: int, scored: Sequence[Scored]) -> Generation:
        """Return a generation, smaller than the population if there are no more candidates.

        `number` counts those before; `scored` are all their candidates, oldest first.
        """
        rng = np.random.default_rng([self.seed, number])
        draw = self.strategy.children(self.genes, scored, self.population, rng)
        seen = {_key(one.candidate) for one in scored}
        found: list[Candidate] = []
        over, repeated = 0, 0
        wanted = min(self.population, self.genes.size - len(seen))
        for tried in range(_TRIES * wanted):
            if len(found) == wanted:
                break
            # Where children are all seen before, as late in a small space, others are drawn.
            candidate = draw() if tried < _TRIES * wanted // 2 else self.genes.random(rng)
            self.genes.require(candidate, self.strategy.name)
            if _key(candidate) in seen:
                repeated += 1
                continue
            if not self.fits(candidate):
                over += 1
                candidate = self._slimmed(candidate, rng)
                if _key(candidate) in seen or not self.fits(candidate):
                    continue
            seen.add(_key(candidate))
            found.append(candidate)
        return Generation(tuple(found), over, repeated)

    def _slimmed(self, candidate: Candidate, rng: np.random.Generator) -> Candidate:
        """Return a candidate that fits, made smaller a choice at a time; the smallest if none."""
        while not self.fits(candidate):
            smaller = self.genes.smaller(candidate, rng)
            if smaller == candidate:
                break
            candidate = smaller
        return candidate


def _key(candidate: Candidate) -> tuple[float, ...]:
    """Return what tells a candidate of a space from others."""
    return tuple(candidate.values())
