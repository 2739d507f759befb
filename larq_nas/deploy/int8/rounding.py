"""Puts fake-quant on what a network computes with real numbers."""

import dataclasses

import numpy as np
import tensorflow as tf

from larq_nas.cost.fusing import Fusing
from larq_nas.cost.graph import Call
from larq_nas.cost.network import Network
from larq_nas.deploy.int8.folding import Folded, activates_apart, foldable, why_not
from larq_nas.deploy.int8.grid import Grid, Grids
from larq_nas.deploy.int8.network import InInt8
from larq_nas.deploy.int8.plan import Int8, real_layers
from larq_nas.deploy.rewriting import Lowered
from larq_nas.deploy.rewriting.walk import Rewrite, call_layer
from larq_nas.errors import ConversionError

__all__ = ["quantize"]

# Operations that give int8 in the steps they read it in, and others.
_SAME_STEPS = ("max_pool", "global_max_pool", "reshape", "crop", "pad", "pass")
_OWN_STEPS = ("add", "global_average_pool", "relu")
# What the converter puts in int8 by itself behind an operation in int8, and its range there.
_FIXED = {"softmax": (0.0, 255 / 256), "sigmoid": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}


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
        network.predict([images])
        builder.grids.mode = "round"
    return network


class _Builder:
    """Goes through a network call by call, and says how each is computed in int8."""

    def __init__(self, lowered: Lowered, which: Int8) -> None:
        self.lowered, self.calls, self.all = lowered, lowered.calls, which == "all"
        self.fusing = Fusing(Network(lowered.calls), moves=False)
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
        # An offset before a sign has no range that int8 could divide.
        self.rewrites = {i: one for i, one in lowered.rewrites.items() if not one.signs_only}
        # What a batch norm that was moved reads fuses with it, which rounding would prevent.
        moved = [index for index in lowered.rewrites if self.fusing.kind(index) == "norm"]
        self.unrounded = {read for index in moved for read in lowered.rewrites[index].inputs}

    @property
    def network(self) -> InInt8:
        lowered = Lowered(self.lowered.model, self.calls, self.rewrites)
        return InInt8(lowered, self.layers, self.grids, self.rounded)

    def build(self) -> None:
        for index, call in enumerate(self.calls):
            same = self.fusing.network.stands_for[index]
            if index in self.wanted:
                self.layers.append(self._fold(index))
            elif same != index and same in self.rounded:
                self.rounded[index] = self.rounded[same]
                self.rewrites[index] = Rewrite(index, (same,), lambda x: x)
            elif index not in self.folded and not self._keep_steps(index, call):
                self._round(index, call)

    def _fold(self, index: int) -> Folded:
        """Compute a real layer in int8."""
        (read,) = self.calls[index].inputs
        chain = foldable(self.fusing, index)
        end = chain[-1] if chain else index
        grid = None if read in self.rounded else self.grids.new(exact=True)
        layer = self.calls[index].layer
        active = None
        if activates_apart(layer):
            write, active = self.grids.new(), self._fixed(end, layer.activation)
        else:
            write = self._grid(end)
        folded = Folded(self.calls, index, chain, grid, write, active)
        self.rewrites[end] = Rewrite(end, (read,), folded, variables=[folded.weights.variable])
        self.folded.update(chain)
        return folded

    def _fixed(self, index: int, activation: object) -> Grid | None:
        """Return what rounds the output of an activation with a fixed range."""
        fixed = _FIXED.get(getattr(activation, "__name__", ""))
        if fixed:
            self.rounded[index] = self.grids.new(fixed=fixed)
        return self.rounded.get(index)

    def _grid(self, index: int) -> Grid:
        self.rounded[index] = self.grids.new(self.fusing.read_as_bits(index))
        return self.rounded[index]

    def _keep_steps(self, index: int, call: Call) -> bool:
        """Return whether a call gives int8 as soon as it reads it, and take note of it."""
        known = [self.rounded[read] for read in call.inputs if read in self.rounded]
        kind = self.fusing.kind(index)
        if not known or len(known) < len(call.inputs):
            return False
        if kind in _SAME_STEPS:
            self.rounded[index] = known[0]
        elif kind == "concat":
            self.rounded[index] = self.grids.join(*known)
        elif kind == "average_pool":
            self.rounded[index] = known[0]
            self._round_output(index, known[0])
        elif kind == "activation":
            softmax = isinstance(call.layer, tf.keras.layers.Softmax)
            activation = tf.nn.softmax if softmax else getattr(call.layer, "activation", None)
            grid = self._fixed(index, activation)
            if grid:
                self._round_output(index, grid)
        return index in self.rounded

    def _round(self, index: int, call: Call) -> None:
        """Round what a call between real layers gives, if its operation runs in int8."""
        kind, binary = self.fusing.kind(index), self.fusing.binary[index]
        known = all(read in self.rounded for read in call.inputs)
        if not self.all or not (binary or (known and kind in _OWN_STEPS)):
            return
        chain = self.fusing.chain(index)
        end = chain[-1] if chain else index
        self.folded.update(chain)
        if kind == "add" and len(call.inputs) > 2:
            self.rewrites[index] = self._sum(index, call)
        as_bits = binary and self.fusing.read_as_bits(end)
        if not as_bits and end not in self.unrounded:
            self._round_output(end, self._grid(end))

    def _sum(self, index: int, call: Call) -> Rewrite:
        """Return how to add several tensors, each sum but the last rounded."""
        grids = [self.grids.new() for _ in call.inputs[2:]]

        def compute(first: tf.Tensor, *others: tf.Tensor) -> tf.Tensor:
            total = first + others[0]
            for grid, other in zip(grids, others[1:], strict=True):
                total = grid(total) + other
            return total

        return Rewrite(index, call.inputs, compute)

    def _round_output(self, index: int, grid: Grid) -> None:
        call, rewrite = self.calls[index], self.rewrites.get(index)

        def compute(*values: tf.Tensor) -> tf.Tensor:
            output = (
                rewrite.compute(*values) if rewrite else call_layer(call, values)[call.position]
            )
            return grid(output)

        before = rewrite or Rewrite(index, call.inputs, compute)
        self.rewrites[index] = dataclasses.replace(before, compute=compute)
