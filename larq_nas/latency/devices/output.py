"""Reads what the benchmark program of TensorFlow Lite prints, and so that of Larq."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from larq_nas.latency.latency import OperationLatency

__all__ = ["Timing", "ignored_flags", "read_operations", "read_timing", "what_failed"]

_NUMBER = r"\d+(?:\.\d*)?(?:[eE][-+]?\d+)?"
_SUMMARY = re.compile(rf"inference timings in us:.*\bInference(?: \(avg\))?: ({_NUMBER})", re.I)
_COUNT = re.compile(rf"\bcount=({_NUMBER})\b")
_AVERAGE = re.compile(rf"\b(?:avg|curr)=({_NUMBER})")
_IGNORED = re.compile(r"Unconsumed cmdline flags:\s*(.*)")
_CLOSING = re.compile(r"benchmarking failed", re.I)
_SECTION = re.compile(r"={5,}\s*(.*?)\s*={5,}")
_COLUMN = re.compile(r"\[([^\]]+)\]")
_NODE = re.compile(r"^\[(.*)\](?::\d+)?$")


@dataclass(frozen=True)
class Timing:
    """What one run of the program says.

    # Arguments
        microseconds: mean time of an inference.
        runs: number of inferences it is the mean of.
    """

    microseconds: float
    runs: int


def read_timing(output: str) -> Timing | None:
    """Return the timing in `output`, or `None` if there is none.

    The program prints `count=...` for warming up and again for what it measures, then a line
    `Inference timings in us: ..., Inference (avg): ...`; older ones `Average inference timings`.
    With profiling, `Timings (microseconds): count=...` comes as well, for loading the model too.
    """
    lines = output.splitlines()
    summary = next((match for line in lines if (match := _SUMMARY.search(line))), None)
    counted = [line for line in lines if _AVERAGE.search(line) and _COUNT.search(line)]
    plain = [line for line in counted if "Timings (microseconds)" not in line]
    # Without the closing summary, a `count=` may be that of warming up.
    measured = (plain or counted) if summary else [line for line in counted if line not in plain]
    if not measured:
        return None
    runs = int(_first_number(_COUNT, measured[-1]))
    average = float(summary[1]) if summary else _average(measured[-1])
    return Timing(average, runs) if runs > 0 and average > 0 else None


def _average(line: str) -> float:
    # Where all times are equal, `curr` is the only one that is printed.
    average = re.search(rf"\bavg=({_NUMBER})", line)
    return float(average[1]) if average else _first_number(_AVERAGE, line)


def _first_number(pattern: re.Pattern[str], line: str) -> float:
    match = pattern.search(line)
    return float(match[1]) if match else 0.0


def read_operations(output: str) -> list[OperationLatency]:
    """Return the operations of the last table "Run Order" in `output`, in their order.

    The table before is that of loading the model. Columns are found by their titles, as
    versions of the program differ in which there are.
    """
    operations: list[OperationLatency] = []
    for title, lines in _sections(output):
        if title.lower() == "run order":
            operations = list(_rows(lines))
    return operations


def _sections(output: str) -> Iterator[tuple[str, list[str]]]:
    title = ""
    lines: list[str] = []
    for line in output.splitlines():
        if match := _SECTION.search(line):
            yield title, lines
            title, lines = match[1], []
        else:
            lines.append(line)
    yield title, lines


def _rows(lines: Sequence[str]) -> Iterator[OperationLatency]:
    columns: list[str] = []
    for line in lines:
        titles = [title.lower() for title in _COLUMN.findall(line)]
        if "avg ms" in titles and titles[0] == "node type":
            columns = titles
        elif columns and (row := _fields(line, columns)):
            kind, name = row["node type"], row.get("name", "")
            yield OperationLatency(kind, _tensor(name), 1000 * float(row["avg ms"]))


def _fields(line: str, columns: Sequence[str]) -> dict[str, str] | None:
    """Return the fields of a row by column, or `None` if `line` is something else."""
    named = columns[-1] == "name"
    numbers = len(columns) - 1 - named
    # What an operation is called may hold spaces; the numbers in the middle do not.
    row = re.match(
        rf"\s*(\S.*?)\s+((?:-?{_NUMBER}%?\s+){{{numbers}}})(.*)$" if named
        else rf"\s*(\S.*?)\s+((?:-?{_NUMBER}%?\s*){{{numbers}}})()$",
        line,
    )  # fmt: skip
    if row is None:
        return None
    return dict(zip(columns, [row[1], *row[2].split(), row[3].strip()], strict=False))


def _tensor(name: str) -> str:
    """Return the first output tensor in a name such as `[a, b]:3`."""
    match = _NODE.match(name)
    return match[1].split(", ")[0] if match else name


def what_failed(output: str) -> str:
    """Return the line of `output` that says why the program failed; empty if there is none.

    Errors that follow from the first come after it, and last that benchmarking failed.
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    lines = [line for line in lines if not _CLOSING.search(line)]
    errors = [line for line in lines if re.match(r"(ERROR|FATAL)\b", line, re.I)]
    chosen = errors[0] if errors else (lines[-1] if lines else "")
    return re.sub(r"^(ERROR|FATAL):\s*", "", chosen).rstrip(".")


def ignored_flags(output: str) -> str:
    """Return the flags that the program says it does not know."""
    return next((match[1] for line in output.splitlines() if (match := _IGNORED.search(line))), "")
