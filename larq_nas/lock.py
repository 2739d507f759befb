"""Keeps other processes out of a directory."""

from pathlib import Path
from typing import TextIO

from larq_nas.errors import InputError

__all__ = ["LOCK", "keep_others_out", "unwritable"]

LOCK = ".lock"
"""The file that is locked; it stays, empty."""


def keep_others_out(directory: Path) -> TextIO | None:
    """Return a lock on a directory, held until it is closed; `None` where there are none.

    # Raises
        InputError: if another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such locks
        return None
    lock = open(directory / LOCK, "a")  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise InputError(
            f"Another process works in `{directory}`: wait for it, or use another directory."
        ) from None
    return lock


def unwritable(directory: Path, error: OSError) -> InputError:
    """Return the error for a directory that cannot be written in."""
    if directory.is_file():
        return InputError(f"`directory` must be a folder, but `{directory}` is a file.")
    return InputError(f"`directory` must be writable, but `{directory}` is not: {error.strerror}.")
