"""A network as Larq Compute Engine sees it: what is binary, and which layers are one sign."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import tensorflow as tf

from larq_nas.graph.calls import Call, call_layer, prune
from larq_nas.graph.layers import Facts, is_convolution_function, is_own
from larq_nas.graph.quantizers import sign_of_zero, zero_one
from larq_nas.lce.padding import SIGN_PASSES, Border, border, giver, paddings_of

WEIGHTED = ("conv", "dense", "transposed", "depthwise", "separable")
"""The kinds of layers that multiply their inputs with a kernel."""


@dataclass(frozen=True)
class Network:
    """The calls of a network, each after those it reads, and the names of unknown layers."""

    calls: Sequence[Call]
    unknown: tuple[str, ...] = ()

    @cached_property
    def facts(self) -> Sequence[Facts]:
        """What each call does."""
        return [call.facts for call in self.calls]

    @cached_property
    def stands_for(self) -> Sequence[int]:
        """For each call the first that computes the same: the converter merges them."""
        stands_for: list[int] = []
        seen: dict[tuple[str, tuple[int, ...]], int] = {}
        for index, call in enumerate(self.calls):
            inputs = tuple(stands_for[i] for i in call.inputs)
            same = call.facts.same
            stands_for.append(seen.setdefault((same, inputs), index) if same else index)
        return stands_for

    @cached_property
    def inputs(self) -> Sequence[Sequence[int]]:
        """What each call reads, equal calls merged."""
        return [[self.stands_for[i] for i in call.inputs] for call in self.calls]

    def shape_read(self, index: int) -> tuple[int, ...] | None:
        """Return the shape of what call `index` reads first, without the batch."""
        inputs = self.calls[index].inputs
        return self.calls[inputs[0]].shape if inputs else None

    @cached_property
    def borders(self) -> dict[int, Border]:
        """What pads binary calls before their sign, where their kernel cannot."""
        found = ((index, border(self.calls, index)) for index in range(len(self.calls)))
        return {index: around for index, around in found if around}

    def levels(self, index: int) -> tuple[float, float] | None:
        """Return height and threshold of the inputs of 0 and 1 of call `index`, if it has such.

        A quantizer to 0 and 1 that is a layer of its own goes into the call.
        """
        layer = self.calls[index].layer
        own = getattr(layer, "input_quantizer", None)
        if own is not None or getattr(layer, "kernel_quantizer", None) is None:
            return zero_one(own)
        return zero_one(self.calls[self.calls[index].inputs[0]].layer)

    def strict(self, index: int) -> bool:
        """Return whether call `index` takes a sign that is -1 at 0.

        A sign that is a layer of its own goes into the call.
        """
        layer, facts = self.calls[index].layer, self.facts[index]
        kernel = getattr(layer, "kernel_quantizer", None) or is_convolution_function(layer)
        if not kernel or facts.kind not in WEIGHTED:
            return False
        if getattr(layer, "input_quantizer", None) is None:
            facts = self.facts[self._giver(index)]
            return facts.kind == "sign" and facts.sign_of_zero < 0
        return facts.binary_inputs and facts.sign_of_zero < 0

    def _giver(self, index: int) -> int:
        """Return the call whose output call `index` reads, perhaps padded."""
        return giver(self.calls, self.calls[index].inputs[0], ("pass", "pad"))

    def flips(self, index: int) -> bool:
        """Return whether call `index` is computed with the sign of a number minus its inputs."""
        return bool(self.levels(index)) or self.strict(index) or self.facts[index].turned

    def source(self, index: int) -> int:
        """Return the call that binary call `index` takes the sign of."""
        read, *_ = self.calls[index].inputs
        if index in self.borders:
            return self.borders[index].source
        if getattr(self.calls[index].layer, "input_quantizer", None) is not None:
            return read
        if self.levels(index):
            return self.calls[read].inputs[0]
        return self.calls[self._giver(index)].inputs[0] if self.strict(index) else read

    @cached_property
    def pads_of_ones(self) -> set[int]:
        """The pads with 1 before a convolution that is a function, which pads so itself then."""
        read = {
            call.inputs[0]
            for call in self.calls
            if call.inputs and is_convolution_function(call.layer)
        }
        pads = (index for index in read if self.facts[index].kind == "pad")
        found = {index: paddings_of(self.calls[index]) for index in pads}
        return {index for index, padding in found.items() if padding and padding[1] == 1.0}

    def signs(self, index: int) -> bool:
        """Return whether the output of call `index` holds only -1 and 1."""
        while self.facts[index].kind in SIGN_PASSES or index in self.pads_of_ones:
            inputs = self.calls[index].inputs
            if self.facts[index].kind == "concat":
                return all(self.signs(read) for read in inputs)
            index = inputs[0]
        return self.facts[index].kind == "sign"

    def reads_signs(self, index: int) -> bool:
        """Return whether call `index` reads the output of a sign itself."""
        read = self.calls[index].inputs[0]
        return self.facts[giver(self.calls, read, passed=self.pads_of_ones)].kind == "sign"

    def binary(self, index: int) -> bool:
        """Return whether call `index` multiplies binary inputs with binary weights."""
        facts, call = self.facts[index], self.calls[index]
        if facts.kind not in WEIGHTED or max(facts.kernel_bits) > 1:
            return False
        if facts.binary_inputs or index in self.borders or self.levels(index):
            return True
        return self.signs(call.inputs[0])


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
            function = _composed(calls, sorted(members), source)
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


def _composed(
    calls: Sequence[Call], members: Sequence[int], source: int
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return several calls as a function of the one tensor they read."""
    # As they are now: the function itself may take the place of one.
    steps = [(index, calls[index]) for index in members]

    def compute(x: tf.Tensor) -> tf.Tensor:
        values: dict[int, Any] = {source: x}
        for index, call in steps:
            values[index] = call_layer(call, [values[i] for i in call.inputs])[call.position]
        return values[members[-1]]

    return compute
