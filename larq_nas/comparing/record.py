"""What a comparison leaves in its directory, and what an earlier call left there."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from larq_nas.comparing.rows import table
from larq_nas.differences import differences, flat
from larq_nas.errors import InputError
from larq_nas.files import LEFTOVERS, write_atomically, write_table
from larq_nas.lock import LOCK, keep_others_out, unwritable
from larq_nas.report.comparison import plot_comparison

__all__ = ["Record"]


class Record:
    """The rows of a comparison, which grows from call to call on the same terms.

    Within a `with` block, no other process can add to it.

    # Arguments
        directory: where it is kept.
        terms: settings that all of its trainings share.

    # Raises
        InputError: if the directory holds something else, or a comparison on other terms.
    """

    def __init__(self, directory: Path, terms: Mapping[str, Any]) -> None:
        self._directory = directory
        self._path = directory / "comparison.json"
        self._terms = json.loads(json.dumps(terms))
        _require_free(directory)
        self._earlier = self._read()
        self._lock: TextIO | None = None

    def __enter__(self) -> "Record":
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._lock = keep_others_out(self._directory)
        except OSError as error:
            raise unwritable(self._directory, error) from None
        self._earlier = self._read()
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock:
            self._lock.close()

    @property
    def has_rows(self) -> bool:
        """Whether earlier calls have left any."""
        return bool(self._earlier)

    def others(self, labels: Sequence[str]) -> list[dict[str, Any]]:
        """Return the rows of earlier calls, of other architectures than `labels`."""
        return [row for label, row in self._earlier.items() if label not in labels]

    def with_earlier(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return rows and those of earlier calls; what was timed of the same networks stays."""
        whole = []
        for row in rows:
            before = self._earlier.get(row["architecture"], {})
            alike = before.get("flatbuffers") == row.get("flatbuffers")
            whole.append({**row, "microseconds": before.get("microseconds") if alike else None})
        return whole + self.others([row["architecture"] for row in rows])

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write `comparison.json`, `comparison.csv` and, if it can be drawn, the plot."""
        record = {"terms": self._terms, "rows": list(rows)}
        write_atomically(self._path, json.dumps(record, indent=1) + "\n")
        scalars = [{k: v for k, v in row.items() if not isinstance(v, list)} for row in rows]
        write_table(self._directory / "comparison.csv", scalars)
        plot_comparison(rows, self._directory / "comparison.png")

    def show(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Print the rows as a table, and where they are."""
        print(table(rows), flush=True)
        if not (self._directory / "comparison.png").exists():
            print("No plot: matplotlib is not installed; pip install 'larq_nas[plots]'", flush=True)
        print(f"written: {self._directory}", flush=True)

    def _read(self) -> dict[str, dict[str, Any]]:
        if not self._path.exists():
            return {}
        try:
            record = json.loads(self._path.read_text(encoding="utf-8"))
            old = flat(record["terms"])
            rows = {row["architecture"]: dict(row) for row in record["rows"]}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise InputError(
                f"`{self._path}` is damaged, or not of a comparison: delete it, and it is written "
                "again from the runs of the architectures that are given."
            ) from None
        changed = differences(old, flat(self._terms))
        if changed:
            raise InputError(
                f"`{self._directory}` holds a comparison on other terms ({changed}): use those, "
                "or another directory."
            )
        return rows


def _require_free(directory: Path) -> None:
    """Raise `InputError` for a directory that holds something else than comparisons."""
    try:
        paths = sorted(directory.iterdir()) if directory.exists() else []
    except OSError as error:
        raise unwritable(directory, error) from None
    for path in paths:
        ours = path.name == LOCK or path.match(LEFTOVERS)
        known = ours or path.name.startswith("comparison.")
        if not known and not any(path.glob("*seed*/")):
            raise InputError(
                f"`directory` must be new, empty or hold a comparison, but `{directory}` holds "
                f"other files, such as {path.name}."
            )
