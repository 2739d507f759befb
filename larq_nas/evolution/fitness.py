"""What a candidate is worth: Eq. 4, and the objectives of a search for more than one."""

from collections.abc import Mapping
from typing import Any

from larq_nas.cost import LATENCY
from larq_nas.errors import InputError, unknown_name

__all__ = ["BINARY_SPEEDUP", "OBJECTIVES", "fitness", "flops", "require_objectives", "scores_of"]

BINARY_SPEEDUP = 64
"""Binary operations that count as one of floating point."""

OBJECTIVES = {
    "fitness": "fitness",
    "accuracy": "accuracy",
    "flops": "flops",
    "memory": "weight_bits",
    "flatbuffer": "flatbuffer_bytes",
    "activation_memory": "activation_bytes",
    "macs": "macs",
    "binary_macs": "binary_macs",
    "parameters": "parameters",
    "latency": LATENCY,
}
"""The figure each objective is about."""

_MAXIMIZED = ("fitness", "accuracy")


def flops(costs: Mapping[str, Any]) -> Any:
    """Return operations as Shen et al. count them: a binary one is 1/64.

    # Arguments
        costs: `macs` and `binary_macs` of a network, or arrays of them.
    """
    return costs["macs"] + costs["binary_macs"] / BINARY_SPEEDUP


def fitness(accuracy: float, operations: float, original: float, trade_off: float) -> float:
    r"""Return what a candidate is worth (Eq. 4).

    \\[ f = \max(100 \, Acc - \lambda \frac{FLOPs}{FLOPs_{original}}, 0) \\]

    # Arguments
        accuracy: share of the validation images it classifies rightly, 0 to 1.
        operations: its FLOPs.
        original: those of the original binary network, all ratios 1.
        trade_off: lambda: points of accuracy for as many operations again.

    # References
        - [Searching for Accurate Binary Neural Architectures](https://arxiv.org/abs/1909.07378)
    """
    return max(100 * accuracy - trade_off * operations / original, 0.0)


def scores_of(figures: Mapping[str, float], objectives: tuple[str, ...]) -> tuple[float, ...]:
    """Return what is to be maximized of a candidate, for each objective.

    # Arguments
        figures: its accuracy, fitness and costs.
        objectives: names from `OBJECTIVES`; costs are taken negative.
    """
    return tuple(
        float(figures[OBJECTIVES[name]]) * (1 if name in _MAXIMIZED else -1) for name in objectives
    )


def require_objectives(objectives: object) -> None:
    """Raise `InputError` for objectives that a search cannot have."""
    if not isinstance(objectives, tuple | list) or not objectives:
        raise InputError(f"`objectives` must be a list of names, but got {objectives!r}.")
    for name in objectives:
        if not isinstance(name, str) or name not in OBJECTIVES:
            raise unknown_name("objective", name, OBJECTIVES)
    if len(set(objectives)) < len(objectives):
        raise InputError(f"`objectives` must differ from each other, but got {objectives!r}.")
    if not set(objectives) & set(_MAXIMIZED):
        raise InputError(
            f"`objectives` must hold accuracy or fitness, but got {', '.join(objectives)}: the "
            "smallest network needs no search."
        )
