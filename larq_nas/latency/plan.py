"""Which networks to measure, so that few of them hold the operations of all."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from larq_nas.choices import Value
from larq_nas.cost.space import SpaceCosts
from larq_nas.latency.signature import predicted

__all__ = ["Plan", "draw", "plan"]

_SAMPLED = 400

Values = Mapping[str, Value]


@dataclass(frozen=True)
class Plan:
    """What to measure.

    # Arguments
        networks: the networks to measure operation by operation, in order.
        checks: networks to check predictions with; none of them was sampled for `networks`.
        operations: the operations of all sampled networks, with how many of them have each.
    """

    networks: Sequence[Values]
    checks: Sequence[Values]
    operations: Mapping[str, int]


def plan(costs: SpaceCosts, networks: int, checks: int, seed: int) -> Plan:
    """Return which networks to measure.

    Of many random networks, each next one taken is that with the most that no network before
    it has, each operation counted by how many of the networks have it.

    # Arguments
        costs: the costs of the space.
        networks: number of networks to measure at most.
        checks: number of networks to check predictions with.
        seed: seed of the random networks.
    """
    generator = random.Random(seed)
    sampled = _different(costs, _SAMPLED, generator, [])
    held = [operations_of(costs, values) for values in sampled]
    weights = Counter(operation for operations in held for operation in operations)
    left = set(weights)
    taken: list[Values] = []
    while left and len(taken) < networks:
        gains = [sum(weights[operation] for operation in found & left) for found in held]
        best = max(range(len(held)), key=gains.__getitem__)
        taken.append(sampled[best])
        left -= held[best]
    return Plan(taken, _different(costs, checks, generator, sampled), weights)


def operations_of(costs: SpaceCosts, values: Values) -> set[str]:
    """Return the operations that a network is predicted to have."""
    return {str(signature) for signature in predicted(*costs.network(values))}


def _different(
    costs: SpaceCosts, count: int, generator: random.Random, others: Sequence[Values]
) -> list[Values]:
    """Return `count` random networks that differ, or fewer if the space has no more."""
    seen = {repr(values) for values in others}
    found: list[Values] = []
    for _ in range(10 * count):
        values = draw(costs, generator)
        if len(found) < count and repr(values) not in seen:
            seen.add(repr(values))
            found.append(values)
    return found


def draw(costs: SpaceCosts, generator: random.Random) -> dict[str, Value]:
    """Return the choices of a random network."""
    chosen = {
        name: [
            (generator.choice(choice.eligible), index)
            for index in sorted(generator.sample(range(choice.inputs), len(choice.any())))
        ]
        for name, choice in costs.choices.items()
    }
    ratios = {name: generator.choice(asked.ratios) for name, asked in costs.expansions.items()}
    return costs.encode(chosen, ratios)
