"""Channels followed through a network: which weights hold them, and which widths are tied."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from scipy.cluster.hierarchy import DisjointSet

from larq_nas.choices import Filters, at, expand
from larq_nas.errors import InputError
from larq_nas.graph.calls import Call, read_graph
from larq_nas.graph.rebuild import call_again, copy

_PASSING = {
    "input": "given",
    "unknown": "unknown",
    "converted": "unknown",
    "concat": "concat",
    "depthwise": "multiply",
    "reshape": "reshape",
    **dict.fromkeys(("conv", "dense", "separable", "transposed"), "own"),
    **dict.fromkeys(("add", "arithmetic", "average"), "join"),
    **dict.fromkeys(
        (
            "activation",
            "average_pool",
            "composite",
            "crop",
            "global_average_pool",
            "global_max_pool",
            "max_pool",
            "norm",
            "offset",
            "pad",
            "pass",
            "prelu",
            "relu",
            "resize",
            "scale",
            "sign",
        ),
        "keep",
    ),
}
"""How each kind of layer passes channels on; what is not here keeps them, as far as is known."""


def passing(call: Call) -> str:
    """Return how a call passes on the channels that it reads, by its kind."""
    return _PASSING.get(call.facts.kind, "")


def channels_from(call: Call, read: Sequence[Any], calls: Sequence[Call]) -> Any:
    """Return the number of channels of a call that does not set it itself.

    What it reads has these channels: whole numbers, arrays or tensors.
    """
    how = passing(call)
    if how in ("given", "unknown") or not read:
        return call.shape[-1]
    if how == "multiply":
        return read[0] * call.facts.multiplier
    if how == "concat":
        return sum(read[1:], read[0])
    if how == "reshape":
        return divide(read[0] * calls[call.inputs[0]].area, call.area)
    return read[0]


def divide(value: Any, by: int) -> Any:
    """Return `value / by`, whole if `value` is."""
    return value // by if isinstance(value, int | np.ndarray) else value / by


def _times_passed(call: Call, calls: Sequence[Call]) -> int:
    """Return how many channels a call of one input makes of each; 0 if it needs their number."""
    how, read = passing(call), calls[call.inputs[0]].shape
    if how == "multiply":
        return call.facts.multiplier
    times, rest = divmod(call.shape[-1], read[-1])
    if rest:
        return 0
    layer = call.layer
    if how == "reshape":
        permutes = isinstance(layer, tf.keras.layers.Permute)
        kinds = tf.keras.layers.Flatten | tf.keras.layers.Reshape
        if layer.dims[-1] == len(layer.dims) if permutes else isinstance(layer, kinds):
            return times
    # Some functions, and a rescaling, hold numbers for each channel that are no weights.
    holds = isinstance(layer, tf.keras.layers.Rescaling) or hasattr(layer, "symbol")
    return int(times == 1 and ((how == "keep" and not holds) or _keeps_any_width(call, read)))


def _keeps_any_width(call: Call, read: tuple[int, ...]) -> bool:
    """Try other widths: what a layer that is not known does cannot be read off it."""
    for channels in (read[-1] + 1, 2 * read[-1]):
        image = tf.keras.Input((*read[:-1], channels))
        try:
            (outputs,) = call_again(copy(call, {}), call, [image])
        except Exception:  # noqa: BLE001 - a layer of someone else may raise anything
            return False
        if tuple(outputs.shape[1:]) != (*call.shape[:-1], channels):
            return False
    return True


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
        """Return the indices of the channels that a network of the widths `answers` has too.

        They count the channels of a network of the widths `layout`, by default those it was
        built with.
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


def _channels_of(call: Call, read: Sequence[Channels], calls: Sequence[Call]) -> Channels:
    """Return the channels of the output of a call; raise `InputError` if it is not known."""
    how, kind, last = passing(call), call.facts.kind, call.shape[-1]
    if how == "given":
        return Channels((last,))
    if kind in ("conv", "dense"):
        made = call.facts.filters or last
        if call.facts.groups > 1 and any(map(_is_searched, (Channels((made,)), *read))):
            raise _not_followed(call, "its groups mix other channels at other widths")
        return Channels((made,))
    if how == "join":
        # What has one channel is spread over those of the others.
        wide = [one for one in read if one.count == last]
        if not wide:
            raise _not_followed(call, "none of its inputs is as wide as its output")
        return wide[0]
    if how == "concat" and all(one.repeats == 1 for one in read):
        return Channels(tuple(part for one in read for part in one.parts))
    times = _times_passed(call, calls) if len(read) == 1 else 0
    if times and (times == 1 or (how == "reshape" and read[0].repeats == 1)):
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


@dataclass(frozen=True)
class Part:
    """A weight of the widest network, with the channels along each axis that has some."""

    layer: str
    index: int
    weight: tf.Variable
    axes: Mapping[int, Channels]

    def taken(self, answers: Mapping[str, Any]) -> np.ndarray:
        """Return the values of the narrower network's weight: the first of each layer's."""
        values = latent(self.weight).numpy()
        for axis, channels in self.axes.items():
            values = np.take(values, channels.taken(answers), axis)
        return values


def weights_of(model: tf.keras.Model) -> dict[tuple[str, int], tf.Variable]:
    """Return the weights of a network, by the name of the layer and a count."""
    return {
        (layer.name, index): latent(weight)
        for layer in model._flatten_layers(include_self=False)
        for index, weight in enumerate(layer.weights)
    }


def latent(weight: Any) -> tf.Variable:
    """Return what is trained of a weight; Larq wraps those it quantizes."""
    return getattr(weight, "latent_variable", weight)


@dataclass(frozen=True)
class LayerChannels:
    """A call of a layer, with the channels of its first input (an input's own) and its output.

    Weights are among the parts of its first call alone.
    """

    layer: tf.keras.layers.Layer
    kind: str
    reads: Channels
    gives: Channels
    parts: tuple[Part, ...]


def read_layers(model: tf.keras.Model) -> list[LayerChannels]:
    """Return each call of a layer of a network, whose widths remember where they came from.

    # Raises
        InputError: if a layer does with channels what cannot be followed.
    """
    calls = read_graph(model, apart=False)
    channels: list[Channels] = []
    for call in calls:
        channels.append(_channels_of(call, [channels[i] for i in call.inputs], calls))
    read = []
    for call, gives in zip(calls, channels, strict=True):
        reads = channels[call.inputs[0]] if call.inputs else gives
        parts = tuple(
            Part(call.layer.name, index, weight, _axes(call, latent(weight), reads, gives))
            for index, weight in enumerate(call.layer.weights if call.first else ())
        )
        read.append(LayerChannels(call.layer, call.facts.kind, reads, gives, parts))
    return read


def _axes(call: Call, weight: tf.Variable, reads: Channels, gives: Channels) -> dict[int, Channels]:
    """Return the channels along the axes of a weight, told apart by what kind of layer it is of."""
    rank = weight.shape.rank
    if rank == 0:
        return {}
    last = rank - 1
    if call.facts.kind in ("conv", "dense") and rank >= 2 and call.facts.groups == 1:
        axes = {last - 1: reads, last: gives}
    elif passing(call) == "multiply" and rank >= 2:
        axes = {last - 1: reads}
    else:
        axes = {last: gives}
    # Of a variable that takes any size, the shape of its value alone is known.
    shape = tf.shape(weight).numpy()
    for axis, channels in axes.items():
        if shape[axis] != channels.count:
            raise InputError(
                f"Weight `{weight.name}` has {shape[axis]} values for {channels.count} channels: "
                "those of another width cannot be told from it."
            )
    return axes


Parts: TypeAlias = list[tuple[int, int]]
"""The channels of a tensor, side by side: a width by its number, and how many times it."""


OUTPUTS = "it gives the outputs"
_OTHERWISE = "joins channels that are put together otherwise"


@dataclass(frozen=True)
class Group:
    """First calls of layers that must be as wide as each other, and why they are fixed, if so."""

    calls: tuple[Call, ...]
    filters: int
    fixed: str

    @property
    def name(self) -> str:
        return self.calls[0].name.replace("/", "_")

    @property
    def quantized(self) -> list[str]:
        """Names of the layers with a quantized kernel."""
        return [call.name for call in self.calls if _is_quantized(call.layer)]


def read_groups(
    calls: Sequence[Call], ratios: Sequence[float], multiple_of: int = 1
) -> list[Group]:
    """Return the groups of layers that set a width, in the order of their first layers.

    Widths are to change by `ratios`, rounded to multiples; groups of channels must divide them all.
    """
    return _Groups(calls, multiple_of).read(ratios)


class _Groups:
    """Numbered widths, some tied to each other, some fixed for a reason."""

    def __init__(self, calls: Sequence[Call], multiple_of: int) -> None:
        self._calls, self._multiple_of = calls, multiple_of
        self._filters: list[int] = []
        # Of a width that stands for those tied to it, why they are fixed, if so.
        self._reasons: list[str] = []
        self._tied: DisjointSet[int] = DisjointSet()
        self._parts: list[Parts] = []
        self._set_by: dict[int, tuple[int, Call]] = {}
        self._divided: list[tuple[Call, Parts]] = []

    def read(self, ratios: Sequence[float]) -> list[Group]:
        for call in self._calls:
            parts = self._read(call)
            if sum(self._filters[i] * times for i, times in parts) != call.shape[-1]:
                self._fix(parts, f"`{call.name}` makes {call.shape[-1]} channels of it")
                parts = self._unknown(call, "")
            self._parts.append(parts)
            if call.output:
                self._fix(parts, OUTPUTS)
        self._tie_inputs_of_shared_layers()
        self._fix_indivisible(ratios)
        members: dict[int, list[Call]] = {}
        for number, call in self._set_by.values():
            members.setdefault(self._root(number), []).append(call)
        return [
            Group(tuple(calls), self._filters[root], self._reasons[root])
            for root, calls in members.items()
        ]

    def _read(self, call: Call) -> Parts:
        inputs, how = [self._parts[index] for index in call.inputs], passing(call)
        if how == "given":
            return self._new(call.shape[-1], "it is tied to the images")
        if how == "own":
            return self._own_width(call, inputs[0])
        if how == "join" and len(inputs) > 1 and call.facts.constants <= 1:
            return self._join(call, inputs)
        if how == "concat":
            widths = [self._calls[index].shape[-1] for index in call.inputs]
            if sum(widths) == call.shape[-1]:
                return [part for parts in inputs for part in parts]
            return self._join(call, inputs)  # along the height or the width
        if len(inputs) == 1 and not (call.facts.kind == "unknown" and _is_quantized(call.layer)):
            times = _times_passed(call, self._calls)
            if times:
                return [(number, times * before) for number, before in inputs[0]]
        reason = f"`{call.name}` of class {type(call.layer).__name__} may need the channels it has"
        for parts in inputs:
            self._fix(parts, reason)
        return self._unknown(call, reason)

    def _new(self, filters: int, fixed: str = "") -> Parts:
        self._filters.append(filters)
        self._reasons.append(fixed)
        number = len(self._filters) - 1
        self._tied.add(number)
        return [(number, 1)]

    def _unknown(self, call: Call, reason: str) -> Parts:
        parts = self._new(call.shape[-1], reason or f"`{call.name}` sets it")
        if _is_quantized(call.layer):
            self._set_by.setdefault(id(call.layer), (parts[0][0], call))
        return parts

    def _own_width(self, call: Call, read: Parts) -> Parts:
        if id(call.layer) not in self._set_by:
            ((number, _),) = self._new(int(call.facts.filters or 0))
            self._set_by[id(call.layer)] = number, call
        parts = [(self._set_by[id(call.layer)][0], 1)]
        if call.facts.groups > 1:
            self._divided += [(call, read), (call, parts)]
        return parts

    def _join(self, call: Call, inputs: list[Parts]) -> Parts:
        """Tie what is added; one channel that is spread over others is not."""
        wide = []
        for index, parts in zip(call.inputs, inputs, strict=True):
            if self._calls[index].shape[-1] == call.shape[-1]:
                wide.append(parts)
            else:
                self._fix(parts, f"`{call.name}` spreads it over {call.shape[-1]} channels")
        for parts in wide[1:]:
            self._tie(wide[0], parts, f"`{call.name}` {_OTHERWISE}")
        return wide[0]

    def _root(self, number: int) -> int:
        """Return the first of the widths that are tied to this one."""
        return min(self._tied.subset(number))

    def _tie(self, one: Parts, other: Parts, fixed: str) -> None:
        """Tie widths one by one, or fix all for the reason `fixed` if they do not match."""
        if self._sizes(one) != self._sizes(other):
            self._fix(one, fixed)
            self._fix(other, fixed)
            return
        for (a, _), (b, _) in zip(one, other, strict=True):
            first, second = sorted((self._root(a), self._root(b)))
            self._tied.merge(first, second)
            self._reasons[first] = self._reasons[first] or self._reasons[second]

    def _fix(self, parts: Parts, reason: str) -> None:
        """Fix widths and those tied to them; the first reason is kept."""
        for number, _ in parts:
            root = self._root(number)
            self._reasons[root] = self._reasons[root] or reason

    def _sizes(self, parts: Parts) -> list[tuple[int, int]]:
        return [(self._filters[number], times) for number, times in parts]

    def _tie_inputs_of_shared_layers(self) -> None:
        first: dict[int, Call] = {}
        for call in self._calls:
            before = first.setdefault(id(call.layer), call)
            if before is not call and call.layer.weights:
                for one, other in zip(before.inputs, call.inputs, strict=True):
                    self._tie(self._parts[one], self._parts[other], f"`{call.name}` {_OTHERWISE}")

    def _fix_indivisible(self, ratios: Sequence[float]) -> None:
        for call, parts in self._divided:
            groups = call.facts.groups
            for filters, times in self._sizes(parts):
                widths = {ratio: expand(filters, ratio, self._multiple_of) for ratio in ratios}
                left = [ratio for ratio in ratios if widths[ratio] * times % groups]
                if left or filters * times % groups:
                    reason = f"the {groups} groups of `{call.name}` do not divide {filters} x "
                    self._fix(parts, reason + ", ".join(map(str, left or [1])))


def _is_quantized(layer: Any) -> bool:
    names = ("kernel_quantizer", "pointwise_quantizer")
    return any(getattr(layer, name, None) is not None for name in names)
