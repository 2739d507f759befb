"""What every operation of a space takes on a device; and from it, what a network takes."""

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from larq_nas.cost.structure import Structure
from larq_nas.deploy.parity import Kernel
from larq_nas.errors import InputError
from larq_nas.latency.estimate import Estimate
from larq_nas.latency.figures import Check, Measured, Prediction, Timing
from larq_nas.latency.signature import Signature, parse, predicted
from larq_nas.spaces import Space

__all__ = ["LatencyTable"]


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
        from larq_nas.latency.records import write_table

        write_table(self, path)

    @classmethod
    def load(cls, path: str | Path) -> "LatencyTable":
        """Read a table from `path`.

        # Raises
            InputError: if the file is missing, cut short, no latency table, or holds what
                cannot have been measured.
        """
        from larq_nas.latency.records import read_table

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
