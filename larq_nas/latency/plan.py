"""Which networks to measure, so that few of them hold the operations of all."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from larq_nas.choices import Value
from larq_nas.cost.space import SpaceCosts
from larq_nas.latency.signature import predicted

__all__ = ["Plan", "draw", "plan"]

_SAMPLED, _EACH = 400, 5

Values = Mapping[str, Value]


@dataclass(frozen=True)
class Plan:
    """What to measure.

    # Arguments
        networks: the networks to measure operation by operation, in order.
        checks: networks to check predictions with, which could not be chosen to be measured; fewer
            than asked for if the space has no more.
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
    sampled, unseen = _sample(costs, checks, random.Random(seed))
    held = [operations_of(costs, values) for values in sampled]
    weights = Counter(operation for operations in held for operation in operations)
    left = set(weights)
    taken: list[Values] = []
    while left and len(taken) < networks:
        gains = [sum(weights[operation] for operation in found & left) for found in held]
        best = max(range(len(held)), key=gains.__getitem__)
        taken.append(sampled[best])
        left -= held[best]
    return Plan(taken, unseen[:checks], weights)


def operations_of(costs: SpaceCosts, values: Values) -> set[str]:
    """Return the operations that a network is predicted to have."""
    return {str(signature) for signature in predicted(*costs.network(values))}


def _sample(
    costs: SpaceCosts, checks: int, generator: random.Random
) -> tuple[list[Values], list[Values]]:
    """Return random networks that differ: those to choose from, and those to check with.

    Each fifth is to check with, so that asking for more of either changes none of the others.
    """
    seen: set[str] = set()
    sampled: list[Values] = []
    unseen: list[Values] = []
    for _ in range(10 * (_SAMPLED + _EACH * checks)):
        values = draw(costs, generator)
        if repr(values) not in seen:
            seen.add(repr(values))
            (sampled if len(seen) % _EACH else unseen).append(values)
        if len(sampled) >= _SAMPLED and len(unseen) >= checks:
            break
    return sampled[:_SAMPLED], unseen


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
