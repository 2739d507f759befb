"""Architectures on equal terms: read, trained alike, and what came of them."""

from larq_nas.comparing.entries import Entry, read_entries
from larq_nas.comparing.rows import summarize, table

__all__ = ["Entry", "read_entries", "summarize", "table"]
