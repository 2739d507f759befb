"""Which layers of a network must be as wide as each other, and which cannot change."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import tensorflow as tf

from larq_nas.cost.graph import Call
from larq_nas.expansion import expand
from larq_nas.spaces.rebuild import keeps_any_width

__all__ = ["OUTPUTS", "Group", "read_groups"]

OUTPUTS = "it gives the outputs"

_OWN_WIDTH = ("conv", "dense", "separable", "transposed")
_PASSING = (
    "activation",
    "average_pool",
    "composite",
    "crop",
    "global_average_pool",
    "global_max_pool",
    "max_pool",
    "norm",
    "offset",
    "pad",
    "pass",
    "prelu",
    "relu",
    "resize",
    "scale",
    "sign",
)
_MERGING = ("add", "arithmetic", "average")

Parts: TypeAlias = list[tuple[int, int]]
"""The channels of a tensor, side by side: a width by its number, and how many times it."""


@dataclass(frozen=True)
class Group:
    """Layers that must be as wide as each other.

    # Arguments
        calls: the first call of each layer that sets this width.
        filters: the width they have.
        fixed: why it cannot change; empty if it can.
    """

    calls: tuple[Call, ...]
    filters: int
    fixed: str

    @property
    def name(self) -> str:
        return self.calls[0].name.replace("/", "_")

    @property
    def quantized(self) -> list[str]:
        """Names of the layers with a quantized kernel."""
        return [call.name for call in self.calls if _is_quantized(call.layer)]


def read_groups(calls: Sequence[Call], ratios: Sequence[float]) -> list[Group]:
    """Return the groups of layers that set a width, in the order of their first layers.

    # Arguments
        calls: the network, from `larq_nas.cost.graph.read_graph`.
        ratios: by which widths are to change; groups of channels must divide them all.
    """
    reader = _Reader(calls)
    reader.read()
    return reader.groups(ratios)


class _Widths:
    """Numbered widths, some tied to each other, some fixed for a reason."""

    def __init__(self) -> None:
        self.filters: list[int] = []
        self.reasons: list[str] = []
        self._parents: list[int] = []

    def add(self, filters: int, fixed: str = "") -> int:
        self.filters.append(filters)
        self.reasons.append(fixed)
        self._parents.append(len(self._parents))
        return len(self._parents) - 1

    def root(self, number: int) -> int:
        while self._parents[number] != number:
            number = self._parents[number]
        return number

    def tie(self, one: int, other: int) -> None:
        first, second = sorted((self.root(one), self.root(other)))
        self._parents[second] = first
        self.reasons[first] = self.reasons[first] or self.reasons[second]

    def fix(self, parts: Parts, reason: str) -> None:
        for number, _ in parts:
            root = self.root(number)
            self.reasons[root] = self.reasons[root] or reason


class _Reader:
    """Follows the channels of each tensor through a network."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = calls
        self._widths = _Widths()
        self._parts: list[Parts] = []
        self._set_by: dict[int, tuple[int, Call]] = {}
        self._divided: list[tuple[Call, Parts]] = []

    def read(self) -> None:
        for call in self._calls:
            parts = self._read(call)
            if sum(self._widths.filters[i] * times for i, times in parts) != call.shape[-1]:
                self._widths.fix(parts, f"`{call.name}` makes {call.shape[-1]} channels of it")
                parts = self._unknown(call, "")
            self._parts.append(parts)
            if call.output:
                self._widths.fix(parts, OUTPUTS)
        self._tie_inputs_of_shared_layers()

    def groups(self, ratios: Sequence[float]) -> list[Group]:
        self._fix_indivisible(ratios)
        members: dict[int, list[Call]] = {}
        for number, call in self._set_by.values():
            members.setdefault(self._widths.root(number), []).append(call)
        return [
            Group(tuple(calls), self._widths.filters[root], self._widths.reasons[root])
            for root, calls in members.items()
        ]

    def _read(self, call: Call) -> Parts:
        inputs, kind = [self._parts[index] for index in call.inputs], call.facts.kind
        if kind == "input":
            return self._new(call, call.shape[-1], "it is tied to the images")
        if kind in _OWN_WIDTH:
            return self._own_width(call, inputs[0])
        if kind in _MERGING and call.facts.constants <= 1:
            return self._merge(call, inputs)
        if kind == "concat":
            return self._concatenate(call, inputs)
        if kind == "depthwise":
            return [(number, times * call.facts.multiplier) for number, times in inputs[0]]
        if kind == "reshape" and (times := self._times(call)):
            return [(number, times * before) for number, before in inputs[0]]
        if kind in _PASSING and _is_plain(call.layer) and self._keeps_width(call):
            return inputs[0]
        if len(inputs) == 1 and self._keeps_any_width(call):
            return inputs[0]
        reason = f"`{call.name}`, a {type(call.layer).__name__}, may need the channels it has"
        for parts in inputs:
            self._widths.fix(parts, reason)
        return self._unknown(call, reason)

    def _keeps_any_width(self, call: Call) -> bool:
        shape = self._calls[call.inputs[0]].shape
        return not _is_quantized(call.layer) and keeps_any_width(call, shape)

    def _new(self, call: Call, filters: int, fixed: str = "") -> Parts:
        return [(self._widths.add(filters, fixed), 1)]

    def _unknown(self, call: Call, reason: str) -> Parts:
        parts = self._new(call, call.shape[-1], reason or f"`{call.name}` sets it")
        if _is_quantized(call.layer):
            self._set_by.setdefault(id(call.layer), (parts[0][0], call))
        return parts

    def _own_width(self, call: Call, read: Parts) -> Parts:
        if id(call.layer) not in self._set_by:
            number = self._widths.add(int(call.facts.filters or 0))
            self._set_by[id(call.layer)] = number, call
        parts = [(self._set_by[id(call.layer)][0], 1)]
        if call.facts.groups > 1:
            self._divided += [(call, read), (call, parts)]
        return parts

    def _merge(self, call: Call, inputs: list[Parts]) -> Parts:
        """Tie what is added; one channel that is spread over others is not."""
        wide = []
        for index, parts in zip(call.inputs, inputs, strict=True):
            if self._calls[index].shape[-1] == call.shape[-1]:
                wide.append(parts)
            else:
                self._widths.fix(parts, f"`{call.name}` spreads it over {call.shape[-1]} channels")
        for parts in wide[1:]:
            self._tie(wide[0], parts, call)
        return wide[0]

    def _concatenate(self, call: Call, inputs: list[Parts]) -> Parts:
        if sum(self._calls[index].shape[-1] for index in call.inputs) == call.shape[-1]:
            return [part for parts in inputs for part in parts]
        return self._merge(call, inputs)  # along the height or the width

    def _tie(self, one: Parts, other: Parts, call: Call) -> None:
        if self._sizes(one) == self._sizes(other):
            for (a, _), (b, _) in zip(one, other, strict=True):
                self._widths.tie(a, b)
            return
        for parts in (one, other):
            self._widths.fix(parts, f"`{call.name}` joins channels that are put together otherwise")

    def _sizes(self, parts: Parts) -> list[tuple[int, int]]:
        return [(self._widths.filters[number], times) for number, times in parts]

    def _keeps_width(self, call: Call) -> bool:
        return call.shape[-1] == self._calls[call.inputs[0]].shape[-1]

    def _times(self, call: Call) -> int:
        """Return how many channels a reshape makes of one, or 0 if it needs so many as it reads."""
        times, rest = divmod(call.shape[-1], self._calls[call.inputs[0]].shape[-1])
        return 0 if rest or not _keeps_last_axis(call.layer) else times

    def _tie_inputs_of_shared_layers(self) -> None:
        first: dict[int, Call] = {}
        for call in self._calls:
            before = first.setdefault(id(call.layer), call)
            if before is not call and call.layer.weights:
                for one, other in zip(before.inputs, call.inputs, strict=True):
                    self._tie(self._parts[one], self._parts[other], call)

    def _fix_indivisible(self, ratios: Sequence[float]) -> None:
        for call, parts in self._divided:
            groups = call.facts.groups
            for filters, times in self._sizes(parts):
                left = [ratio for ratio in ratios if expand(filters, ratio) * times % groups]
                if left or filters * times % groups:
                    reason = f"the {groups} groups of `{call.name}` do not divide {filters} x "
                    self._widths.fix(parts, reason + ", ".join(map(str, left or [1])))


def _keeps_last_axis(layer: tf.keras.layers.Layer) -> bool:
    if isinstance(layer, tf.keras.layers.Permute):
        return layer.dims[-1] == len(layer.dims)
    return isinstance(layer, tf.keras.layers.Flatten | tf.keras.layers.Reshape)


def _is_plain(layer: tf.keras.layers.Layer) -> bool:
    """Return whether a layer holds no numbers for each channel but its weights."""
    return not isinstance(layer, tf.keras.layers.Rescaling) and not hasattr(layer, "symbol")


def _is_quantized(layer: Any) -> bool:
    names = ("kernel_quantizer", "pointwise_quantizer")
    return any(getattr(layer, name, None) is not None for name in names)
