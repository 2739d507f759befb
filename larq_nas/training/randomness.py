"""Makes what random layers draw follow from a seed alone, not from what was drawn before."""

from typing import Any

import numpy as np
import tensorflow as tf

__all__ = ["RandomLayers"]


class RandomLayers:
    """The layers of a network that draw random numbers of Keras, such as `Dropout`.

    As Keras makes them they go on drawing from where they are, which a process that is
    started again does not know.

    # Arguments
        network: built, and not traced yet.
    """

    def __init__(self, network: tf.keras.Model) -> None:
        self._generators: list[tf.random.Generator] = []
        for layer in network._flatten_layers(include_self=False):
            drawn = getattr(layer, "_random_generator", None)
            if hasattr(drawn, "make_legacy_seed"):
                self._generators.append(_stateful(layer, type(drawn)))

    def reset(self, *seeds: int) -> None:
        """Draw from the start of the sequence that `seeds` give, which are 0 or more."""
        for place, generator in enumerate(self._generators):
            words = np.random.SeedSequence([*seeds, place]).generate_state(1, np.uint64)
            generator.reset_from_seed(int(words[0] >> np.uint64(1)))


def _stateful(layer: tf.keras.layers.Layer, kind: Any) -> tf.random.Generator:
    drawn = kind(seed=0, rng_type="stateful")
    # Set as Keras sets attributes, it would be a weight of the layer.
    object.__setattr__(layer, "_random_generator", drawn)
    drawn._maybe_init()
    generator: tf.random.Generator = drawn._generator
    return generator
