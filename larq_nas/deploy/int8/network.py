"""A network with its real part in int8, as TensorFlow computes it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from larq_nas.deploy.int8.folding import Folded
from larq_nas.deploy.int8.grid import Grid, Grids
from larq_nas.deploy.rewriting import Lowered

__all__ = ["InInt8"]

_BATCH = 64
_JITTERS = 3


@dataclass(frozen=True)
class InInt8:
    """A network with its real part in int8, as TensorFlow computes it with fake-quant.

    # Arguments
        lowered: the network as it is converted.
        layers: the real layers in int8.
        grids: what rounds its tensors.
        rounded: by index of a call, what its output is rounded with.
    """

    lowered: Lowered
    layers: Sequence[Folded]
    grids: Grids = field(repr=False)
    rounded: Mapping[int, Grid] = field(repr=False)

    @property
    def name(self) -> str:
        """Name of the model."""
        return str(self.lowered.model.name)

    @property
    def step(self) -> float:
        """The step that outputs count in; 0 for float."""
        (output,) = self.lowered.outputs
        return self.rounded[output].step if output in self.rounded else 0.0

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return the outputs for `images`."""
        batches = [images[i : i + _BATCH] for i in range(0, len(images), _BATCH)]
        return np.concatenate([self.lowered(tf.constant(batch))[0].numpy() for batch in batches])

    def jittered(self, images: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the outputs with all numbers moved a little before they are rounded."""
        with self.grids.jittering():
            for _ in range(_JITTERS):
                yield self.predict(images)
