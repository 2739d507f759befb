"""Differentiable search of widths (DMS): the mean of each width is learned."""

from larq_nas.searchers.dms.search import Dms

__all__ = ["Dms"]
