"""Write files that are whole or absent, whenever the process is killed."""

import csv
import io
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["LEFTOVERS", "replacing", "write_atomically", "write_table"]

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


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write `content` to `path` in one step."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    with replacing(path) as temporary:
        temporary.write_bytes(data)
