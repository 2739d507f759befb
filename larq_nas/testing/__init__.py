"""The conformance suite of searchers, for pytest."""

from larq_nas.testing.conformance import SearcherConformance

__all__ = ["SearcherConformance"]
