"""From the graph of a supernet to that of a network derived from it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from larq_nas.choices import Choice, Pair
from larq_nas.cost.count import channels_from
from larq_nas.cost.facts import Facts
from larq_nas.cost.graph import Call, prune
from larq_nas.cost.kinds import facts_of
from larq_nas.cost.network import Network
from larq_nas.layers import Mixture
from larq_nas.layers.zeros import Piece, channel_padding, pad_plan

__all__ = ["Supernet"]


class Supernet:
    """The graph of a supernet, from which those of its networks are cut.

    # Arguments
        network: the supernet's graph.
        choices: the choices by name.
        mixtures: the mixture of each choice.
        prefixes: the prefix of layers' names for each time a choice was asked.
    """

    def __init__(
        self,
        network: Network,
        choices: Mapping[str, Choice],
        mixtures: Mapping[str, Mixture],
        prefixes: Mapping[str, Sequence[str]],
    ) -> None:
        self._network = network
        self._choices = choices
        self._names = {id(mixture): name for name, mixture in mixtures.items()}
        self._prefixes = prefixes
        self._sum = tf.keras.layers.Add()

    def select(self, chosen: Mapping[str, Sequence[Pair]]) -> Network:
        """Return the network in which each mixture is the sum of the chosen operations.

        # Arguments
            chosen: operations and inputs of each choice, by its name.
        """
        calls: list[Call] = []
        stands_for: list[int] = []
        for call in self._network.calls:
            read = tuple(stands_for[i] for i in call.inputs)
            call = self._replaced(call, read, chosen, calls)
            if call.facts.kind == "mixture":
                stands_for += call.inputs
            else:
                calls += _without_zeros(call, calls)
                stands_for.append(len(calls) - 1)
        outputs = [stands_for[i] for i, call in enumerate(self._network.calls) if call.output]
        kept = prune(calls, outputs)
        names = {call.owner for call in kept}
        return Network(kept, tuple(name for name in self._network.unknown if name in names))

    def _replaced(
        self,
        call: Call,
        inputs: tuple[int, ...],
        chosen: Mapping[str, Sequence[Pair]],
        calls: Sequence[Call],
    ) -> Call:
        """Return `call` with the sum of what was chosen in place of a mixture."""
        name = self._names.get(id(call.layer))
        if name is None:
            return dataclasses.replace(call, inputs=inputs)
        kept = self._kept(call, name, inputs, chosen[name])
        if len(kept) == 1:
            return dataclasses.replace(call, inputs=kept)
        label = f"{self._prefixes[name][call.index]}_sum"
        # Zeros are as wide as what they stand for, where widths are chosen too.
        facts = Facts("add") if kept else Facts("zeros", filters=_width(calls, inputs[0]))
        return dataclasses.replace(call, layer=self._sum, name=label, inputs=kept, facts=facts)

    def _kept(
        self, call: Call, name: str, inputs: Sequence[int], pairs: Sequence[Pair]
    ) -> tuple[int, ...]:
        operations, candidates = self._choices[name].operations, call.layer.candidates
        kept = []
        for operation, index in pairs:
            key = (index, operations.index(operation))
            if key in candidates:  # the zero operation is not
                kept.append(inputs[candidates.index(key)])
        return tuple(kept)


def _without_zeros(call: Call, calls: Sequence[Call]) -> list[Call]:
    """Return what `concatenate` builds in place of a concatenation of a cell's zeros."""
    inputs = [calls[i] for i in call.inputs]
    zeros = [one.facts.kind == "zeros" for one in inputs]
    padded_for = getattr(call.layer, "pads_zeros", False)
    if call.facts.kind != "concat" or not padded_for or not any(zeros) or len(call.shape) != 3:
        return [call]
    if all(zeros):
        width = sum(_width(calls, i) for i in call.inputs)
        return [dataclasses.replace(call, inputs=(), facts=Facts("zeros", filters=width))]
    pieces = pad_plan(zeros, [_width(calls, i) for i in call.inputs])
    made: list[Call] = []

    def add(**changes: Any) -> int:
        made.append(dataclasses.replace(call, **changes, outputs=()))
        return len(calls) + len(made) - 1

    def padded(piece: Piece, number: str) -> int:
        members = tuple(call.inputs[i] for i in piece.members)
        channels = sum(_width(calls, i) for i in members)
        last = members[0]
        if len(members) > 1:
            shape = (*call.shape[:-1], int(channels))
            last = add(inputs=members, shape=shape, name=f"{call.name}{number}")
        if piece.before or piece.after:
            layer = channel_padding(piece, f"{call.name.removesuffix('_concat')}_pad{number}")
            width = channels + piece.before + piece.after
            shape = (*call.shape[:-1], int(width))
            facts = dataclasses.replace(facts_of(layer), filters=width)
            changes = {"layer": layer, "name": layer.name, "facts": facts}
            last = add(inputs=(last,), shape=shape, **changes)
        return last

    several = len(pieces) > 1
    joined = [padded(piece, str(number) if several else "") for number, piece in enumerate(pieces)]
    if several:
        add(inputs=tuple(joined))
    made[-1] = dataclasses.replace(made[-1], outputs=call.outputs)
    return made


def _width(calls: Sequence[Call], index: int) -> int:
    """Return the channels that a call gives: `Filters` where they follow from a choice."""
    call = calls[index]
    if call.facts.filters is not None:
        return call.facts.filters
    read = call.inputs if call.facts.kind == "concat" else call.inputs[:1]
    width: int = channels_from(call, [_width(calls, i) for i in read], calls)
    return width
