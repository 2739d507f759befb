"""Latency tables: the latency of a network from measured latencies of its operations."""

import dataclasses
import hashlib
import json
import math
import random
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_origin, get_type_hints

import numpy as np
import tensorflow as tf
from scipy.optimize import nnls
from scipy.stats import kendalltau

from larq_nas.architecture import Architecture
from larq_nas.choices import Value
from larq_nas.cost.profile import Structure
from larq_nas.cost.space import SpaceCosts
from larq_nas.deploy.export import export
from larq_nas.deploy.operations import KERNELS, Kernel
from larq_nas.errors import InputError, require_count, require_whole, unknown_name
from larq_nas.files import write_atomically
from larq_nas.latency.latency import Latency
from larq_nas.latency.signature import Signature, parse, predicted, timed_operations
from larq_nas.spaces import Space, SpaceLike

Values = Mapping[str, Value]


@dataclass(frozen=True)
class Timing:
    """What one operation takes: microseconds of each time it was measured."""

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


@dataclass(frozen=True)
class Measured:
    """A network whose operations are in a table: what it takes as a whole, and what they took."""

    choices: Values
    microseconds: float
    operations: float


@dataclass(frozen=True)
class Check:
    """A network that a table has not seen, in microseconds as predicted and as measured.

    `estimated` is the share of the prediction that stands on estimated operations.
    """

    choices: Values
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

    `estimated` is the share of it that stands on operations the table does not hold.
    """

    microseconds: Any
    estimated: Any


_ENOUGH = 3


class Estimate:
    """Time by work: a call, the bytes moved, and the steps computed each take their time.

    The three rates are fitted to what was measured of the operation's kind, or of all kinds
    where that is too little. They are not negative, and what counts is the relative error.
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
            time = self._estimate(signature) if timing is None else timing.microseconds
            self._known[text] = time, timing is None
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
        record = {"schema": _SCHEMA, **dataclasses.asdict(self)}
        record["operations"] = {
            text: {
                "microseconds": timing.microseconds,
                "spread": timing.spread,
                "measurements": len(timing.times),
                "times": list(timing.times),
            }
            for text, timing in sorted(self.operations.items())
        }
        try:
            write_atomically(path, json.dumps(record, indent=1) + "\n")
        except OSError as error:
            raise InputError(f"Cannot write `{path}`: {error.strerror}.") from None

    @classmethod
    def load(cls, path: str | Path) -> "LatencyTable":
        """Read a table from `path`.

        # Raises
            InputError: if the file is missing, cut short, no latency table, written by another
                version of larq_nas, or holds what cannot have been measured.
        """
        try:
            record = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise InputError(f"Cannot read latency table `{path}`: {reason}.") from None
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(
                f"Latency table `{path}` is cut short or not JSON ({error}); restore it from a "
                "copy or build it again."
            ) from None
        try:
            return _table(record)
        except InputError as error:
            raise InputError(f"`{path}` cannot be used as a latency table: {error}") from None

    @property
    def digest(self) -> str:
        """What tells the table from others: its device, and a hash of what it holds."""
        times = sorted((text, timing.times) for text, timing in self.operations.items())
        held = json.dumps([self.kernel, self.threads, times, self.whole_by_sum])
        return f"{self.device}, {hashlib.sha256(held.encode()).hexdigest()[:12]}"

    @cached_property
    def _known(self) -> dict[str, tuple[float, bool]]:
        return {}

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
        ranking = "too few to say how well it ranks"
        if len(self.checks) >= 5 and not math.isnan(self.kendall_tau):
            ranking = f"Kendall tau {self.kendall_tau:.2f}"
        checked = (
            f"Checked on {len(self.checks)} networks that it has not seen: median error "
            f"{self.error:.1%}, largest {max(check.error for check in self.checks):.1%}, "
            f"{ranking}; {estimated:.1%} of their time is estimated"
        )
        return "\n".join([*lines, checked])


_SCHEMA = 1
# What JSON makes of the types of a table's fields.
_KINDS = {Literal: str, Mapping: dict, Sequence: list, tuple: list}
_KEYS: dict[str, type] = {"schema": int} | {
    name: _KINDS.get(get_origin(kind), kind) for name, kind in get_type_hints(LatencyTable).items()
}


def _table(record: Any) -> LatencyTable:
    if not isinstance(record, dict) or not {"schema", "operations", "device"} <= record.keys():
        raise InputError("it is something else; build one with larq_nas.latency.build_table.")
    if record["schema"] != _SCHEMA:
        raise InputError(
            f"its schema must be {_SCHEMA}, but is {record['schema']!r}; build it again, or use "
            "the larq_nas that wrote it."
        )
    if record.keys() != _KEYS.keys():
        odd = ", ".join(sorted(record.keys() ^ _KEYS.keys()))
        raise InputError(f"these entries are missing or unknown: {odd}.")
    for name, kind in _KEYS.items():
        value = record[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(f"`{name}` must be of type {kind.__name__}, but got {value!r:.40}.")
    if record["kernel"] not in KERNELS:
        raise InputError(f"kernel must be one of {', '.join(KERNELS)}, got {record['kernel']!r}.")
    if len(record["input_shape"]) != 3 or not record["operations"]:
        raise InputError("it must hold the three numbers of the images' shape, and operations.")
    for number in (*record["input_shape"], record["threads"], record["classes"]):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise InputError(f"sizes must be whole numbers above 0, but one is {number!r}.")
    fields = {
        **record,
        "input_shape": tuple(record["input_shape"]),
        "operations": {text: _timing(text, row) for text, row in record["operations"].items()},
        "networks": [_row(Measured, row) for row in record["networks"]],
        "checks": [_row(Check, row) for row in record["checks"]],
    }
    del fields["schema"]
    return LatencyTable(**fields)


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


_BATCH = 4


def randomize(model: tf.keras.Model, seed: int = 0) -> tf.keras.Model:
    """Give `model` random weights that leave no operation out, and return it.

    The converter drops a scale of 1 and an offset of 0, as fresh layers have them. Batch norms
    get the statistics of random images, so that the numbers stay as large as in a trained
    network.
    """
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        shape = tuple(weight.shape)
        if len(shape) > 1:
            inputs = max(1, np.prod(shape[:-1]))
            weight.assign(generator.standard_normal(shape) / np.sqrt(inputs))
        else:
            weight.assign(generator.uniform(0.5, 1.5, shape))
    layers = model._flatten_layers()
    norms = [x for x in layers if isinstance(x, tf.keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    images = generator.standard_normal((_BATCH, *model.input_shape[1:]))
    model(tf.constant(images, tf.float32), training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model


_SAMPLED, _EACH = 400, 5


@dataclass(frozen=True)
class Plan:
    """What to measure: networks operation by operation, and others, to check predictions with.

    `operations` are those of all sampled networks, with how many of them have each.
    """

    networks: Sequence[Values]
    checks: Sequence[Values]
    operations: Mapping[str, int]


def plan(costs: SpaceCosts, networks: int, checks: int, seed: int) -> Plan:
    """Return which networks to measure, at most so many, and to check predictions with.

    Of many random networks, each next one taken is that with the most that no network before
    it has, each operation counted by how many of the networks have it.
    """
    sampled, unseen = _sample(costs, checks, random.Random(seed))
    held = [operations_of(costs, values) for values in sampled]
    weights = Counter(operation for operations in held for operation in operations)
    left = set(weights)
    taken: list[Values] = []
    while left and len(taken) < networks:
        gains = [sum(weights[operation] for operation in found & left) for found in held]
        best = max(range(len(held)), key=gains.__getitem__)
        taken.append(sampled[best])
        left -= held[best]
    return Plan(taken, unseen[:checks], weights)


def operations_of(costs: SpaceCosts, values: Values) -> set[str]:
    """Return the operations that a network is predicted to have."""
    return {str(signature) for signature in predicted(*costs.network(values))}


def _sample(
    costs: SpaceCosts, checks: int, generator: random.Random
) -> tuple[list[Values], list[Values]]:
    """Return random networks that differ: those to choose from, and those to check with.

    Each fifth is to check with, so that asking for more of either changes none of the others.
    """
    seen: set[str] = set()
    sampled: list[Values] = []
    unseen: list[Values] = []
    for _ in range(10 * (_SAMPLED + _EACH * checks)):
        chosen = {
            name: [
                (generator.choice(choice.eligible), index)
                for index in sorted(generator.sample(range(choice.inputs), len(choice.any())))
            ]
            for name, choice in costs.choices.items()
        }
        ratios = {name: generator.choice(asked.ratios) for name, asked in costs.expansions.items()}
        values = costs.encode(chosen, ratios)
        # Of rows of blocks many values are one network.
        if (network := costs.identity(values)) not in seen:
            seen.add(network)
            (sampled if len(seen) % _EACH else unseen).append(values)
        if len(sampled) >= _SAMPLED and len(unseen) >= checks:
            break
    return sampled[:_SAMPLED], unseen


Measure = Callable[..., Latency]
"""Measures a flatbuffer: called as `measure(flatbuffer, kernel=..., per_operation=...)`."""


def build_table(
    space: SpaceLike,
    measure: Measure,
    *,
    path: str | Path,
    input_shape: tuple[int, int, int],
    classes: int,
    kernel: Kernel = "default",
    networks: int = 24,
    checks: int = 20,
    seed: int = 0,
    on_progress: Callable[[str], None] | None = None,
) -> LatencyTable:
    """Measure what the operations of a space's networks take.

    Random networks of the space tell which operations there are. A few of them that hold as
    many of these as possible are converted, with random weights, and measured operation by
    operation; then others that were not seen are measured as a whole and predicted. The table
    is written after each network, and the same call goes on with a table that is not whole.

    !!! example
        ```python
        table = larq_nas.latency.build_table(
            "vgg_small",
            larq_nas.latency.measure,
            path="here.json",
            input_shape=(32, 32, 3),
            classes=10,
            kernel="indirect",
        )
        ```

    # Arguments
        space: name of a search space, a `larq_nas.spaces.Space`, or a function of your own.
        measure: measures a flatbuffer, as `larq_nas.latency.measure` does; with
            `per_operation`, each operation in the order they run.
        path: the table's file.
        input_shape: `(height, width, channels)` of the images, in pixels.
        classes: number of classes.
        kernel: the kernel of the binary convolutions.
        networks: number of networks to measure operation by operation, at most.
        checks: number of networks to check predictions with, fewer if the space is too small.
        seed: seed of the networks.
        on_progress: called with a line for each network.

    # Returns
        The table; `str` of it says what it holds, and how well it predicts.

    # Raises
        InputError: if an argument cannot be used, `path` holds a table of other settings, or
            `measure` does not time each operation.
    """
    require_whole(networks=networks, classes=classes)
    require_count(checks=checks, seed=seed)
    if kernel not in KERNELS:
        raise unknown_name("kernel", kernel, KERNELS)
    costs = SpaceCosts(space, input_shape, classes)
    settings = {
        "kernel": kernel,
        "space": costs.space.name,
        "settings": costs.space.settings(),
        "input_shape": tuple(input_shape),
        "classes": classes,
        "seed": seed,
    }
    builder = _Builder(costs, measure, Path(path), settings)
    return builder.build(plan(costs, networks, checks, seed), on_progress or (lambda line: None))


class _Builder:
    """Adds networks to a table, and writes it after each."""

    def __init__(
        self, costs: SpaceCosts, measure: Measure, path: Path, settings: Mapping[str, Any]
    ) -> None:
        self.costs, self.measure, self.path, self.settings = costs, measure, path, settings
        self.table: LatencyTable | None = None
        if path.exists():
            self.table = LatencyTable.load(path)
            self._require_same(settings)
        elif not path.parent.is_dir():
            raise InputError(f"`path` must be in a folder that exists, but got `{path}`.")

    def build(self, planned: Plan, tell: Callable[[str], None]) -> LatencyTable:
        """Measure what is planned and not there yet."""
        there = self._planned(self.table.networks if self.table else (), planned.networks)
        for number, values in enumerate(planned.networks[there:], there + 1):
            table = self._with_network(values, planned)
            tell(
                f"network {number} of {len(planned.networks)}: "
                f"{table.networks[-1].microseconds / 1000:.3f} ms; {table.left} of "
                f"{len(planned.operations)} operations left"
            )
        if self.table is None:
            raise InputError(f"Space `{self.costs.space.name}` has no operations to measure.")
        return self._checked(self.table, planned.checks, tell)

    def _with_network(self, values: Values, planned: Plan) -> LatencyTable:
        """Measure a network's operations, and write the table with them."""
        flatbuffer, latency = self._measured(values, per_operation=True)
        rows = timed_operations(flatbuffer, latency)
        table = self.table or LatencyTable(**self.settings, **_device(latency), operations={})
        times = {text: timing.times for text, timing in table.operations.items()}
        for text, time in rows:
            times[text] = (*times.get(text, ()), time)
        measured = Measured(values, latency.microseconds, sum(time for _, time in rows))
        return self._written(
            table,
            operations={text: Timing(row) for text, row in times.items()},
            networks=[*table.networks, measured],
            left=len(planned.operations.keys() - times.keys()),
        )

    def _checked(
        self, table: LatencyTable, planned: Sequence[Values], tell: Callable[[str], None]
    ) -> LatencyTable:
        """Measure networks that the table has not seen, predict them, and write it."""
        there = self._planned(table.checks, planned)
        # What was measured stays; a table that has grown predicts anew.
        checks = [self._check(table, row.choices, row.measured) for row in table.checks]
        for number, values in enumerate(planned[there:], there + 1):
            _, latency = self._measured(values, per_operation=False)
            checks.append(self._check(table, values, latency.microseconds))
            self._written(table, checks=checks[:])
            tell(
                f"check {number} of {len(planned)}: {latency.milliseconds:.3f} ms, predicted "
                f"{checks[-1].predicted / 1000:.3f} ms"
            )
        return self._written(table, checks=checks)

    def _check(self, table: LatencyTable, values: Values, measured: float) -> Check:
        found = table.predict(*self.costs.network(values))
        return Check(values, float(found.microseconds), measured, float(found.estimated))

    def _measured(self, values: Values, per_operation: bool) -> tuple[bytes, Latency]:
        space, settings = self.costs.space, self.settings
        architecture = Architecture(space.name, space.settings(), values)
        model = architecture.build(settings["input_shape"], settings["classes"], space)
        flatbuffer = export(randomize(model))
        latency = self.measure(flatbuffer, kernel=settings["kernel"], per_operation=per_operation)
        self._require_same(_device(latency))
        return flatbuffer, latency

    def _written(self, table: LatencyTable, **changes: Any) -> LatencyTable:
        self.table = dataclasses.replace(table, **changes)
        self.table.save(self.path)
        return self.table

    def _require_same(self, settings: Mapping[str, Any]) -> None:
        for name, value in settings.items() if self.table else ():
            if getattr(self.table, name) != value:
                raise InputError(
                    f"`{self.path}` is a table of other settings: its {name} is "
                    f"{getattr(self.table, name)!r}, not {value!r}; give another path, or the same "
                    "settings."
                )

    def _planned(self, there: Sequence[Measured | Check], planned: Sequence[Values]) -> int:
        """Return how many of the planned networks are there, or refuse others."""
        if any(row.choices != values for row, values in zip(there, planned, strict=False)):
            raise InputError(
                f"`{self.path}` holds other networks than these settings give: it was made by "
                "another version of larq_nas; give another path."
            )
        return len(there)


def _device(latency: Latency) -> dict[str, Any]:
    return {"device": latency.device, "threads": latency.threads, "engine": latency.engine}
