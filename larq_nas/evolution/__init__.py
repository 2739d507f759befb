"""Evolution of candidates, without their training: genes, scores, strategies, generations."""

from larq_nas.evolution.fitness import OBJECTIVES, fitness, flops, require_objectives, scores_of
from larq_nas.evolution.generation import Breeder, Generation
from larq_nas.evolution.genome import Genes, Genome
from larq_nas.evolution.pareto import crowding_distances, front, pareto_ranks, ranking
from larq_nas.evolution.strategies import (
    STRATEGIES,
    Aging,
    Genetic,
    Random,
    Scored,
    Strategy,
    resolve_strategy,
)
from larq_nas.evolution.variation import crossover, mutate, mutate_one

__all__ = [
    "OBJECTIVES",
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
    "crowding_distances",
    "fitness",
    "flops",
    "front",
    "mutate",
    "mutate_one",
    "pareto_ranks",
    "ranking",
    "require_objectives",
    "resolve_strategy",
    "scores_of",
]
