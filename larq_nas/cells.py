"""How the nodes of a cell hang together, and cells that are zero on every path."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

import numpy as np

from larq_nas.choices import Choice, Pair

__all__ = ["Cell", "Chosen", "Revival", "all_alive", "exchanges", "revivals", "revive"]

Chosen: TypeAlias = Mapping[str, Sequence[Pair]]
"""Operations and inputs of each choice."""


@dataclass(frozen=True)
class Cell:
    """How the choices of a kind of cell hang together.

    # Arguments
        name: kind of the cell.
        inputs: number of its inputs, the first of its states.
        questions: name of the choice of each node, by the node's index among the states.
        concat: indices of the states that are concatenated.
    """

    name: str
    inputs: int
    questions: Mapping[int, str]
    concat: tuple[int, ...]


@dataclass(frozen=True)
class Revival:
    """One pair of a choice replaced, so that a cell is no longer zero on every path.

    # Arguments
        cell: kind of the cell.
        choice: name of the choice.
        pairs: what is chosen then.
        pair: the pair that is new.
        gain: by how much the sum of scores grows.
    """

    cell: str
    choice: str
    pairs: list[Pair]
    pair: Pair
    gain: float


def all_alive(cells: Iterable[Cell], choices: Mapping[str, Choice], chosen: Chosen) -> bool:
    """Return whether each kind of cell has a path that is not zero."""
    return all(_is_alive(cell, choices, chosen) for cell in cells)


def revive(
    cells: Iterable[Cell],
    choices: Mapping[str, Choice],
    scores: Mapping[str, np.ndarray],
    chosen: Chosen,
) -> tuple[Chosen, list[Revival]]:
    """Return `chosen` with one operation changed in each cell that is zero on every path.

    Of all changes that bring such a cell to life, it is the one that costs least score.

    # Arguments
        cells: the kinds of cells.
        choices: the choices by name.
        scores: how good each pair of each choice is, shape `(inputs, operations)`.
        chosen: operations and inputs of each choice.

    # Returns
        What is chosen then, and what was changed.
    """
    changes: list[Revival] = []
    for cell in cells:
        if not _is_alive(cell, choices, chosen):
            best = max(revivals(cell, choices, scores, chosen), key=lambda way: way.gain)
            chosen = {**chosen, best.choice: best.pairs}
            changes.append(best)
    return chosen, changes


def _is_alive(cell: Cell, choices: Mapping[str, Choice], chosen: Chosen) -> bool:
    return not _alive(cell, choices, chosen).isdisjoint(cell.concat)


def _alive(cell: Cell, choices: Mapping[str, Choice], chosen: Chosen) -> set[int]:
    """Return the states of a cell that depend on its inputs."""
    alive = set(range(cell.inputs))
    for node, name in cell.questions.items():
        zeros = choices[name].zeros
        if any(operation not in zeros and index in alive for operation, index in chosen[name]):
            alive.add(node)
    return alive


def revivals(
    cell: Cell, choices: Mapping[str, Choice], scores: Mapping[str, np.ndarray], chosen: Chosen
) -> Iterator[Revival]:
    """Yield each change of one pair that gives life. There are some: any node may read an input."""
    alive = _alive(cell, choices, chosen)
    for name in cell.questions.values():
        choice, old = choices[name], chosen[name]
        before = _total(choice, scores[name], old)
        lively = [operation for operation in choice.operations if operation not in choice.zeros]
        indices = sorted(alive & set(range(choice.inputs)))
        for pair, pairs in exchanges(old, lively, indices):
            if _is_alive(cell, choices, {**chosen, name: pairs}):
                gain = _total(choice, scores[name], pairs) - before
                yield Revival(cell.name, name, pairs, pair, gain)


def exchanges(
    pairs: Sequence[Pair], operations: Iterable[str], indices: Sequence[int]
) -> Iterator[tuple[Pair, list[Pair]]]:
    """Yield each other pair that one of `pairs` can be exchanged for, and the pairs then.

    # Arguments
        pairs: what is chosen, each on an input of its own.
        operations: operations of the new pair.
        indices: inputs that it may read.
    """
    for slot, operation in product(range(len(pairs)), operations):
        others = [pair for number, pair in enumerate(pairs) if number != slot]
        taken = {index for _, index in others}
        for index in indices:
            new = operation, index
            if index not in taken and new != pairs[slot]:
                yield new, sorted([*others, new], key=lambda pair: pair[1])


def _total(choice: Choice, scores: np.ndarray, pairs: Sequence[Pair]) -> float:
    return float(sum(scores[index, choice.operations.index(name)] for name, index in pairs))
