"""Evolutionary search: candidates trained for a few epochs, and the best bred."""

from larq_nas.searchers.evolution.generation import Aging, Genetic, Random, Scored, Strategy
from larq_nas.searchers.evolution.search import Evolution

__all__ = ["Aging", "Evolution", "Genetic", "Random", "Scored", "Strategy"]
