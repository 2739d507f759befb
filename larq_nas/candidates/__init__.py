"""Candidates of a search by sampling: what they start with, and how they are measured."""

from larq_nas.candidates.inherit import Inheritance
from larq_nas.candidates.rebuilt import Rebuilt
from larq_nas.candidates.shared import Shared, require_one_trace
from larq_nas.candidates.subset import draw_subset
from larq_nas.candidates.training import CandidateTraining, Measured

__all__ = [
    "CandidateTraining",
    "Inheritance",
    "Measured",
    "Rebuilt",
    "Shared",
    "draw_subset",
    "require_one_trace",
]
