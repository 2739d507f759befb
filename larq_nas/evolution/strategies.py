"""How the next candidates follow from those that were scored: four ways, on one footing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from larq_nas.errors import InputError, require_whole, unknown_name
from larq_nas.evolution.genome import Genes, Genome
from larq_nas.evolution.pareto import ranking
from larq_nas.evolution.variation import crossover, mutate, mutate_one

__all__ = ["STRATEGIES", "Aging", "Genetic", "Random", "Scored", "Strategy", "resolve_strategy"]

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
