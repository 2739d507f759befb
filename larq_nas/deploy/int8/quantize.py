"""A network with its real part in int8, through fake-quant."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from larq_nas.cost.fusing import AFFINE, Fusing
from larq_nas.cost.network import Network
from larq_nas.deploy.int8.folding import Folded, activates_apart, foldable, is_affine, why_not
from larq_nas.deploy.int8.grid import Grid, Grids
from larq_nas.deploy.int8.plan import Int8, real_layers
from larq_nas.deploy.rewriting import Lowered
from larq_nas.deploy.rewriting.walk import Rewrite, call_layer
from larq_nas.errors import ConversionError

__all__ = ["InInt8", "quantize"]

_BATCH = 64
# Operations that give int8 as they read it, with the same steps.
_SAME_STEPS = ("max_pool", "global_max_pool", "reshape", "crop", "pad", "pass")
_OWN_STEPS = ("add", "global_average_pool", "relu")


@dataclass(frozen=True)
class InInt8:
    """A network with its real part in int8, as TensorFlow computes it with fake-quant.

    # Arguments
        lowered: the network as it is converted.
        layers: the real layers in int8.
        grids: what rounds its tensors.
        output: what rounds its output, if that is in int8.
    """

    lowered: Lowered
    layers: Sequence[Folded]
    grids: Grids = field(repr=False)
    output: Grid | None = None

    @property
    def name(self) -> str:
        """Name of the model."""
        return str(self.lowered.model.name)

    @property
    def step(self) -> float:
        """The step that outputs count in; 0 for float."""
        return self.output.step if self.output else 0.0

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return the outputs for `images`."""
        batches = [images[i : i + _BATCH] for i in range(0, len(images), _BATCH)]
        return np.concatenate([self.lowered(tf.constant(batch)).numpy() for batch in batches])

    def jittered(self, images: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the outputs with all numbers moved a little before they are rounded."""
        with self.grids.jittering():
            for _ in range(3):
                yield self.predict(images)


def quantize(lowered: Lowered, which: Int8, images: np.ndarray) -> InInt8:
    """Return a network with its real part in int8; `layers` is empty if there is none.

    # Arguments
        lowered: the network as it is converted without int8.
        which: which part.
        images: float32, real ones: the ranges of tensors are those seen on them.

    # Raises
        ConversionError: if a first or last layer cannot run in int8.
    """
    builder = _Builder(lowered, which)
    builder.build()
    network = builder.network
    if builder.layers:
        network.predict(images)
        builder.grids.mode = "round"
    return network


class _Builder:
    def __init__(self, lowered: Lowered, which: Int8) -> None:
        self.lowered, self.calls, self.all = lowered, lowered.calls, which == "all"
        self.fusing = Fusing(Network(lowered.calls))
        wanted = real_layers(self.fusing, which)
        for index in wanted:
            cause = why_not(self.calls[index])
            if cause and not self.all:
                raise ConversionError(
                    f"Layer `{self.calls[index].name}` cannot run in int8: {cause}; or convert "
                    "without int8."
                )
        self.wanted = {index for index in wanted if not why_not(self.calls[index])}
        self.grids, self.layers = Grids(), list[Folded]()
        self.rounded: dict[int, Grid] = {}
        self.folded: set[int] = set()
        # In int8 a batch norm is an operation wherever it stands, and needs no other place.
        moved = {index for index in lowered.rewrites if self.fusing.kind(index) == "norm"}
        self.rewrites = {
            index: rewrite
            for index, rewrite in lowered.rewrites.items()
            if not self.all or index not in moved
        }

    @property
    def network(self) -> InInt8:
        lowered = Lowered(self.lowered.model, self.calls, self.rewrites)
        (output,) = [index for index, call in enumerate(self.calls) if call.output]
        return InInt8(lowered, self.layers, self.grids, self.rounded.get(output))

    def build(self) -> None:
        for index in range(len(self.calls)):
            if index in self.wanted:
                self.layers.append(self._fold(index))
            elif self.all and index not in self.folded:
                self._round(index)

    def _fold(self, index: int) -> Folded:
        """Compute a real layer in int8."""
        (read,) = self.calls[index].inputs
        chain = foldable(self.fusing, index)
        end = chain[-1] if chain else index
        grid = None if read in self.rounded else self.grids.new(exact=True)
        apart = activates_apart(self.calls[index].layer)
        write = self.grids.new() if apart else self._grid(end)
        folded = Folded(self.calls, index, chain, grid, write)
        self.rewrites[end] = Rewrite(end, (read,), folded, variables=[folded.weights.variable])
        self.folded.update(chain)
        return folded

    def _grid(self, index: int) -> Grid:
        self.rounded[index] = self.grids.new(self.fusing.read_as_bits(index))
        return self.rounded[index]

    def _round(self, index: int) -> None:
        """Round what a call between real layers gives, if its operation runs in int8."""
        same = self.fusing.network.stands_for[index]
        if same != index:
            self._repeat(index, same)
            return
        kind, binary = self.fusing.kind(index), self.fusing.binary[index]
        end = (self.fusing.chain(index) or [index])[-1]
        reads = self.calls[index].inputs
        known = [self.rounded[read] for read in reads if read in self.rounded]
        if binary or (len(known) == len(reads) and kind in _OWN_STEPS):
            self.folded.update(self.fusing.chain(index))
            if not (binary and self.fusing.read_as_bits(end)):
                self._round_output(end, self._grid(end))
        elif known and kind in AFFINE and self._is_depthwise(index):
            self._fold(index)
        elif known and kind in _SAME_STEPS:
            self.rounded[index] = known[0]
        elif len(known) == len(reads) and kind == "concat":
            self.rounded[index] = self.grids.join(*known)
        elif known and kind == "average_pool":
            self.rounded[index] = known[0]
            self._round_output(index, known[0])

    def _is_depthwise(self, index: int) -> bool:
        """Return whether an affine call can run as a depthwise convolution of 1x1."""
        call = self.calls[index]
        return len(call.shape) == 3 and len(call.inputs) == 1 and is_affine(call)

    def _repeat(self, index: int, same: int) -> None:
        if same in self.rounded:
            self.rounded[index] = self.rounded[same]
            self.rewrites[index] = Rewrite(index, (same,), lambda x: x)

    def _round_output(self, index: int, grid: Grid) -> None:
        call, rewrite = self.calls[index], self.rewrites.get(index)
        inputs = rewrite.inputs if rewrite else call.inputs

        def compute(*values: tf.Tensor) -> tf.Tensor:
            output = (
                rewrite.compute(*values) if rewrite else call_layer(call, values)[call.position]
            )
            return grid(output)

        if rewrite:
            self.rewrites[index] = Rewrite(
                index, inputs, compute, rewrite.reason, rewrite.kernels, rewrite.variables
            )
        else:
            self.rewrites[index] = Rewrite(index, inputs, compute)
