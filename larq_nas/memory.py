"""Memory that the system could give."""

import re
from pathlib import Path

_SYSTEM = Path("/proc/meminfo")
_CONTAINER = Path("/sys/fs/cgroup/memory.max")


def free_memory() -> float | None:
    """Return the bytes that Linux could give; `None` where there is no such figure."""
    found = re.search(r"MemAvailable:\s*(\d+) kB", _read(_SYSTEM))
    limit = re.fullmatch(r"(\d+)\s*", _read(_CONTAINER))  # "max" where there is none
    free = [int(found[1]) * 1024] if found else []
    return min([*free, int(limit[1])] if limit else free, default=None)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
