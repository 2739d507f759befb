"""Searchers, and their contract."""

from larq_nas.searchers.differentiable import Differentiable, Progressive
from larq_nas.searchers.dms import Dms
from larq_nas.searchers.evolution import Evolution
from larq_nas.searchers.searcher import Search, Searcher

__all__ = ["Differentiable", "Dms", "Evolution", "Progressive", "Search", "Searcher"]
