"""What came of a comparison: a row for each entry, as numbers and as text."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["summarize", "table"]

Result = Mapping[str, Any]

_COLUMNS: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "accuracy": ("accuracy", lambda value: f"{value:.2%}"),
    "spread": ("spread", lambda value: f"{100 * value:.2f}"),
    "runs": ("runs", str),
    "diverged": ("diverged", str),
    "binary_macs": ("binary MACs", lambda value: f"{value:,.0f}"),
    "macs": ("real MACs", lambda value: f"{value:,.0f}"),
    "weight_bytes": ("weights (bytes)", lambda value: f"{value:,.0f}"),
    "flatbuffer_bytes": ("flatbuffer (bytes)", lambda value: f"{value:,.0f}"),
    "microseconds": ("latency (ms)", lambda value: f"{value / 1000:.2f}"),
}


def summarize(
    label: str,
    results: Sequence[Result],
    failures: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the row of an entry: means over its runs, and the spread of the accuracies.

    # Arguments
        label: what the row is called.
        results: what is in `result.json` of each run that came to its end.
        failures: of the others, why they did not.
    """
    accuracies = [result["accuracy"] for result in results]
    row: dict[str, Any] = {"architecture": label, "runs": len(results)}
    if failures:
        row |= {"diverged": len(failures), "failures": list(failures)}
    if not results:
        return row
    row["accuracy"] = statistics.mean(accuracies)
    row["spread"] = statistics.stdev(accuracies) if len(accuracies) > 1 else None
    row["accuracies"] = accuracies
    costs = [result["costs"] for result in results]
    row |= {name: statistics.mean(cost[name] for cost in costs) for name in ("binary_macs", "macs")}
    row["weight_bytes"] = statistics.mean(cost["weight_bits"] / 8 for cost in costs)
    sizes = [result["bytes"] for result in results if "bytes" in result]
    row["flatbuffer_bytes"] = statistics.mean(sizes) if sizes else None
    return row


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as text, the most accurate first."""
    ordered = sorted(rows, key=lambda row: -row.get("accuracy", -1.0))
    shown = [name for name in _COLUMNS if any(row.get(name) is not None for row in ordered)]
    lines = [["architecture", *(_COLUMNS[name][0] for name in shown)]]
    for row in ordered:
        lines.append([str(row["architecture"]), *(_shown(name, row.get(name)) for name in shown)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _shown(name: str, value: Any) -> str:
    return "" if value is None else _COLUMNS[name][1](value)
