"""Which layers of a network must be as wide as each other, and which cannot change."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from larq_nas.cost.graph import Call
from larq_nas.expansion import expand
from larq_nas.spaces.passing import times_passed
from larq_nas.spaces.union import Parts, Widths

__all__ = ["OUTPUTS", "Group", "read_groups"]

OUTPUTS = "it gives the outputs"
_OTHERWISE = "joins channels that are put together otherwise"

_OWN_WIDTH = ("conv", "dense", "separable", "transposed")
_MERGING = ("add", "arithmetic", "average")


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


class _Reader:
    """Follows the channels of each tensor through a network."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = calls
        self._widths = Widths()
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
        if kind in _MERGING and len(inputs) > 1 and call.facts.constants <= 1:
            return self._merge(call, inputs)
        if kind == "concat":
            return self._concatenate(call, inputs)
        if len(inputs) == 1 and not (kind == "unknown" and _is_quantized(call.layer)):
            times = times_passed(call, self._calls[call.inputs[0]].shape)
            if times:
                return [(number, times * before) for number, before in inputs[0]]
        reason = f"`{call.name}` of class {type(call.layer).__name__} may need the channels it has"
        for parts in inputs:
            self._widths.fix(parts, reason)
        return self._unknown(call, reason)

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
            self._widths.tie(wide[0], parts, f"`{call.name}` {_OTHERWISE}")
        return wide[0]

    def _concatenate(self, call: Call, inputs: list[Parts]) -> Parts:
        if sum(self._calls[index].shape[-1] for index in call.inputs) == call.shape[-1]:
            return [part for parts in inputs for part in parts]
        return self._merge(call, inputs)  # along the height or the width

    def _tie_inputs_of_shared_layers(self) -> None:
        first: dict[int, Call] = {}
        for call in self._calls:
            before = first.setdefault(id(call.layer), call)
            if before is not call and call.layer.weights:
                for one, other in zip(before.inputs, call.inputs, strict=True):
                    reason = f"`{call.name}` {_OTHERWISE}"
                    self._widths.tie(self._parts[one], self._parts[other], reason)

    def _fix_indivisible(self, ratios: Sequence[float]) -> None:
        for call, parts in self._divided:
            groups = call.facts.groups
            for filters, times in self._widths.sizes(parts):
                left = [ratio for ratio in ratios if expand(filters, ratio) * times % groups]
                if left or filters * times % groups:
                    reason = f"the {groups} groups of `{call.name}` do not divide {filters} x "
                    self._widths.fix(parts, reason + ", ".join(map(str, left or [1])))


def _is_quantized(layer: Any) -> bool:
    names = ("kernel_quantizer", "pointwise_quantizer")
    return any(getattr(layer, name, None) is not None for name in names)
