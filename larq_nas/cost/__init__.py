"""What a network costs, exactly; what a supernet costs, differentiably; and budgets."""

from larq_nas.cost.budget import BUDGETS, Budget
from larq_nas.cost.conventions import CONVENTIONS, Convention, by_convention
from larq_nas.cost.expected import Expected
from larq_nas.cost.limits import Limits, require_feasible, strongest_within
from larq_nas.cost.profile import LayerProfile, Profile, profile
from larq_nas.cost.space import SpaceCosts
from larq_nas.cost.structure import LATENCY, QUANTITIES
from larq_nas.cost.table import table

__all__ = [
    "BUDGETS",
    "CONVENTIONS",
    "LATENCY",
    "QUANTITIES",
    "Budget",
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
