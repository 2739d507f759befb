"""Exact costs of networks, differentiable costs of supernets, and budgets."""

from larq_nas.cost.budget import (
    COSTS,
    Budget,
    BudgetLike,
    Limits,
    require_feasible,
    strongest_within,
)
from larq_nas.cost.conventions import CONVENTIONS, Convention, by_convention
from larq_nas.cost.expected import Expected
from larq_nas.cost.profile import LATENCY, QUANTITIES, LayerProfile, Profile, profile, table
from larq_nas.cost.space import SpaceCosts

__all__ = [
    "CONVENTIONS",
    "COSTS",
    "LATENCY",
    "QUANTITIES",
    "Budget",
    "BudgetLike",
    "Convention",
    "Expected",
    "LayerProfile",
    "Limits",
    "Profile",
    "SpaceCosts",
    "by_convention",
    "profile",
    "require_feasible",
    "strongest_within",
    "table",
]
