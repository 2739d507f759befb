"""How children are made of parents: crossover and mutation."""

import numpy as np

from larq_nas.evolution.genome import Genes, Genome

__all__ = ["crossover", "mutate", "mutate_one"]


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
