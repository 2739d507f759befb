"""The candidates of a generation: new ones that keep to the budget, each once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from larq_nas.evolution.genome import Genes, Genome
from larq_nas.evolution.strategies import Scored, Strategy

__all__ = ["Breeder", "Generation"]

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
