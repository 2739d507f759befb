"""Cells that are zero on every path are given one that is not."""

import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from larq_nas.choices import Cell, Choice, Pair
from larq_nas.cost import Limits

__all__ = ["revive"]

Chosen = Mapping[str, Sequence[Pair]]


def revive(
    choices: Mapping[str, Choice],
    cells: Mapping[str, Cell],
    scores: Mapping[str, np.ndarray],
    chosen: Chosen,
    limits: Limits | None = None,
) -> Chosen:
    """Return `chosen`, with one operation changed in each cell that would give zeros alone.

    Of all operations that bring such a cell to life, and keep the network within the
    budget, it is the one that costs the least score.

    # Arguments
        choices: the choices by name.
        cells: the cells they are part of.
        scores: how good each pair of each choice is, shape `(inputs, operations)`.
        chosen: operations and inputs of each choice.
        limits: the budget to keep to.
    """
    for cell in cells.values():
        if _alive(cell, choices, chosen) & set(cell.concat):
            continue
        chosen = _mended(cell, choices, scores, chosen, limits)
    return chosen


def _alive(cell: Cell, choices: Mapping[str, Choice], chosen: Chosen) -> set[int]:
    """Return the states of a cell that depend on its inputs."""
    alive = set(range(cell.inputs))
    for node, name in cell.questions.items():
        zeros = choices[name].zeros
        if any(operation not in zeros and index in alive for operation, index in chosen[name]):
            alive.add(node)
    return alive


def _mended(
    cell: Cell,
    choices: Mapping[str, Choice],
    scores: Mapping[str, np.ndarray],
    chosen: Chosen,
    limits: Limits | None,
) -> Chosen:
    ways = sorted(_ways(cell, choices, scores, chosen), key=lambda way: -way[0])
    for _, name, pairs, pair in ways:
        changed = {**chosen, name: pairs}
        if limits is None or not limits.budget.excess(limits.costs.of(changed)):
            warnings.warn(
                f"Every path of cell `{cell.name}` was zero: `{pair[0]}` on input {pair[1]} of "
                f"`{name}` was taken instead, the best that is not.",
                stacklevel=5,
            )
            return changed
    warnings.warn(
        f"Every path of cell `{cell.name}` is zero, and no other within the budget was found: "
        "search with a higher limit.",
        stacklevel=5,
    )
    return chosen


def _ways(
    cell: Cell, choices: Mapping[str, Choice], scores: Mapping[str, np.ndarray], chosen: Chosen
) -> Iterator[tuple[float, str, list[Pair], Pair]]:
    """Yield each change of one choice that gives life: its gain in score, and what it is."""
    alive = _alive(cell, choices, chosen)
    for node in cell.concat:
        name = cell.questions[node]
        choice, score = choices[name], scores[name]
        for index in sorted(alive & set(range(choice.inputs))):
            for operation in choice.operations:
                if operation in choice.zeros:
                    continue
                pair = (operation, index)
                pairs = choice.strongest(np.where(choice.one_hot([pair]), np.inf, score))
                yield (
                    _total(choice, score, pairs) - _total(choice, score, chosen[name]),
                    name,
                    pairs,
                    pair,
                )


def _total(choice: Choice, scores: np.ndarray, pairs: Sequence[Pair]) -> float:
    return float(sum(scores[index, choice.operations.index(name)] for name, index in pairs))
