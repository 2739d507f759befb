"""The weights of a narrower network, taken from the widest one."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from larq_nas.choosers import Widest
from larq_nas.expansion import expand
from larq_nas.resizing import read_layers

__all__ = ["Inheritance"]


class Inheritance:
    """What narrower networks take from the widest one: the first channels of each layer.

    Those of what a layer reads too, so that a layer of a narrower network computes of its
    inputs what the first filters of the wide one would, and additions stay valid.

    # Arguments
        model: the network of the largest widths, built by `choose`.
        choose: a chooser whose widths remember where they came from.

    # Attributes
        parts: every weight of the network, and what of it a narrower one has.

    # Raises
        InputError: if a layer does with channels what cannot be followed.

    # References
        - [Searching for Accurate Binary Neural Architectures](https://arxiv.org/abs/1909.07378),
          section 3.1
    """

    def __init__(self, model: tf.keras.Model, choose: Widest) -> None:
        self._expansions = choose.expansions
        read = read_layers(model)
        self._made = {layer.layer.name: layer.gives for layer in read}
        self.parts = [part for layer in read for part in layer.parts]

    def taken(self, values: Mapping[str, float]) -> dict[tuple[str, int], np.ndarray]:
        """Return the weights of a narrower network, by the name of the layer and a count.

        # Arguments
            values: the ratio of each choice by name.
        """
        filters = self._filters(values)
        return {(part.layer, part.index): part.taken(filters) for part in self.parts}

    def channels(self, layer: str, values: Mapping[str, float]) -> int:
        """Return how many channels a layer of a narrower network has."""
        return len(self._made[layer].taken(self._filters(values)))

    def _filters(self, values: Mapping[str, float]) -> dict[str, int]:
        return {
            name: expand(asked.filters, asked.decode(values[name]))
            for name, asked in self._expansions.items()
        }
