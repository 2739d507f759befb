"""Files that are either whole or absent, whenever the process is killed."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["LEFTOVERS", "replacing", "write_atomically"]

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


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write `content` to `path` in one step."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    with replacing(path) as temporary:
        temporary.write_bytes(data)
