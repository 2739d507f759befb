"""The answers to a search space's questions: relax, fuse, fix and sample."""

from larq_nas.choosers.chooser import Chooser, Operation, Operations
from larq_nas.choosers.fix import Fix, Survey
from larq_nas.choosers.fuse import Fuse
from larq_nas.choosers.relax import Relax, require_temperature
from larq_nas.choosers.sample import Sample
from larq_nas.choosers.widest import Widest

__all__ = [
    "Chooser",
    "Fix",
    "Fuse",
    "Operation",
    "Operations",
    "Relax",
    "Sample",
    "Survey",
    "Widest",
    "require_temperature",
]
