"""What candidates cost and are worth."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from larq_nas.cost import SpaceCosts
from larq_nas.evolution import fitness, flops

__all__ = ["Worth"]


class Worth:
    """Costs and fitness of the candidates of a space.

    # Arguments
        costs: the costs of the space.
        trade_off: lambda of Eq. 4.
    """

    def __init__(self, costs: SpaceCosts, trade_off: float) -> None:
        self.costs = costs
        self.trade_off = trade_off
        # Each generation asks for all candidates before it.
        self._known: dict[tuple[tuple[str, float], ...], dict[str, Any]] = {}

    @cached_property
    def original(self) -> float:
        """FLOPs of the original binary network: every ratio 1, or the nearest there is."""
        return float(flops(self.costs.exact(self.costs.usual)))

    def _costs(self, values: Mapping[str, float]) -> dict[str, Any]:
        key = tuple(values.items())
        if key not in self._known:
            self._known[key] = self.costs.exact(values)
        return self._known[key]

    def figures(self, values: Mapping[str, float], accuracy: float) -> dict[str, Any]:
        """Return accuracy, costs and fitness of a candidate.

        # Arguments
            values: the ratio of each choice by name.
            accuracy: what it reached, 0 to 1.
        """
        costs = self._costs(values)
        operations = float(flops(costs))
        worth = fitness(accuracy, operations, self.original, self.trade_off)
        return {"fitness": worth, "accuracy": accuracy, "flops": operations, **costs}
