"""Build a latency table: measure a few networks, and check it on others."""

import dataclasses
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.choices import Value
from larq_nas.cost.space import SpaceCosts
from larq_nas.deploy.export import export
from larq_nas.deploy.operations import KERNELS, Kernel
from larq_nas.errors import InputError, require_whole, unknown_name
from larq_nas.latency.latency import Latency
from larq_nas.latency.signature import predicted, timed_operations
from larq_nas.latency.table import Check, LatencyTable, Measured, Timing
from larq_nas.spaces import SpaceLike

__all__ = [
    "Measure",
    "Plan",
    "build_table",
    "draw",
    "plan",
    "randomize",
]


_BATCH = 4


def randomize(model: tf.keras.Model, seed: int = 0) -> tf.keras.Model:
    """Give `model` random weights that leave no operation out, and return it.

    The converter drops a scale of 1 and an offset of 0, as fresh layers have them. Batch norms
    get the statistics of random images, so that the numbers stay as large as in a trained
    network.

    # Arguments
        model: a functional model, freshly built.
        seed: seed of the weights and the images.
    """
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(_values(generator, weight))
    norms = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, tf.keras.layers.BatchNormalization)
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    images = generator.standard_normal((_BATCH, *model.input_shape[1:]))
    model(tf.constant(images, tf.float32), training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model


def _values(generator: np.random.Generator, weight: tf.Variable) -> np.ndarray:
    shape = tuple(weight.shape)
    if len(shape) > 1:
        return generator.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[:-1])))
    return generator.uniform(0.5, 1.5, shape)


_SAMPLED, _EACH = 400, 5

Values = Mapping[str, Value]


@dataclass(frozen=True)
class Plan:
    """What to measure.

    # Arguments
        networks: the networks to measure operation by operation, in order.
        checks: networks to check predictions with, which could not be chosen to be measured; fewer
            than asked for if the space has no more.
        operations: the operations of all sampled networks, with how many of them have each.
    """

    networks: Sequence[Values]
    checks: Sequence[Values]
    operations: Mapping[str, int]


def plan(costs: SpaceCosts, networks: int, checks: int, seed: int) -> Plan:
    """Return which networks to measure.

    Of many random networks, each next one taken is that with the most that no network before
    it has, each operation counted by how many of the networks have it.

    # Arguments
        costs: the costs of the space.
        networks: number of networks to measure at most.
        checks: number of networks to check predictions with.
        seed: seed of the random networks.
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
        values = draw(costs, generator)
        if repr(values) not in seen:
            seen.add(repr(values))
            (sampled if len(seen) % _EACH else unseen).append(values)
        if len(sampled) >= _SAMPLED and len(unseen) >= checks:
            break
    return sampled[:_SAMPLED], unseen


def draw(costs: SpaceCosts, generator: random.Random) -> dict[str, Value]:
    """Return the choices of a random network."""
    chosen = {
        name: [
            (generator.choice(choice.eligible), index)
            for index in sorted(generator.sample(range(choice.inputs), len(choice.any())))
        ]
        for name, choice in costs.choices.items()
    }
    ratios = {name: generator.choice(asked.ratios) for name, asked in costs.expansions.items()}
    return costs.encode(chosen, ratios)


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
    for name, value in {"checks": checks, "seed": seed}.items():
        if value != 0:
            require_whole(**{name: value})
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
            self._require_same(self.table, settings)
        elif not path.parent.is_dir():
            raise InputError(f"`path` must be in a folder that exists, but got `{path}`.")

    def build(self, planned: Plan, tell: Callable[[str], None]) -> LatencyTable:
        """Measure what is planned and not there yet."""
        there = [] if self.table is None else [row.choices for row in self.table.networks]
        self._require_planned(there, planned.networks)
        for number, values in enumerate(planned.networks[len(there) :], len(there) + 1):
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
        flatbuffer = self._convert(values)
        latency = self._measured(flatbuffer, per_operation=True)
        rows = timed_operations(flatbuffer, latency)
        table = self.table or LatencyTable(**self.settings, **_device(latency), operations={})
        times = {text: timing.times for text, timing in table.operations.items()}
        for text, time in rows:
            times[text] = (*times.get(text, ()), time)
        measured = Measured(values, latency.microseconds, sum(time for _, time in rows))
        return self._written(
            dataclasses.replace(
                table,
                operations={text: Timing(row) for text, row in times.items()},
                networks=[*table.networks, measured],
                left=len(planned.operations.keys() - times.keys()),
            )
        )

    def _checked(
        self, table: LatencyTable, planned: Sequence[Values], tell: Callable[[str], None]
    ) -> LatencyTable:
        """Measure networks that the table has not seen, predict them, and write it."""
        self._require_planned([check.choices for check in table.checks], planned)
        # What was measured stays; a table that has grown predicts anew.
        checks = [self._check(table, row.choices, row.measured) for row in table.checks]
        for number, values in enumerate(planned[len(checks) :], len(checks) + 1):
            latency = self._measured(self._convert(values), per_operation=False)
            checks.append(self._check(table, values, latency.microseconds))
            self._written(dataclasses.replace(table, checks=checks[:]))
            tell(
                f"check {number} of {len(planned)}: {latency.milliseconds:.3f} ms, predicted "
                f"{checks[-1].predicted / 1000:.3f} ms"
            )
        return self._written(dataclasses.replace(table, checks=checks))

    def _check(self, table: LatencyTable, values: Values, measured: float) -> Check:
        found = table.predict(*self.costs.network(values))
        return Check(values, float(found.microseconds), measured, float(found.estimated))

    def _measured(self, flatbuffer: bytes, per_operation: bool) -> Latency:
        kernel = self.settings["kernel"]
        latency = self.measure(flatbuffer, kernel=kernel, per_operation=per_operation)
        if self.table is not None:
            self._require_same(self.table, _device(latency))
        return latency

    def _convert(self, values: Values) -> bytes:
        space = self.costs.space
        architecture = Architecture(space.name, space.settings(), values)
        input_shape, classes = self.settings["input_shape"], self.settings["classes"]
        return export(randomize(architecture.build(input_shape, classes, space)))

    def _written(self, table: LatencyTable) -> LatencyTable:
        table.save(self.path)
        self.table = table
        return table

    def _require_same(self, table: LatencyTable, settings: Mapping[str, Any]) -> None:
        for name, value in settings.items():
            if getattr(table, name) != value:
                raise InputError(
                    f"`{self.path}` is a table of other settings: its {name} is "
                    f"{getattr(table, name)!r}, not {value!r}; give another path, or the same "
                    "settings."
                )

    def _require_planned(self, there: Sequence[Values], planned: Sequence[Values]) -> None:
        if any(one != other for one, other in zip(there, planned, strict=False)):
            raise InputError(
                f"`{self.path}` holds other networks than these settings give: it was made by "
                "another version of larq_nas; give another path."
            )


def _device(latency: Latency) -> dict[str, Any]:
    return {"device": latency.device, "threads": latency.threads, "engine": latency.engine}
