"""Limits a network must keep to, with units."""

import math
import numbers
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from larq_nas.errors import InputError, unknown_name

__all__ = ["BUDGETS", "Budget", "amount"]

BUDGETS = {
    "max_memory": "weight_bits",
    "max_flatbuffer": "flatbuffer_bytes",
    "max_activation_memory": "activation_bytes",
    "max_macs": "macs",
    "max_binary_macs": "binary_macs",
    "max_parameters": "parameters",
    "max_latency": "latency",
}
"""The quantity that each limit is about."""

_UNITS = {"max_memory": 8}
_BYTES = ("max_memory", "max_flatbuffer", "max_activation_memory")
_SECONDS = {"us": 1, "ms": 10**3, "s": 10**6}
_DECIMAL = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30}
_NUMBER = re.compile(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([kKmMgG]?)(i?)([bB]?)\s*")
# A prediction of the file may be off by this much; a network must keep to its limit even so.
_SHARE_OFF, _BYTES_OFF = 0.01, 512


def amount(name: str, value: float | str) -> int:
    """Return a limit as a whole number: bytes, a count, or microseconds.

    # Arguments
        name: name of the limit, such as `"max_memory"`.
        value: a number, or text such as `"64KB"` (1,000 bytes each), `"64KiB"` (1,024) or
            `"1.5M"`; for `"max_latency"` such as `"5ms"` or `"800us"`.

    # Raises
        InputError: if it is none of these, or not above 0.
    """
    if name == "max_latency":
        return _microseconds(value)
    number = _parse(value, name in _BYTES)
    if number is None or not 1 <= number < 1e18:
        forms = '"64KB", "48KiB" or "1.5M"' if name in _BYTES else '"1.5M" or "300K"'
        unit = "bytes" if name in _BYTES else "operations or weights"
        raise InputError(
            f"`{name}` must be a number of {unit}, 1 or more, or text like {forms}, but got "
            f"{value!r}."
        )
    return int(number)


def _microseconds(value: object) -> int:
    match = re.fullmatch(r"\s*([0-9.]+)\s*(us|ms|s)\s*", value) if isinstance(value, str) else None
    try:
        number = float(match[1]) * _SECONDS[match[2]] if match else value
    except ValueError:
        number = None
    whole = isinstance(number, float) or (isinstance(number, int) and not isinstance(number, bool))
    if not whole or not 1 <= number < 1e18:  # type: ignore[operator]
        raise InputError(
            '`max_latency` must be text like "5ms" or "800us", or a number of microseconds, 1 or '
            f"more, but got {value!r}."
        )
    return int(number)  # type: ignore[call-overload]


def _parse(value: object, in_bytes: bool) -> float | None:
    if isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_):
        try:
            return float(value)
        except OverflowError:
            return None
    match = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    digits, prefix, binary, byte = match.groups()
    if ((binary or byte) and not in_bytes) or (binary and not prefix):
        return None
    try:
        return float(digits) * (_BINARY if binary else _DECIMAL)[prefix.upper()]
    except ValueError:
        return None


@dataclass(frozen=True)
class Budget:
    """What a network may cost at most.

    # Arguments
        limits: bytes, counts or microseconds by the name of the limit; see `BUDGETS`.
    """

    limits: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, limit in self.limits.items():
            if name not in BUDGETS:
                raise unknown_name("budget", name, BUDGETS)
            amount(name, limit)

    @classmethod
    def parse(cls, limits: Mapping[str, float | str | None]) -> "Budget":
        """Return the budget of those limits that are given, with units or without."""
        given = {name: value for name, value in limits.items() if value is not None}
        return cls({k: amount(k, v) if k in BUDGETS else 1 for k, v in given.items()})

    def __bool__(self) -> bool:
        return bool(self.limits)

    def use(self, costs: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a network uses of each limit, as a share of it; above 1 is too much.

        # Arguments
            costs: the network's costs by quantity: numbers, arrays or tensors.
        """
        return {name: charged(name, costs) / limit for name, limit in self.limits.items()}

    def excess(self, costs: Mapping[str, Any]) -> float:
        """Return by which share a network is over its limits, in sum; 0 if it keeps to them."""
        return float(sum(max(0.0, float(used) - 1) for used in self.use(costs).values()))

    def report(self, costs: Mapping[str, Any]) -> str:
        """Return what a finished network uses of each limit, for a reader."""
        return ", ".join(
            f"{math.ceil(costs[BUDGETS[name]] / _UNITS.get(name, 1)):,} of {name}={limit:,}"
            + (" microseconds" if name == "max_latency" else "")
            for name, limit in self.limits.items()
        )

    def describe(self, costs: Mapping[str, Any]) -> str:
        """Return what a network needs of each limit it exceeds, for a reader."""
        over = [name for name, used in self.use(costs).items() if float(used) > 1]
        return ", ".join(
            f"{required(name, costs):,} of {name}={self.limits[name]:,}" for name in over
        )


def charged(name: str, costs: Mapping[str, Any]) -> Any:
    """Return what counts against a limit, in its unit."""
    cost = costs[BUDGETS[name]] / _UNITS.get(name, 1)
    if name == "max_flatbuffer":
        return cost + _BYTES_OFF + cost * _SHARE_OFF
    return cost


def required(name: str, costs: Mapping[str, Any]) -> int:
    """Return the smallest limit that a network keeps to."""
    return math.ceil(float(charged(name, costs)))
