"""Architectures on equal terms: read, trained alike, and what came of them."""

from larq_nas.comparing.entries import Entry, read_entries
from larq_nas.comparing.record import Record
from larq_nas.comparing.rows import summarize, table

__all__ = ["Entry", "Record", "read_entries", "summarize", "table"]
