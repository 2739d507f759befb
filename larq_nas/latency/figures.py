"""The figures that a latency table holds and gives."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from larq_nas.choices import Value

__all__ = ["Check", "Measured", "Prediction", "Timing"]


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
