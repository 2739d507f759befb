"""Differentiable search: architecture parameters learned with the weights of a supernet."""

from larq_nas.searchers.differentiable.progressive import Progressive
from larq_nas.searchers.differentiable.search import Differentiable

__all__ = ["Differentiable", "Progressive"]
