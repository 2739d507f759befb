"""Files that are whole or absent whenever the process is killed, and directories of ours."""

import csv
import io
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from larq_nas.errors import InputError

__all__ = [
    "LEFTOVERS",
    "LOCK",
    "lock_directory",
    "read_table",
    "replacing",
    "require_ours",
    "unwritable",
    "write_atomically",
    "write_table",
]

LEFTOVERS = ".writing-*"
"""What a killed process may leave, beside the file it was writing."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it once the block has ended well."""
    path = Path(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=LEFTOVERS[:-1]) as folder:
        temporary = Path(folder) / path.name
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)


def write_table(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `rows` to `path` as CSV in one step; a column for each name that any of them has."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def read_table(path: Path, *columns: str) -> list[dict[str, Any]]:
    """Return the rows of a CSV file of a run, numbers as such; those without a value lack it.

    # Raises
        InputError: if the file cannot be read, or a row lacks one of `columns`.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        found = [{name: _value(text) for name, text in row.items() if text} for row in rows]
        if all(name in row for row in found for name in columns):
            return found
        raise TypeError
    except (OSError, UnicodeDecodeError, csv.Error, TypeError, AttributeError) as error:
        raise InputError(f"`{path}` cannot be read ({type(error).__name__}).") from None


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write `content` to `path` in one step."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    with replacing(path) as temporary:
        temporary.write_bytes(data)


LOCK = ".lock"
"""The file that is locked; it stays, empty."""


def lock_directory(directory: Path) -> FileLock:
    """Return a lock on a directory, held until it is released.

    # Raises
        InputError: if another process holds it, or the file system has no locks.
    """
    lock = FileLock(directory / LOCK, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"Another process works in `{directory}`: wait for it, or use another directory."
        ) from None
    except NotImplementedError:
        raise InputError(
            f"`{directory}` cannot be locked, as its file system has no locks: use a local one."
        ) from None
    return lock


def require_ours(
    directory: Path, what: str, is_ours: Callable[[Path], bool] = lambda path: False
) -> None:
    """Raise `InputError` for a directory that holds something else.

    # Arguments
        directory: the directory; it may be absent.
        what: what it may hold, such as `"a run"`.
        is_ours: whether a file or folder in it is of that.
    """
    try:
        paths = sorted(directory.iterdir()) if directory.exists() else []
    except OSError as error:
        raise unwritable(directory, error) from None
    others = [
        path.name
        for path in paths
        if path.name != LOCK and not path.match(LEFTOVERS) and not is_ours(path)
    ]
    if others:
        raise InputError(
            f"`directory` must be new, empty or hold {what}, but `{directory}` holds other files, "
            f"such as {others[0]}."
        )


def unwritable(directory: Path, error: OSError) -> InputError:
    """Return the error for a directory that cannot be written in."""
    if directory.is_file():
        return InputError(f"`directory` must be a folder, but `{directory}` is a file.")
    return InputError(f"`directory` must be writable, but `{directory}` is not: {error.strerror}.")
