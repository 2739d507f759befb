"""A network with its real part in int8, as TensorFlow computes it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from larq_nas.deploy.int8.folding import Folded
from larq_nas.deploy.int8.grid import Grid, Grids
from larq_nas.deploy.meaning import Kind, meanings
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
        notes: what stays in float, and why.
    """

    lowered: Lowered
    layers: Sequence[Folded]
    grids: Grids = field(repr=False)
    rounded: Mapping[int, Grid] = field(repr=False)
    notes: Sequence[str] = ()

    @property
    def name(self) -> str:
        """Name of the model."""
        return str(self.lowered.model.name)

    @property
    def step(self) -> float:
        """The step that outputs count in; 0 for float."""
        steps = [self.rounded[o].step for o in self.lowered.outputs if o in self.rounded]
        return max(steps, default=0.0)

    @property
    def meanings(self) -> Sequence[Kind]:
        """What each output is."""
        return [one.kind for one in meanings(self.lowered.model)]

    def predict(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the outputs for `images`, one array for each input and each output."""
        found = []
        for start in range(0, len(images[0]), _BATCH):
            batch = [tf.constant(image[start : start + _BATCH]) for image in images]
            found.append([output.numpy() for output in self.lowered(*batch)])
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]

    def jittered(self, images: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
        """Yield the outputs with all numbers moved a little before they are rounded."""
        with self.grids.jittering():
            for _ in range(_JITTERS):
                yield self.predict(images)
