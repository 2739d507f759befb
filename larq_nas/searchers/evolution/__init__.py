"""Evolutionary search of widths: candidates trained for a few epochs, and the best bred."""

from larq_nas.searchers.evolution.generation import Aging, Genetic, Random, Scored, Strategy

__all__ = ["Aging", "Genetic", "Random", "Scored", "Strategy"]
