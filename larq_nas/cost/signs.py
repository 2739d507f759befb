"""Signs that were written by hand, as straight-through estimators often are."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from larq_nas.cost.facts import Facts
from larq_nas.cost.graph import Call, call_layer, prune
from larq_nas.cost.kinds import is_own
from larq_nas.cost.quantizers import sign_of_zero

__all__ = ["merge_signs"]

_COMPARISONS = ("sign", "where", "greater", "less", "cast", "select", "round", "floor", "step")
_KINDS = ("unknown", "add", "arithmetic", "scale", "offset", "activation", "relu", "pass")
_LONGEST = 16


def merge_signs(calls: Sequence[Call]) -> list[Call]:
    """Return `calls` with those that together are the sign of one tensor as one call.

    As `x + tf.stop_gradient(tf.where(x >= 0, 1.0, -1.0) - x)`: whether it is a sign is found by
    computing it, on numbers of the shape it reads.
    """
    merged = list(calls)
    for index, call in enumerate(merged):
        if not _may_be(call):
            continue
        found = _sign_of(merged, index)
        if found is not None:
            source, function, zero = found
            facts = Facts("sign", same=f"sign, {zero} at 0", sign_of_zero=zero)
            merged[index] = dataclasses.replace(
                call, inputs=(source,), facts=facts, function=function
            )
    numbers = {number: index for index, call in enumerate(merged) for number in call.outputs}
    return prune(merged, [numbers[number] for number in sorted(numbers)])


def _may_be(call: Call) -> bool:
    """Return whether a call is a function that may be, or end, a sign."""
    own = hasattr(call.layer, "symbol") or is_own(call.layer)
    return own and _is_function(call) and call.facts.kind not in ("pass", "sign")


def _sign_of(calls: Sequence[Call], end: int) -> tuple[int, Callable[..., tf.Tensor], int] | None:
    """Return what call `end` and those before it are the sign of, how, and that of 0."""
    members = {end}
    while len(members) <= _LONGEST:
        sources = sorted({read for i in members for read in calls[i].inputs} - members)
        if len(sources) == 1 and any(_compares(calls[i]) for i in members):
            (source,) = sources
            function = _Function(calls, sorted(members), source)
            same = calls[source].shape == calls[end].shape
            zero = sign_of_zero(function, calls[source].shape) if same else None
            if zero:
                return source, function, zero
        before = [i for i in sources if _is_function(calls[i])]
        if not before:
            return None
        members.add(before[-1])
    return None


def _is_function(call: Call) -> bool:
    return bool(call.inputs) and call.facts.kind in (*_KINDS, "sign") and not call.layer.weights


def _compares(call: Call) -> bool:
    """Return whether a call may tell positive numbers from others."""
    symbol = str(getattr(call.layer, "symbol", ""))
    return not symbol or any(name in symbol for name in _COMPARISONS)


class _Function:
    """Several calls as a function of the one tensor they read."""

    def __init__(self, calls: Sequence[Call], members: Sequence[int], source: int) -> None:
        self._calls = [(index, calls[index]) for index in members]
        self._source = source

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        values: dict[int, Any] = {self._source: x}
        for index, call in self._calls:
            values[index] = call_layer(call, [values[i] for i in call.inputs])[call.position]
        return values[self._calls[-1][0]]
