"""Latency tables: predict a network from its operations."""

import dataclasses
import hashlib
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls
from scipy.stats import kendalltau

from larq_nas.choices import Value
from larq_nas.cost.structure import Structure
from larq_nas.deploy.operations import KERNELS, Kernel
from larq_nas.errors import InputError
from larq_nas.files import write_atomically
from larq_nas.latency.signature import Signature, parse, predicted
from larq_nas.spaces import Space

__all__ = ["Check", "Estimate", "LatencyTable", "Measured", "Timing", "write_table"]


@dataclass(frozen=True)
class Timing:
    """What one operation takes.

    # Arguments
        times: microseconds of each time it was measured.
    """

    times: tuple[float, ...]

    @cached_property
    def microseconds(self) -> float:
        """Median of what was measured."""
        return statistics.median(self.times)

    @property
    def spread(self) -> float:
        """Distance between the quartiles as a share of the median."""
        first, third = np.percentile(self.times, (25, 75))
        return float(third - first) / self.microseconds

    @property
    def measurements(self) -> int:
        """How often it was measured."""
        return len(self.times)


@dataclass(frozen=True)
class Measured:
    """A network whose operations are in a table.

    # Arguments
        choices: its choices, as an `Architecture` holds them.
        microseconds: what it takes as a whole.
        operations: what its operations took together.
    """

    choices: Mapping[str, Value]
    microseconds: float
    operations: float


@dataclass(frozen=True)
class Check:
    """A network that a table has not seen, predicted and measured.

    # Arguments
        choices: its choices, as an `Architecture` holds them.
        predicted: microseconds as predicted.
        measured: microseconds as measured, as a whole.
        estimated: share of the prediction that stands on estimated operations.
    """

    choices: Mapping[str, Value]
    predicted: float
    measured: float
    estimated: float

    @property
    def error(self) -> float:
        """How far the prediction is off, as a share of what was measured."""
        return abs(self.predicted - self.measured) / self.measured


@dataclass(frozen=True)
class Prediction:
    """What networks will take; an array if the widths they were predicted for are arrays.

    # Arguments
        microseconds: time of one inference.
        estimated: share of it that stands on operations the table does not hold.
    """

    microseconds: Any
    estimated: Any


_ENOUGH = 3


class Estimate:
    """Time by work: a call, the bytes moved, and the steps computed each take their time.

    The three rates are fitted to what was measured of the operation's kind, or of all kinds
    where that is too little. They are not negative, and what counts is the relative error.

    # Arguments
        measured: microseconds of each operation that was measured.
    """

    def __init__(self, measured: Mapping[Signature, float]) -> None:
        self._measured = measured
        self._rates: dict[tuple[str, int], np.ndarray] = {}

    def __call__(self, signature: Signature) -> float:
        """Return about how many microseconds an operation takes."""
        return float(_work(signature) @ self._of(signature))

    def _of(self, signature: Signature) -> np.ndarray:
        taps = _taps(signature)
        key = signature.kind, taps
        if key not in self._rates:
            kind = [one for one in self._measured if one.kind == signature.kind]
            alike = [one for one in kind if _taps(one) == taps]
            groups = (alike, kind, list(self._measured))
            used = next((group for group in groups if len(group) >= _ENOUGH), groups[-1])
            times = np.array([self._measured[one] for one in used])
            work = np.array([_work(one) for one in used])
            self._rates[key] = nnls(work / times[:, np.newaxis], np.ones(len(times)))[0]
        return self._rates[key]


def _work(signature: Signature) -> np.ndarray:
    # In thousands and millions: about as much of each, which keeps the fit well conditioned.
    return np.array([1.0, signature.moved / 1e3, signature.steps / 1e6])


def _taps(signature: Signature) -> int:
    return signature.kernel[0] * signature.kernel[1] if signature.kernel else 1


@dataclass(frozen=True)
class LatencyTable:
    """What the operations of a space's networks take on one device.

    !!! example
        ```python
        table = larq_nas.latency.LatencyTable.load("pi4.json")
        costs = larq_nas.cost.SpaceCosts("vgg_small", (32, 32, 3), classes=10)
        table.predict(costs.structure({}), dict.fromkeys(costs.expansions, 64)).microseconds
        print(table)  # what it holds, and how well it predicts
        ```

    # Arguments
        device: what was measured on, as the measurement names it.
        kernel: the kernel of the binary convolutions.
        threads: number of threads.
        engine: version of Larq Compute Engine.
        space: name of the space.
        settings: the space's settings.
        input_shape: `(height, width, channels)` of the images, in pixels.
        classes: number of classes.
        seed: seed of the networks that were measured.
        operations: what each operation takes, by the text of its signature.
        networks: the networks it was measured on.
        checks: the networks it was checked with.
        left: how many operations of the sampled networks were not measured.
    """

    device: str
    kernel: Kernel
    threads: int
    engine: str
    space: str
    settings: Mapping[str, Any]
    input_shape: tuple[int, int, int]
    classes: int
    seed: int
    operations: Mapping[str, Timing]
    networks: Sequence[Measured] = ()
    checks: Sequence[Check] = ()
    left: int = 0
    _known: dict[str, tuple[float, bool]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def predict(self, structure: Structure, answers: Mapping[str, Any] | None = None) -> Prediction:
        """Return what a network takes: the sum over its operations, times `whole_by_sum`.

        # Arguments
            structure: the network, such as `SpaceCosts.structure` returns it.
            answers: the widths that were asked for, by name of the choice: whole numbers, or
                arrays of one element for each candidate. By default those of the structure.
        """
        total: Any = 0.0
        estimated: Any = 0.0
        for signature in predicted(structure, answers):
            time, guess = self._times(signature)
            total, estimated = total + time, estimated + guess
        return Prediction(self.whole_by_sum * total, estimated / np.maximum(total, 1e-9))

    def time(self, signature: Signature) -> tuple[float, bool]:
        """Return the microseconds of an operation, and whether they are estimated."""
        text = str(signature)
        if text not in self._known:
            timing = self.operations.get(text)
            self._known[text] = (
                (self._estimate(signature), True)
                if timing is None
                else (timing.microseconds, False)
            )
        return self._known[text]

    def _times(self, signature: Signature) -> tuple[Any, Any]:
        """Return what an operation takes, and what of that is estimated, for all its widths."""
        if not any(isinstance(width, np.ndarray) for width in signature.widths):
            time, guessed = self.time(signature)
            return time, time * guessed
        rows = np.stack(np.broadcast_arrays(*signature.widths), axis=1)
        different, places = np.unique(rows, axis=0, return_inverse=True)
        found = np.array([self.time(signature.at(row)) for row in different.tolist()])
        times = found[places.ravel()]
        return times[:, 0], times[:, 0] * times[:, 1]

    def require_for(self, space: Space, input_shape: tuple[int, int, int], classes: int) -> None:
        """Raise `InputError` if the table is of other networks than those of `space`."""
        own = {"space": self.space, "input_shape": self.input_shape, "classes": self.classes}
        asked = {"space": space.name, "input_shape": input_shape, "classes": classes}
        own |= {f"setting `{name}`": value for name, value in self.settings.items()}
        asked |= {f"setting `{name}`": value for name, value in space.settings().items()}
        for name in dict.fromkeys([*own, *asked]):
            if json.dumps(own.get(name)) != json.dumps(asked.get(name)):
                raise InputError(
                    f"The latency table is of other networks: its {name} is {own.get(name)!r}, but "
                    f"the search's is {asked.get(name)!r}; build one with larq-nas latency "
                    "--build-table."
                )

    def save(self, path: str | Path) -> None:
        """Write the table to `path` as JSON, whole or not at all."""
        pass

        write_table(self, path)

    @classmethod
    def load(cls, path: str | Path) -> "LatencyTable":
        """Read a table from `path`.

        # Raises
            InputError: if the file is missing, cut short, no latency table, or holds what
                cannot have been measured.
        """
        pass

        return read_table(path)

    @property
    def digest(self) -> str:
        """What tells the table from others: its device, and a hash of what it holds."""
        times = sorted((text, timing.times) for text, timing in self.operations.items())
        held = json.dumps([self.kernel, self.threads, times, self.whole_by_sum])
        return f"{self.device}, {hashlib.sha256(held.encode()).hexdigest()[:12]}"

    @cached_property
    def _estimate(self) -> Estimate:
        return Estimate({parse(text): row.microseconds for text, row in self.operations.items()})

    @cached_property
    def whole_by_sum(self) -> float:
        """What a whole network takes over the sum of its operations, measured one by one."""
        shares = [network.microseconds / network.operations for network in self.networks]
        return statistics.median(shares) if shares else 1.0

    @property
    def error(self) -> float:
        """Median relative error of the checked predictions; NaN if none was checked."""
        errors = [check.error for check in self.checks]
        return statistics.median(errors) if errors else float("nan")

    @property
    def kendall_tau(self) -> float:
        """How alike predictions and measurements rank the checked networks, 1 for the same."""
        if len(self.checks) < 2:
            return float("nan")
        both = zip(*((check.predicted, check.measured) for check in self.checks), strict=True)
        return float(kendalltau(*both).statistic)

    @property
    def _ranking(self) -> str:
        tau = self.kendall_tau
        if len(self.checks) < 5 or tau != tau:
            return "too few to say how well it ranks"
        return f"Kendall tau {tau:.2f}"

    def __str__(self) -> str:
        height, width, channels = self.input_shape
        lines = [
            f"Latency of space {self.space} for {height}x{width}x{channels} images on "
            f"{self.device}: {self.kernel} kernel, threads: {self.threads}, Larq Compute Engine "
            f"{self.engine}",
            f"{len(self.operations)} operations, from {len(self.networks)} networks; "
            f"{self.left} more that networks of the space have are estimated",
            f"A network takes {self.whole_by_sum:.3f} times the sum of its operations",
        ]
        if not self.checks:
            return "\n".join([*lines, "Not checked against networks that it has not seen"])
        estimated = statistics.fmean(check.estimated for check in self.checks)
        checked = (
            f"Checked on {len(self.checks)} networks that it has not seen: median error "
            f"{self.error:.1%}, largest {max(check.error for check in self.checks):.1%}, "
            f"{self._ranking}; {estimated:.1%} of their time is estimated"
        )
        return "\n".join([*lines, checked])


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
