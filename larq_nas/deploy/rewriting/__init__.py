"""Exact rewritings of what the engine would run in float, or slowly."""

from larq_nas.deploy.rewriting.network import Lowered, lower

__all__ = ["Lowered", "lower"]
