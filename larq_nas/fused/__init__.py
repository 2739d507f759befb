"""Cells of a supernet as one layer each, which does the work that edges share once."""

from larq_nas.fused.cell import FusedCell
from larq_nas.fused.describe import Description, describe
from larq_nas.fused.kept import kept

__all__ = ["Description", "FusedCell", "describe", "kept"]
