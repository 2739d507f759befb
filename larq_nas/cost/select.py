"""From the graph of a supernet to that of a network derived from it."""

import dataclasses
from collections.abc import Mapping, Sequence

import tensorflow as tf

from larq_nas.choices import Choice, Pair
from larq_nas.cost.facts import Facts
from larq_nas.cost.graph import Call, prune
from larq_nas.cost.network import Network
from larq_nas.layers import Mixture

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
        calls = list(self._network.calls)
        stands_for = list(range(len(calls)))
        for index, call in enumerate(calls):
            calls[index] = self._replaced(call, tuple(stands_for[i] for i in call.inputs), chosen)
            if calls[index].facts.kind == "mixture":
                (stands_for[index],) = calls[index].inputs
        outputs = [stands_for[i] for i, call in enumerate(self._network.calls) if call.output]
        kept = prune(calls, outputs)
        names = {call.name for call in kept}
        return Network(kept, tuple(name for name in self._network.unknown if name in names))

    def _replaced(
        self, call: Call, inputs: tuple[int, ...], chosen: Mapping[str, Sequence[Pair]]
    ) -> Call:
        """Return `call` with the sum of what was chosen in place of a mixture."""
        name = self._names.get(id(call.layer))
        if name is None:
            return dataclasses.replace(call, inputs=inputs)
        kept = self._kept(call, name, inputs, chosen[name])
        if len(kept) == 1:
            return dataclasses.replace(call, inputs=kept)
        label = f"{self._prefixes[name][call.index]}_sum"
        facts = Facts("add" if kept else "zeros")
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
