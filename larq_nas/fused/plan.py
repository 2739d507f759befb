"""What a cell of a supernet computes once, and where its weights are."""

import json
from collections.abc import Iterator, Sequence

from larq_nas.fused.describe import Parts
from larq_nas.fused.kernels import Stack
from larq_nas.layers import BinaryConv2D
from larq_nas.layers.mixture import Kept

__all__ = ["CONVOLVED", "Plan"]

# Where nothing is normalized, what a norm would be does not matter.
_NO_NORM = {"momentum": 0.9, "epsilon": 1e-5}

CONVOLVED = -1
"""In place of an operation: the batch norm that all convolutions on a state share."""


class Plan:
    """Operations of a cell, the stacks of their kernels and the rows of their batch norms.

    # Arguments
        inputs: number of inputs, the first states.
        operations: what each operation on each state is made of; see `describe`.
        concat: indices of the states that are concatenated.
        shape: `(height, width, channels)` of a node; of inputs the channels are these too.
        kept: of each node, which operations on which states are candidates; all, if not given.
    """

    def __init__(
        self,
        inputs: int,
        operations: Sequence[Sequence[Parts]],
        concat: Sequence[int],
        shape: Sequence[int],
        kept: Sequence[Kept] | None = None,
    ) -> None:
        self.inputs = inputs
        self.operations = operations
        self.kept = kept
        self.concat = concat
        self.shape = shape
        self.channels = shape[-1]
        self.states = len(operations) + 1
        self.prototypes = {
            place: BinaryConv2D.from_config(made["layer"])
            for place, made in self.of_kind("convolution")
        }
        self.stacks = self._stack()
        self.rows, self.norm = self._norms()

    @property
    def key(self) -> str:
        """The plan as JSON, equal for cells that compute the same."""
        return json.dumps(
            {
                "inputs": self.inputs,
                "operations": self.operations,
                "concat": self.concat,
                "shape": self.shape,
                "kept": self.kept,
            }
        )

    def of_kind(self, kind: str) -> Iterator[tuple[tuple[int, int], Parts]]:
        """Yield state and number of each operation of that kind, with what it is made of."""
        for state in range(len(self.operations)):
            for number, made in self.candidates(state):
                if made["kind"] == kind:
                    yield (state, number), made

    def candidates(self, state: int) -> Iterator[tuple[int, Parts]]:
        """Yield number and parts of each operation on a state that a node may read it by."""
        for number, made in enumerate(self.operations[state]):
            if self.readers(state, number):
                yield number, made

    def targets(self, state: int) -> range:
        """Return the nodes that read a state."""
        return range(max(state + 1, self.inputs), self.states)

    def readers(self, state: int, number: int) -> tuple[int, ...]:
        """Return the nodes that may read a state by that operation."""
        if self.kept is None:
            return tuple(self.targets(state))
        of_node = self.kept
        return tuple(
            node for node in self.targets(state) if of_node[node - self.inputs][state][number]
        )

    def place(self, state: int, number: int, target: int) -> int:
        """Return where the probability of an operation is, among those of all nodes."""
        count = len(self.operations[0])
        return (sum(range(self.inputs, target)) + state) * count + number

    @property
    def others(self) -> list[tuple[int, int, int]]:
        """State, number and node of each operation that a layer of its own computes."""
        return [
            (*place, node) for place, _ in self.of_kind("other") for node in self.readers(*place)
        ]

    def _stack(self) -> list[Stack]:
        stacks: dict[str, Stack] = {}
        for (state, number), layer in self.prototypes.items():
            made = self.operations[state][number]
            stack = Stack(layer, self.channels, made["prelu"])
            stack = stacks.setdefault(Stack.key(made), stack)
            stack.add(state, number, len(self.readers(state, number)))
        return list(stacks.values())

    def _norms(self) -> tuple[dict[tuple[int, int], int], dict[str, float]]:
        """Number the batch norms: one of each state, and one of each of its pools."""
        rows: dict[tuple[int, int], int] = {}
        norms = []
        for state in range(len(self.operations)):
            for number, made in self.candidates(state):
                if made.get("norm"):
                    place = (state, number if made["kind"] == "pool" else CONVOLVED)
                    rows.setdefault(place, len(rows))
                    norms.append(made["norm"])
        return rows, norms[0] if norms else _NO_NORM
