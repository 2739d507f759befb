"""Differentiable dimension search: widths as random variables whose means are learned."""

from larq_nas.dimension.dimensions import Dimensions, channel_shares
from larq_nas.dimension.hinge import BudgetHinge, MemoryHinge, megabytes
from larq_nas.dimension.logistic import log_probabilities
from larq_nas.dimension.model import DimensionModel
from larq_nas.dimension.supernet import Supernet
from larq_nas.dimension.trial import require_widths
from larq_nas.dimension.turns import Turns

__all__ = [
    "BudgetHinge",
    "DimensionModel",
    "Dimensions",
    "MemoryHinge",
    "Supernet",
    "Turns",
    "channel_shares",
    "log_probabilities",
    "megabytes",
    "require_widths",
]
