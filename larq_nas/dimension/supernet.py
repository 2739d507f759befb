"""The network whose widths are searched: one trace, whatever they are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.choosers import Widest
from larq_nas.dimension.dimensions import Dimensions
from larq_nas.dimension.masks import Masks
from larq_nas.errors import InputError
from larq_nas.expansion import at
from larq_nas.layers import Domain
from larq_nas.pipeline.check import DataFacts
from larq_nas.resizing import (
    Initial,
    LayerChannels,
    Part,
    latent,
    read_layers,
    resizable_constants,
    resizable_network,
)
from larq_nas.resizing.channels import Channels
from larq_nas.spaces import Space

__all__ = ["Supernet"]

_WEIGHTED = ("conv", "dense")


class Supernet:
    """A network as wide as the widest of the three ratios, of which any width can be computed.

    # Arguments
        space: the space.
        facts: the images and classes.
        domain: what is binary.
        dimensions: the widths.
        seed: seed of the values that new channels start with.
        masks: how shares of channels are computed.

    # Attributes
        network: the network; its weights take any size.
        parts: its weights, and which of their axes are channels.
        masks: let its layers read what is sampled.

    # Raises
        InputError: if a layer does with channels what cannot be followed.
    """

    def __init__(
        self,
        space: Space,
        facts: DataFacts,
        domain: Domain,
        dimensions: Dimensions,
        seed: int,
        masks: type[Masks] = Masks,
    ) -> None:
        self._dimensions = dimensions
        self._widths = dimensions.widest()
        self.network, initial = resizable_network(space, Widest(self._widths), facts, domain)
        layers = read_layers(self.network)
        self.parts = [part for layer in layers for part in layer.parts]
        self._made = {id(layer.layer): layer.gives for layer in layers}
        self._constants = resizable_constants(self.network)
        self._fresh = _Fresh(self.parts, initial, seed)
        self.masks = masks(dimensions)
        self._mask(layers)
        self.follow()

    def resize(self, number: int, best_effort: bool = True) -> None:
        """Take the widths that the dimensions have now (DMS, equations 9 and 10).

        What of the weights the new network has too stays as it is; new channels start as those
        of a new network do.

        # Arguments
            number: how often the widths were changed, which new values follow from.
            best_effort: whether weights stay; without, all of them start anew.
        """
        before, after = self._widths, self._dimensions.widest()
        for place, part in enumerate(self.parts):
            weight = latent(part.weight)
            old = weight.numpy()
            new = self._fresh.values(weight, _shape(part, old.shape, after), number, place)
            if best_effort:
                new[_shared(part, new.shape, before, layout=after)] = old[
                    _shared(part, old.shape, after, layout=before)
                ]
            weight.assign(new)
        self.follow()

    def follow(self) -> None:
        """Note the widths that the dimensions have now, to which the weights were restored."""
        self._widths = self._dimensions.widest()
        for constant, layer, filling in self._constants:
            channels = len(self._made[id(layer)].taken(self._widths, self._widths))
            constant.assign(tf.fill([channels], filling))

    def _mask(self, layers: Sequence[LayerChannels]) -> None:
        read: dict[int, LayerChannels] = {}
        for layer in layers:
            if layer.kind not in _WEIGHTED:
                continue
            first = read.setdefault(id(layer.layer), layer)
            if first is layer:
                self.masks.apply(layer.layer, layer.reads)
            elif not self._alike(first.reads, layer.reads):
                raise InputError(
                    f"Layer `{layer.layer.name}` is called on channels of several choices: give "
                    "each a layer of its own."
                )

    def _alike(self, first: Channels, second: Channels) -> bool:
        """Return whether the same choices give both numbers of channels."""
        apart = {name: 1000 + 17 * place for place, name in enumerate(self._dimensions.names)}
        first_parts, second_parts = (
            [at(part, apart) for part in one.parts] for one in (first, second)
        )
        return (first_parts, first.repeats) == (second_parts, second.repeats)


class _Fresh:
    """Values that new weights start with, from the initializers of their layers."""

    def __init__(self, parts: Sequence[Part], initial: Initial, seed: int) -> None:
        self._initial = initial
        self._seed = seed
        for part in parts:
            if latent(part.weight).ref() not in initial:
                raise InputError(
                    f"Weight `{part.weight.name}` must be made by a Keras initializer, for new "
                    "channels to start with its values: give its layer one, such as "
                    '"glorot_uniform".'
                )

    def values(
        self, weight: tf.Variable, shape: tuple[int, ...], number: int, place: int
    ) -> np.ndarray:
        made = self._initial[weight.ref()]
        config = made.get_config()
        if "seed" in config:
            words = np.random.SeedSequence([self._seed, number, place]).generate_state(1)
            made = type(made).from_config({**config, "seed": int(words[0] >> 1)})
        # A copy: TensorFlow's own cannot be written to.
        return np.array(made(shape, dtype=weight.dtype))


def _shape(part: Part, shape: tuple[int, ...], answers: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape of a weight in a network of these widths."""
    return tuple(
        len(part.axes[axis].taken(answers, answers)) if axis in part.axes else size
        for axis, size in enumerate(shape)
    )


def _shared(
    part: Part, shape: tuple[int, ...], other: Mapping[str, Any], *, layout: Mapping[str, Any]
) -> Any:
    """Return where in a weight of widths `layout` the channels are that `other` has too."""
    return np.ix_(
        *[
            part.axes[axis].taken(other, layout) if axis in part.axes else np.arange(size)
            for axis, size in enumerate(shape)
        ]
    )
