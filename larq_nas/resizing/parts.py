"""The weights of a network, and which of their axes are whose channels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.cost.graph import Call, read_graph
from larq_nas.errors import InputError
from larq_nas.resizing.channels import Channels, trace_channels

__all__ = ["LayerChannels", "Part", "latent", "read_layers", "weights_of"]


@dataclass(frozen=True)
class Part:
    """A weight, and what of it a narrower network has.

    # Arguments
        layer: name of its layer.
        index: which of the layer's weights it is.
        weight: the weight, of the widest network.
        axes: the channels along each axis that has some.
    """

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
    """A layer of a network, with the channels it reads and gives.

    # Arguments
        layer: the layer.
        kind: what it does; see `larq_nas.cost.facts.Facts`.
        reads: the channels of its first input; its own output's for an input.
        gives: the channels of its output.
        parts: its weights; none after the first call of a shared layer.
    """

    layer: tf.keras.layers.Layer
    kind: str
    reads: Channels
    gives: Channels
    parts: tuple[Part, ...]


def read_layers(model: tf.keras.Model) -> list[LayerChannels]:
    """Return each call of a layer of a network, in the order in which they are called.

    # Arguments
        model: the network, whose widths remember where they came from.

    # Raises
        InputError: if a layer does with channels what cannot be followed.
    """
    calls = read_graph(model, apart=False)
    channels = trace_channels(calls)
    read = []
    for number, call in enumerate(calls):
        reads = channels[call.inputs[0]] if call.inputs else channels[number]
        parts = tuple(_parts(call, reads, channels[number])) if call.first else ()
        read.append(LayerChannels(call.layer, call.facts.kind, reads, channels[number], parts))
    return read


def _parts(call: Call, reads: Channels, gives: Channels) -> list[Part]:
    return [
        Part(call.layer.name, index, weight, _axes(call, latent(weight), reads, gives))
        for index, weight in enumerate(call.layer.weights)
    ]


def _axes(call: Call, weight: tf.Variable, reads: Channels, gives: Channels) -> dict[int, Channels]:
    """Return the channels along the axes of a weight, told apart by what kind of layer it is of."""
    rank = weight.shape.rank
    if rank == 0:
        return {}
    last = rank - 1
    if call.facts.kind in ("conv", "dense") and rank >= 2 and call.facts.groups == 1:
        axes = {last - 1: reads, last: gives}
    elif call.facts.kind == "depthwise" and rank >= 2:
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
