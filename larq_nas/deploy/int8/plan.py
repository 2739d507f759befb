"""Which real layers of a network run in int8."""

from typing import Literal

from larq_nas.cost.fusing import Fusing
from larq_nas.cost.network import WEIGHTED

__all__ = ["NAMES", "Int8", "real_layers"]

Int8 = Literal["ends", "all"]
"""Which part of a network runs in int8."""

NAMES = ("ends", "all")


def real_layers(fusing: Fusing, which: Int8) -> list[int]:
    """Return the calls of the real layers that are to run in int8.

    `"ends"` are those that no binary layer stands before, or none behind.

    # Arguments
        fusing: the network, with what fuses in it.
        which: which of them.
    """
    network = fusing.network
    calls = range(len(network.calls))
    weighted = [index for index in calls if fusing.kind(index) in WEIGHTED]
    binary = {index for index in weighted if network.binary(index)}
    real = [index for index in weighted if index not in binary]
    if which == "all":
        return real
    before = _reached(binary, fusing, forward=True)
    behind = _reached(binary, fusing, forward=False)
    return [index for index in real if index not in before or index not in behind]


def _reached(starts: set[int], fusing: Fusing, forward: bool) -> set[int]:
    """Return the calls behind `starts`, or before them."""
    reached = set(starts)
    waiting = list(starts)
    while waiting:
        index = waiting.pop()
        near = fusing.readers.get(index, []) if forward else fusing.inputs[index]
        waiting += set(near) - reached
        reached |= set(near)
    return reached
