"""Genomes, crossover, mutation, strategies and generations; no TensorFlow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from larq_nas.errors import InputError, require_whole, unknown_name
from larq_nas.searchers.evolution.fitness import ranking

__all__ = [
    "STRATEGIES",
    "Aging",
    "Breeder",
    "Generation",
    "Genes",
    "Genetic",
    "Genome",
    "Random",
    "Scored",
    "Strategy",
    "crossover",
    "mutate",
    "mutate_one",
    "resolve_strategy",
]


Genome = tuple[int, ...]
"""Which option of each gene, by its index."""


@dataclass(frozen=True)
class Genes:
    """The choices of a space, each with its options.

    # Arguments
        options: the options of each choice by its name, such as expansion ratios.
    """

    options: Mapping[str, tuple[float, ...]]

    @property
    def size(self) -> int:
        """Number of different candidates."""
        size = 1
        for options in self.options.values():
            size *= len(options)
        return size

    @property
    def counts(self) -> list[int]:
        """Number of options of each gene."""
        return [len(options) for options in self.options.values()]

    def random(self, rng: np.random.Generator) -> Genome:
        """Return a candidate drawn evenly."""
        return tuple(int(rng.integers(count)) for count in self.counts)

    def values(self, genome: Genome) -> dict[str, float]:
        """Return the option of each choice by name, as an `Architecture` holds them."""
        pairs = zip(self.options.items(), genome, strict=True)
        return {name: options[index] for (name, options), index in pairs}

    def genome(self, values: Mapping[str, float]) -> Genome:
        """Return the candidate of these options.

        # Raises
            InputError: if a choice has no such option.
        """
        found = []
        for name, options in self.options.items():
            if values.get(name) not in options:
                raise InputError(
                    f"Choice `{name}` has the options {', '.join(map(str, options))}, but got "
                    f"{values.get(name)!r}."
                )
            found.append(options.index(values[name]))
        return tuple(found)

    def smaller(self, genome: Sequence[int], rng: np.random.Generator) -> Genome:
        """Return `genome` with one gene at its next smaller option; unchanged if there is none."""
        ranked = [sorted(range(len(o)), key=lambda i: o[i]) for o in self.options.values()]
        places = [ranks.index(index) for ranks, index in zip(ranked, genome, strict=True)]
        movable = [gene for gene, place in enumerate(places) if place > 0]
        if not movable:
            return tuple(genome)
        gene = int(rng.choice(movable))
        changed = list(genome)
        changed[gene] = ranked[gene][places[gene] - 1]
        return tuple(changed)


def crossover(first: Genome, second: Genome, rng: np.random.Generator) -> Genome:
    """Return a child with each gene from either parent, evenly.

    # Arguments
        first: a parent.
        second: the other one.
        rng: what decides.
    """
    takes_first = rng.random(len(first)) < 0.5
    triples = zip(first, second, takes_first, strict=True)
    return tuple(a if takes else b for a, b, takes in triples)


def mutate(genome: Genome, genes: Genes, probability: float, rng: np.random.Generator) -> Genome:
    """Return `genome` with each gene changed to another of its options by chance.

    # Arguments
        genome: what to change.
        genes: the options.
        probability: how probable it is for each gene to change.
        rng: what decides.
    """
    changes = rng.random(len(genome)) < probability
    counts = genes.counts
    return tuple(
        _other(index, counts[gene], rng) if changes[gene] else index
        for gene, index in enumerate(genome)
    )


def mutate_one(genome: Genome, genes: Genes, rng: np.random.Generator) -> Genome:
    """Return `genome` with one gene changed to another of its options."""
    counts = genes.counts
    free = [gene for gene, count in enumerate(counts) if count > 1]
    if not free:
        return genome
    gene = int(rng.choice(free))
    return (*genome[:gene], _other(genome[gene], counts[gene], rng), *genome[gene + 1 :])


def _other(index: int, count: int, rng: np.random.Generator) -> int:
    if count == 1:
        return index
    drawn = int(rng.integers(count - 1))
    return drawn + (drawn >= index)


Draw = Callable[[], Genome]


@dataclass(frozen=True)
class Scored:
    """A candidate that was trained.

    # Arguments
        genome: the candidate.
        scores: what is to be maximized of it, for each objective; none if it failed.
    """

    genome: Genome
    scores: tuple[float, ...] | None


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
        _require_probability("crossover", self.crossover)
        if self.mutation is not None:
            _require_probability("mutation", self.mutation)

    def children(
        self, genes: Genes, scored: Sequence[Scored], population: int, rng: np.random.Generator
    ) -> Draw:
        alive = [one for one in scored if one.scores is not None]
        order = ranking([one.scores for one in alive if one.scores is not None])[:population]
        parents = [alive[index].genome for index in order]
        probability = 1 / len(genes.options) if self.mutation is None else self.mutation

        def parent() -> Genome:
            # Parents are ordered, so the better of two has the smaller index.
            return parents[int(rng.integers(len(parents), size=2).min())]

        def child() -> Genome:
            genome = parent()
            if rng.random() < self.crossover:
                genome = crossover(genome, parent(), rng)
            return mutate(genome, genes, probability, rng)

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
        if self.sample is not None:
            require_whole(sample=self.sample)

    def children(
        self, genes: Genes, scored: Sequence[Scored], population: int, rng: np.random.Generator
    ) -> Draw:
        alive = [one for one in scored if one.scores is not None][-population:]
        sample = min(self.sample or max(2, population // 4), len(alive))

        def child() -> Genome:
            drawn = [alive[int(i)] for i in sorted(rng.choice(len(alive), sample, replace=False))]
            best = ranking([one.scores for one in drawn if one.scores is not None])[0]
            return mutate_one(drawn[best].genome, genes, rng)

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
        if strategy not in STRATEGIES:
            raise unknown_name("strategy", strategy, STRATEGIES)
        made: Strategy = STRATEGIES[strategy]()
        return made
    if not isinstance(strategy, tuple(STRATEGIES.values())):
        raise InputError(f"`strategy` must be one of {', '.join(STRATEGIES)}, got {strategy!r}.")
    return strategy


def _require_probability(name: str, value: object) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= 1:  # type: ignore[operator]
        raise InputError(f"`{name}` must be a probability from 0 to 1, but got {value!r}.")


_TRIES = 50


@dataclass(frozen=True)
class Generation:
    """Candidates to train.

    # Arguments
        genomes: the candidates.
        over_budget: how many were drawn that would exceed the budget, and left out.
        known: how many were drawn that had been trained before, and left out.
    """

    genomes: tuple[Genome, ...]
    over_budget: int = 0
    known: int = 0


@dataclass(frozen=True)
class Breeder:
    """Makes generations; the same seed and scores give the same.

    # Arguments
        genes: the options.
        strategy: how children follow from scores.
        population: number of candidates of a generation.
        seed: seed of the search.
        fits: whether a candidate keeps to the budget.
    """

    genes: Genes
    strategy: Strategy
    population: int
    seed: int
    fits: Callable[[Genome], bool] = lambda genome: True

    def generation(self, number: int, scored: Sequence[Scored]) -> Generation:
        """Return a generation, smaller than the population if there are no more candidates.

        # Arguments
            number: how many generations there were before.
            scored: all candidates of those, oldest first.
        """
        rng = np.random.default_rng([self.seed, number])
        draw = self.strategy.children(self.genes, scored, self.population, rng)
        seen = {one.genome for one in scored}
        found: list[Genome] = []
        over, known = 0, 0
        wanted = min(self.population, self.genes.size - len(seen))
        for tried in range(_TRIES * wanted):
            if len(found) == wanted:
                break
            # Where children are all known, such as late in a small space, others are drawn.
            genome = draw() if tried < _TRIES * wanted // 2 else self.genes.random(rng)
            if genome in seen:
                known += 1
                continue
            if not self.fits(genome):
                over += 1
                genome = self._slimmed(genome, rng)
                if genome in seen or not self.fits(genome):
                    continue
            seen.add(genome)
            found.append(genome)
        return Generation(tuple(found), over, known)

    def _slimmed(self, genome: Genome, rng: np.random.Generator) -> Genome:
        """Return a candidate that fits, made smaller a gene at a time; the smallest if none."""
        while not self.fits(genome):
            smaller = self.genes.smaller(genome, rng)
            if smaller == genome:
                break
            genome = smaller
        return genome
