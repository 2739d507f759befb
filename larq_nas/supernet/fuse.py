"""Relax a space with each cell as one layer: the supernet that is searched."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import tensorflow as tf

from larq_nas.choices import Cell, Choice
from larq_nas.layers.mixture import Kept, Probabilities, WeightedSum
from larq_nas.spaces.chooser import Operations
from larq_nas.supernet.fused_cell import FusedCell
from larq_nas.supernet.fused_plan import Description, describe
from larq_nas.supernet.relax import Relax

Described: TypeAlias = Mapping[str, Description]
"""What each operation on a state is made of."""


class Fuse(Relax):
    """Answers with every candidate, each cell as one layer that does shared work once.

    The network computes what that of `Relax` does. Cells of other operations than binary
    convolutions and pools, and choices outside of cells, are built as there.

    # Arguments
        temperature: see `Relax`.
        rematerialize: whether the backward pass computes each cell again, to save memory.
        kept: see `Relax`.

    # Attributes
        fused: number of cells that are one layer.
        obstacles: for each other cell, by the prefix of its layers, why it is not.
    """

    def __init__(
        self,
        temperature: float | Mapping[str, float] = 1.0,
        *,
        rematerialize: bool = False,
        kept: Mapping[str, Kept] | None = None,
    ) -> None:
        super().__init__(temperature, kept=kept)
        self.rematerialize = rematerialize
        self.fused = 0
        self.obstacles: dict[str, str] = {}

    def _answer_cell(
        self,
        cell: Cell,
        inputs: Sequence[tf.Tensor],
        operations: Callable[[int], Operations],
        prefix: str,
        keep_zero: bool,
    ) -> tf.Tensor:
        candidates = [operations(state) for state in range(max(cell.questions))]
        for node, name in cell.questions.items():
            self._ask(name, candidates[:node], keep_zero=keep_zero)
        described = _describe(inputs, candidates)
        obstacle = _obstacle(cell, inputs, described)
        if obstacle:
            self.obstacles[prefix] = obstacle
            return super()._answer_cell(cell, inputs, operations, prefix, keep_zero)
        self.fused += 1
        given = [*inputs, *self._others(cell, inputs, candidates, described, prefix)]
        for node, name in cell.questions.items():
            given.append(self._answer_node(name, f"{prefix}_node{node}", inputs[0], described))
        parts = [[made.parts for made in of_state.values()] for of_state in described]
        shape = _shapes(described).pop()
        layer = FusedCell(
            cell.inputs,
            parts,
            cell.concat,
            shape,
            self.rematerialize,
            self._kept(cell),
            name=f"{prefix}_cell",
        )
        return layer(given)

    def _kept(self, cell: Cell) -> list[Kept] | None:
        """Return which operations each node of a cell may read by; `None` for all."""
        if not any(name in self.kept for name in cell.questions.values()):
            return None
        kept = []
        for name in cell.questions.values():
            choice = self.choices[name]
            everything = [[True] * len(choice.operations)] * choice.inputs
            kept.append(self.kept.get(name, everything))
        return kept

    def _others(
        self,
        cell: Cell,
        inputs: Sequence[tf.Tensor],
        candidates: Sequence[Operations],
        described: Sequence[Described],
        prefix: str,
    ) -> list[tf.Tensor]:
        """Return what operations on the cell's inputs that are not known give to each node."""
        return [
            operation(inputs[state], f"{prefix}_node{node}_in{state}_{name}")
            for state in range(cell.inputs)
            for number, (name, operation) in enumerate(candidates[state].items())
            if operation and described[state][name].kind == "other"
            for node, question in cell.questions.items()
            if self._is_kept(question, state, number)
        ]

    def _answer_node(
        self, name: str, prefix: str, x: tf.Tensor, described: Sequence[Described]
    ) -> tf.Tensor:
        """Return the probabilities of a node of a fused cell."""
        choice = self.choices[name]
        self._claim(name, prefix)
        self.prefixes.setdefault(name, []).append(prefix)
        if name not in self.mixtures:
            free = frozenset(
                (operation, state)
                for state, of_state in enumerate(described[: choice.inputs])
                for number, (operation, made) in enumerate(of_state.items())
                if self._is_kept(name, state, number)
                and made.kind != "zero"
                and not made.has_weights
            )
            self._note_free(choice, free)
        return self._probabilities(choice)(x)

    def _mix(
        self,
        choice: Choice,
        candidates: list[tuple[int, int]],
        outputs: list[tf.Tensor],
        prefix: str,
    ) -> tf.Tensor:
        # Apart from the probabilities, which a fused cell of the same kind may share.
        weighted = WeightedSum(candidates, name=f"{prefix}_sum")
        return weighted([self._probabilities(choice)(outputs[0]), *outputs])

    def _probabilities(self, choice: Choice) -> Probabilities:
        if choice.name not in self.mixtures:
            self.mixtures[choice.name] = Probabilities(**self._settings(choice))
        return self.mixtures[choice.name]


def _describe(inputs: Sequence[tf.Tensor], candidates: Sequence[Operations]) -> list[Described]:
    """Return what the operations on each state are made of, as far as its shape is known."""
    described: list[Described] = []
    seen: dict[tuple[int, tuple[int, ...]], Described] = {}
    for state, operations in enumerate(candidates):
        if state < len(inputs):
            shape = tuple(inputs[state].shape[1:])
        elif len(_shapes(described)) == 1:
            (shape,) = _shapes(described)
        else:
            break
        # Spaces give the same operations for many states.
        key = (id(operations), shape)
        if key not in seen:
            seen[key] = {name: describe(one, shape) for name, one in operations.items()}
        described.append(seen[key])
    return described


def _shapes(described: Sequence[Described]) -> set[tuple[int, ...]]:
    return {made.shape for of_state in described for made in of_state.values() if made.shape}


def _obstacle(
    cell: Cell, inputs: Sequence[tf.Tensor], described: Sequence[Described]
) -> str | None:
    """Return why a `FusedCell` does not compute the cell, if so."""
    if tf.distribute.has_strategy():
        return "its batch norms are of the whole batch, of which each replica has a part"
    made = [one for of_state in described for one in of_state.values()]
    channels = {shape[-1] for shape in [*(x.shape for x in inputs), *_shapes(described)]}
    norms = {tuple(one.parts["norm"].values()) for one in made if one.parts.get("norm")}
    unknown = {
        name
        for of_state in described[cell.inputs :]
        for name, one in of_state.items()
        if one.kind == "other"
    }
    if len(_shapes(described)) > 1:
        return f"its operations give several shapes, {sorted(_shapes(described))}"
    if unknown:
        return f"larq_nas does not fuse its operations {sorted(unknown)}"
    if not any(one.kind == "convolution" for one in made):
        return "it has no binary convolutions that fuse"
    if len(channels) > 1:
        return f"its inputs and nodes differ in channels, {sorted(channels)}"
    return "its batch norms differ" if len(norms) > 1 else None
