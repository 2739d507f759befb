"""A network as its costs see it: calls, what is binary, and what the converter merges."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from larq_nas.cost.facts import Facts
from larq_nas.cost.functions import is_convolution_function
from larq_nas.cost.graph import Call
from larq_nas.cost.padding import SIGN_PASSES, Border, border, paddings_of
from larq_nas.cost.quantizers import zero_one

__all__ = ["SIGN_PASSES", "WEIGHTED", "Network"]

WEIGHTED = ("conv", "dense", "transposed", "depthwise", "separable")
"""The kinds of layers that multiply their inputs with a kernel."""


@dataclass(frozen=True)
class Network:
    """The calls of a network with what their costs depend on.

    # Arguments
        calls: the calls, each after those it reads.
        unknown: names of layers whose operations are not counted, in order.
    """

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
        read, *_ = self.calls[index].inputs
        while self.facts[read].kind in ("pass", "pad"):
            read, *_ = self.calls[read].inputs
        return read

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
        pads = {index: paddings_of(self.calls[index]) for index in read if self._pads(index)}
        return {index for index, found in pads.items() if found and found[1] == 1.0}

    def _pads(self, index: int) -> bool:
        return self.facts[index].kind == "pad"

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
        read, *_ = self.calls[index].inputs
        while self.facts[read].kind == "pass" or read in self.pads_of_ones:
            read, *_ = self.calls[read].inputs
        return self.facts[read].kind == "sign"

    def binary(self, index: int) -> bool:
        """Return whether call `index` multiplies binary inputs with binary weights."""
        facts, call = self.facts[index], self.calls[index]
        if facts.kind not in WEIGHTED or max(facts.kernel_bits) > 1:
            return False
        if facts.binary_inputs or index in self.borders or self.levels(index):
            return True
        return self.signs(call.inputs[0])
