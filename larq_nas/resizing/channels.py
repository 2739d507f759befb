"""Which channels of a wide network a narrower one has: the first of each layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from larq_nas.cost.graph import Call
from larq_nas.errors import InputError
from larq_nas.expansion import Filters, at
from larq_nas.spaces.passing import times_passed

__all__ = ["Channels", "trace_channels"]

_MERGING = ("add", "arithmetic", "average")


@dataclass(frozen=True)
class Channels:
    """The channels of a tensor: those of the layers that made them, one after the other.

    # Arguments
        parts: number of filters of each of these layers; `Filters` where it was asked for.
        repeats: how often they are there, behind one another, as after a `Flatten`.
    """

    parts: tuple[int, ...]
    repeats: int = 1

    def taken(
        self, answers: Mapping[str, Any], layout: Mapping[str, Any] | None = None
    ) -> np.ndarray:
        """Return the indices of the channels that another network has too.

        # Arguments
            answers: number of filters of each choice by name, in the other network.
            layout: those of the network that the indices are of; by default, as it was built.
        """
        present = [int(part) if layout is None else at(part, layout) for part in self.parts]
        offsets = np.cumsum([0, *present])
        once = np.concatenate(
            [
                offset + np.arange(min(count, at(part, answers)))
                for offset, count, part in zip(offsets[:-1], present, self.parts, strict=True)
            ]
        )
        repeated: np.ndarray = (np.arange(self.repeats)[:, None] * offsets[-1] + once).reshape(-1)
        return repeated

    @property
    def count(self) -> int:
        """Number of channels of the wide network."""
        return self.repeats * sum(map(int, self.parts))


def trace_channels(calls: Sequence[Call]) -> list[Channels]:
    """Return the channels of the output of each call of a network.

    # Arguments
        calls: the network, of the largest widths; see `larq_nas.cost.graph.read_graph`.

    # Raises
        InputError: if a layer does with channels what cannot be followed.
    """
    channels: list[Channels] = []
    for call in calls:
        channels.append(_output(call, [channels[i] for i in call.inputs], calls))
    return channels


def _output(call: Call, read: Sequence[Channels], calls: Sequence[Call]) -> Channels:
    kind, last = call.facts.kind, call.shape[-1]
    if kind in ("conv", "dense"):
        made = call.facts.filters or last
        searched = isinstance(made, Filters) or any(map(_is_searched, read))
        if call.facts.groups > 1 and searched:
            raise _not_followed(call, "its groups mix other channels at other widths")
        return Channels((made,))
    if kind == "input":
        return Channels((last,))
    if kind in _MERGING:
        # What has one channel is spread over those of the others.
        wide = [one for one in read if one.count == last]
        if not wide:
            raise _not_followed(call, "none of its inputs is as wide as its output")
        return wide[0]
    if kind == "concat" and all(one.repeats == 1 for one in read):
        return Channels(tuple(part for one in read for part in one.parts))
    times = times_passed(call, calls[call.inputs[0]].shape) if len(read) == 1 else 0
    if times and (times == 1 or (kind == "reshape" and read[0].repeats == 1)):
        return Channels(read[0].parts, read[0].repeats * times)
    if not any(map(_is_searched, read)):
        return Channels((last,))
    raise _not_followed(call, f"what it does with channels ({kind}) is not known")


def _is_searched(channels: Channels) -> bool:
    return any(isinstance(part, Filters) for part in channels.parts)


def _not_followed(call: Call, reason: str) -> InputError:
    return InputError(
        "Which weights a network of other widths has cannot be told: layer "
        f"`{call.name}`: {reason}."
    )
