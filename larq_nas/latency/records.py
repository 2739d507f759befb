"""Latency tables as JSON: written whole or not at all, and refused if anything is off."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from larq_nas.deploy.parity import KERNELS
from larq_nas.errors import InputError
from larq_nas.files import write_atomically
from larq_nas.latency.figures import Check, Measured, Timing
from larq_nas.latency.signature import parse
from larq_nas.latency.table import LatencyTable

__all__ = ["read_table", "write_table"]

_SCHEMA = 1
_KEYS = {
    "schema": int,
    "device": str,
    "kernel": str,
    "threads": int,
    "engine": str,
    "space": str,
    "settings": dict,
    "input_shape": list,
    "classes": int,
    "seed": int,
    "operations": dict,
    "networks": list,
    "checks": list,
    "left": int,
}


def write_table(table: LatencyTable, path: str | Path) -> None:
    """Write `table` to `path` as JSON."""
    record = {
        "schema": _SCHEMA,
        **{name: getattr(table, name) for name in list(_KEYS)[1:]},
        "operations": {
            text: {
                "microseconds": timing.microseconds,
                "spread": timing.spread,
                "measurements": timing.measurements,
                "times": list(timing.times),
            }
            for text, timing in sorted(table.operations.items())
        },
        "networks": [dataclasses.asdict(network) for network in table.networks],
        "checks": [dataclasses.asdict(check) for check in table.checks],
    }
    try:
        write_atomically(path, json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise InputError(f"Cannot write `{path}`: {error.strerror}.") from None


def read_table(path: str | Path) -> LatencyTable:
    """Read a table from `path`.

    # Raises
        InputError: if the file is missing, cut short, no latency table, written by another
            version of larq_nas, or holds what cannot have been measured.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise InputError(f"Cannot read latency table `{path}`: {reason}.") from None
    try:
        record = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(
            f"Latency table `{path}` is cut short or not JSON ({error}); restore it from a copy "
            "or build it again."
        ) from None
    try:
        return _table(record)
    except InputError as error:
        raise InputError(f"`{path}` cannot be used as a latency table: {error}") from None


def _table(record: Any) -> LatencyTable:
    if not isinstance(record, dict) or not {"schema", "operations", "device"} <= record.keys():
        raise InputError("it is something else; build one with larq_nas.latency.build_table.")
    if record["schema"] != _SCHEMA:
        raise InputError(
            f"its schema must be {_SCHEMA}, but is {record['schema']!r}; build it again, or use "
            "the larq_nas that wrote it."
        )
    _require_keys(record)
    if record["kernel"] not in KERNELS:
        raise InputError(f"kernel must be one of {', '.join(KERNELS)}, got {record['kernel']!r}.")
    if len(record["input_shape"]) != 3 or not record["operations"]:
        raise InputError("it must hold the three numbers of the images' shape, and operations.")
    for number in (*record["input_shape"], record["threads"], record["classes"]):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise InputError(f"sizes must be whole numbers above 0, but one is {number!r}.")
    fields = {name: record[name] for name in list(_KEYS)[1:]}
    return LatencyTable(
        **{
            **fields,
            "input_shape": tuple(record["input_shape"]),
            "operations": {text: _timing(text, row) for text, row in record["operations"].items()},
            "networks": [_row(Measured, row) for row in record["networks"]],
            "checks": [_row(Check, row) for row in record["checks"]],
        }
    )


def _require_keys(record: Mapping[str, Any]) -> None:
    if record.keys() != _KEYS.keys():
        odd = ", ".join(sorted(record.keys() ^ _KEYS.keys()))
        raise InputError(f"these entries are missing or unknown: {odd}.")
    for name, kind in _KEYS.items():
        value = record[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(f"`{name}` must be of type {kind.__name__}, but got {value!r:.40}.")


def _timing(text: str, row: Any) -> Timing:
    parse(text)
    times = row.get("times") if isinstance(row, dict) else None
    if not isinstance(times, list) or not times:
        raise InputError(f"operation `{text}` must have `times`, but got {row!r:.40}.")
    for time in times:
        _require_time(f"a time of `{text}`", time)
    timing = Timing(tuple(float(time) for time in times))
    said = row.get("microseconds")
    if said != timing.microseconds:
        raise InputError(
            f"`microseconds` of `{text}` must be the median of its times, "
            f"{timing.microseconds}, but is {said!r}."
        )
    return timing


def _row(kind: type, row: Any) -> Any:
    names = {entry.name for entry in dataclasses.fields(kind)}
    if not isinstance(row, dict) or row.keys() != names or not isinstance(row["choices"], dict):
        raise InputError(f"a network must hold {', '.join(sorted(names))}, but got {row!r:.40}.")
    for name in names - {"choices"}:
        _require_time(f"`{name}` of a network", row[name], least=name == "estimated")
    return kind(**row)


def _require_time(what: str, value: Any, least: bool = False) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0 or (value == 0 and not least):
        raise InputError(f"{what} must be a positive number, but got {value!r}.")
