"""How the costs of a network change with each of its choices."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from larq_nas.cells import Chosen
from larq_nas.choices import Choice, Pair
from larq_nas.cost.space import SpaceCosts

__all__ = ["Linearized", "linearize"]


@dataclass(frozen=True)
class Linearized:
    """Costs around one network: what each pair adds in place of the pair that is chosen.

    For costs that add up over a network's operations it is exact everywhere; for the others
    (memory of activations, what constants share) it is exact for one changed pair.

    # Arguments
        chosen: the network.
        costs: its costs.
        slopes: for each quantity and choice what each `(input, operation)` costs, up to a
            number that is the same for the whole choice, shape `(inputs, operations)`.
    """

    chosen: Chosen
    costs: Mapping[str, Any]
    slopes: Mapping[str, Mapping[str, np.ndarray]]


def linearize(
    costs: SpaceCosts, chosen: Chosen, ratios: Mapping[str, float] | None = None
) -> Linearized:
    """Return how the costs change around one network.

    # Arguments
        costs: the costs of its space.
        chosen: the network's operations.
        ratios: the ratio of each width; by default those nearest to 1.
    """
    base = costs.of(chosen, ratios)
    slopes: dict[str, dict[str, np.ndarray]] = {name: {} for name in costs.quantities}
    for name, choice in costs.choices.items():
        found = _slopes(costs, chosen, ratios, choice, base)
        for quantity in costs.quantities:
            slopes[quantity][name] = found[quantity]
    return Linearized(dict(chosen), base, slopes)


def _slopes(
    costs: SpaceCosts,
    chosen: Chosen,
    ratios: Mapping[str, float] | None,
    choice: Choice,
    base: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    own = list(chosen[choice.name])

    def change(slot: int, pair: Pair) -> np.ndarray:
        pairs = [pair if k == slot else kept for k, kept in enumerate(own)]
        found = costs.of({**chosen, choice.name: pairs}, ratios)
        return np.array([found[name] - base[name] for name in costs.quantities], dtype=np.float64)

    slots = {index: slot for slot, (_, index) in enumerate(own)}
    offsets = _offsets(choice, slots, change, len(base))
    slopes = np.zeros((len(base), choice.inputs, len(choice.operations)))
    for index in range(choice.inputs):
        slot = slots.get(index, 0)
        for column, operation in enumerate(choice.operations):
            if operation not in choice.eligible:
                continue
            slopes[:, index, column] = change(slot, (operation, index)) + offsets[slot]
    return {name: slopes[row] for row, name in enumerate(costs.quantities)}


def _offsets(
    choice: Choice, slots: Mapping[int, int], change: Any, quantities: int
) -> list[np.ndarray]:
    """Return what the pair of each slot costs more than that of slot 0.

    Both are replaced by the same pair on an input that is not kept, if there is one; where all
    inputs are kept, they are never compared.
    """
    spare = [index for index in range(choice.inputs) if index not in slots]
    zero = np.zeros(quantities)
    if not spare:
        return [zero] * len(slots)
    pair = (choice.any()[0][0], spare[0])
    first = change(0, pair)
    return [first - change(slot, pair) if slot else zero for slot in range(len(slots))]
