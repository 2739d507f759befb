"""Candidates as trials of keras-tuner: an oracle, a tuner, and many processes."""

from larq_nas.tuning.launch import end_with_parent, launch
from larq_nas.tuning.oracle import EvolutionOracle
from larq_nas.tuning.role import Role, current_role
from larq_nas.tuning.tuner import EvolutionTuner
from larq_nas.tuning.watched import cause

__all__ = [
    "EvolutionOracle",
    "EvolutionTuner",
    "Role",
    "cause",
    "current_role",
    "end_with_parent",
    "launch",
]
