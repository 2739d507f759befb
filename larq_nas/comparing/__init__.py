"""Architectures on equal terms: read, trained alike, and what came of them."""

from larq_nas.comparing.entries import Entry, drawn_from, read_entries
from larq_nas.comparing.jobs import Job, finished_before, jobs_of
from larq_nas.comparing.record import Record
from larq_nas.comparing.rows import summarize, table

__all__ = [
    "Entry",
    "Job",
    "Record",
    "drawn_from",
    "finished_before",
    "jobs_of",
    "read_entries",
    "summarize",
    "table",
]
