"""Puts fake-quant on what a network computes with real numbers."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from larq_nas.cost.fallback import pads_with_zeros
from larq_nas.cost.fusing import Fusing
from larq_nas.cost.graph import Call
from larq_nas.cost.network import Network
from larq_nas.deploy.int8.border import border
from larq_nas.deploy.int8.folding import Folded, cause_of_float, foldable, keeps_activation
from larq_nas.deploy.int8.grid import Grid, Grids
from larq_nas.deploy.int8.network import InInt8
from larq_nas.deploy.int8.plan import Int8, real_layers
from larq_nas.deploy.int8.verify import LARGEST_LOSS, losses
from larq_nas.deploy.rewriting import Lowered
from larq_nas.deploy.rewriting.walk import Rewrite, call_layer
from larq_nas.errors import ConversionError

__all__ = ["quantize"]

# Operations that give int8 in the steps they read it in, and others.
_SAME_STEPS = ("max_pool", "global_max_pool", "reshape", "crop", "pad", "pass")
_OWN_STEPS = ("add", "global_average_pool", "relu")
# What the converter puts in int8 by itself behind an operation in int8, and its range there.
_FIXED = {"softmax": (0.0, 255 / 256), "sigmoid": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}


def quantize(lowered: Lowered, which: Int8, images: Sequence[np.ndarray]) -> InInt8:
    """Return a network with its real part in int8; `layers` is empty if there is none.

    What stands between real layers and loses more than rounding in int8 is left in float.

    # Arguments
        lowered: the network as it is converted without int8.
        which: which part.
        images: one array for each input, real ones: the ranges of tensors are those seen on them.

    # Raises
        ConversionError: if a first or last layer cannot run in int8.
    """
    floats: dict[int, str] = {}
    while True:
        builder = _Builder(lowered, which, floats)
        builder.build()
        network = builder.network
        if not builder.layers:
            return network
        network.predict(images)
        builder.grids.mode = "round"
        found = builder.lossy(losses(network, lowered, images))
        if not found:
            return network
        floats |= found


class _Builder:
    """Goes through a network call by call, and says how each is computed in int8.

    # Arguments
        lowered: the network.
        which: which part of it.
        floats: calls between real layers that stay in float, and why.
    """

    def __init__(self, lowered: Lowered, which: Int8, floats: Mapping[int, str]) -> None:
        self.lowered, self.calls, self.all = lowered, lowered.calls, which == "all"
        self.floats = floats
        self.fusing = Fusing(Network(lowered.calls), moves=False)
        targets = real_layers(self.fusing, which)
        causes = {index: cause_of_float(self.calls[index]) for index in targets}
        self.notes = [
            f"`{self.calls[index].name}` stays in float: {cause}"
            for index, cause in {**causes, **floats}.items()
            if cause
        ]
        for index, cause in causes.items():
            if cause and not self.all:
                raise ConversionError(
                    f"Layer `{self.calls[index].name}` cannot run in int8: {cause}; convert with "
                    'int8="all", which leaves it in float, or without int8.'
                )
        self.targets = {index for index, cause in causes.items() if not cause}
        self.grids, self.layers = Grids(), list[Folded]()
        self.rounded: dict[int, Grid] = {}
        self.joins: set[int] = set()
        # Calls that are part of an operation in int8.
        self.int8_calls: set[int] = set()
        self.folded_calls: set[int] = set()
        # An offset before a sign has no range that int8 could divide, which matters for "all".
        self.rewrites = {
            index: one
            for index, one in lowered.rewrites.items()
            if not (self.all and one.signs_only)
        }
        # What a batch norm that was moved reads fuses with it, which rounding would prevent.
        moved = [index for index in lowered.rewrites if self.fusing.kind(index) == "norm"]
        self.norm_inputs = {read for index in moved for read in lowered.rewrites[index].inputs}

    @property
    def network(self) -> InInt8:
        lowered = Lowered(self.lowered.model, self.calls, self.rewrites)
        return InInt8(lowered, self.layers, self.grids, self.rounded, self.notes)

    def build(self) -> None:
        for index, call in enumerate(self.calls):
            same = self.fusing.network.stands_for[index]
            if index in self.targets:
                self.layers.append(self._fold(index))
            elif same != index and same in self.rounded:
                self.rounded[index] = self.rounded[same]
                self.rewrites[index] = Rewrite(index, (same,), lambda x: x)
                self.int8_calls.add(index)
            elif index not in self.folded_calls and not self._keep_steps(index, call):
                self._round(index, call)
        for index in range(len(self.calls)):
            self._set_borders(index)

    def lossy(self, losses: Mapping[int, float]) -> dict[int, str]:
        """Return the calls between real layers that lose too much, and the reason in words.

        # Arguments
            losses: what each call loses, by index.
        """
        ends = {layer.end for layer in self.layers}
        found: dict[int, str] = {}
        for index, loss in losses.items():
            if loss <= LARGEST_LOSS:
                continue
            name = self.calls[index].name
            lost = f"`{name}` would lose {loss:.0%} of its standard deviation in int8"
            grid = self.rounded.get(index)
            ways = [i for i in self.joins if grid and self.rounded[i].seen is grid.seen]
            found |= dict.fromkeys(ways, f"it needs one range for all that it joins, and {lost}")
            if not ways and index not in ends:
                found[index] = lost
        return found

    def _fold(self, index: int) -> Folded:
        """Compute a real layer in int8."""
        (read,) = self.calls[index].inputs
        chain = foldable(self.fusing, index)
        end = chain[-1] if chain else index
        grid = None if read in self.rounded else self.grids.new(exact=True)
        layer = self.calls[index].layer
        active = None
        if keeps_activation(layer):
            write, active = self.grids.new(), self._fixed(end, layer.activation)
        else:
            write = self._grid(end)
        folded = Folded(self.calls, index, chain, grid, write, active)
        alone = grid is None or self._gives_steps(read)
        self.rewrites[end] = Rewrite(
            end,
            (read,),
            folded if alone else lambda x: folded(border(x)),
            variables=[folded.weights.variable],
        )
        self.folded_calls.update(chain)
        self.int8_calls |= {index, *chain}
        return folded

    def _gives_steps(self, index: int) -> bool:
        """Return whether what computes call `index` may give int8 itself, for its one reader."""
        while len(self.fusing.readers[index]) == 1 and not self.calls[index].output:
            kind = self.fusing.kind(index)
            if kind == "input":
                return True
            if kind not in _SAME_STEPS:
                start = self.fusing.chain_start(index)
                return self.fusing.binary[start] and not pads_with_zeros(self.calls[start].layer)
            (index,) = self.fusing.inputs[index]
        return False

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
        """Return whether a call gives int8 where it reads int8, and keep its grid if so."""
        known = [self.rounded[read] for read in call.inputs if read in self.rounded]
        kind, layer = self.fusing.kind(index), call.layer
        if not known or len(known) < len(call.inputs) or index in self.floats:
            return False
        if kind in _SAME_STEPS or (kind == "resize" and _repeats(layer)):
            self.rounded[index] = known[0]
        elif kind == "concat":
            self.rounded[index] = self.grids.join(*known)
            self.joins.add(index)
        elif kind == "average_pool" or (kind == "resize" and _is_bilinear(layer)):
            self.rounded[index] = known[0]
            self._round_output(index, known[0])
        elif kind == "activation":
            softmax = isinstance(layer, tf.keras.layers.Softmax) and layer.axis == -1
            activation = tf.keras.activations.softmax if softmax else None
            grid = self._fixed(index, activation or getattr(layer, "activation", None))
            if grid:
                self._round_output(index, grid)
        if index in self.rounded:
            self.int8_calls.add(index)
        return index in self.rounded

    def _round(self, index: int, call: Call) -> None:
        """Round what a call between real layers gives, if its operation runs in int8."""
        kind, binary = self.fusing.kind(index), self.fusing.binary[index]
        known = all(read in self.rounded for read in call.inputs)
        if not self.all or not (binary or (known and kind in _OWN_STEPS)):
            return
        chain = self.fusing.chain(index)
        end = chain[-1] if chain else index
        self.folded_calls.update(chain)
        if end in self.floats:
            return
        if kind == "add" and len(call.inputs) > 2:
            self.rewrites[index] = self._sum(index, call)
        self.int8_calls |= {index, *chain}
        as_bits = binary and self.fusing.read_as_bits(end)
        if as_bits or end in self.norm_inputs:
            return
        if not binary or not pads_with_zeros(call.layer):
            self._round_output(end, self._grid(end))
        elif self.fusing.readers[end]:
            self.notes.append(
                f"`{call.name}` pads with zeros and gives float, which a QUANTIZE behind it "
                "rounds; with pad_values=1 it would give int8 itself"
            )
            self._round_output(end, self._grid(end), own_operation=True)

    def _sum(self, index: int, call: Call) -> Rewrite:
        """Return how to add several tensors, each sum but the last rounded."""
        grids = [self.grids.new() for _ in call.inputs[2:]]

        def compute(first: tf.Tensor, *others: tf.Tensor) -> tf.Tensor:
            total = first + others[0]
            for grid, other in zip(grids, others[1:], strict=True):
                total = grid(total) + other
            return total

        return Rewrite(index, call.inputs, compute)

    def _round_output(self, index: int, grid: Grid, own_operation: bool = False) -> None:
        """Round what a call gives, in its operation or by one of its own."""
        self._wrap(index, lambda x: x, lambda y: grid(border(y) if own_operation else y))

    def _set_borders(self, index: int) -> None:
        """Let a call that is in float read float, but for signs, which are taken of int8."""
        if (
            index in self.int8_calls
            or self.fusing.kind(index) == "sign"
            or self.fusing.binary[index]
        ):
            return
        if any(read in self.rounded for read in self._inputs(index)):
            self._wrap(index, border, lambda y: y)

    def _inputs(self, index: int) -> tuple[int, ...]:
        rewrite = self.rewrites.get(index)
        return rewrite.inputs if rewrite else self.calls[index].inputs

    def _wrap(
        self,
        index: int,
        before: Callable[[tf.Tensor], tf.Tensor],
        after: Callable[[tf.Tensor], tf.Tensor],
    ) -> None:
        """Compute a call as it is, between other functions of each input that is rounded."""
        call, rewrite, inputs = self.calls[index], self.rewrites.get(index), self._inputs(index)

        def compute(*values: tf.Tensor) -> tf.Tensor:
            read = [
                before(value) if number in self.rounded else value
                for number, value in zip(inputs, values, strict=True)
            ]
            output = rewrite.compute(*read) if rewrite else call_layer(call, read)[call.position]
            return after(output)

        self.rewrites[index] = dataclasses.replace(
            rewrite or Rewrite(index, inputs, compute), compute=compute
        )


def _repeats(layer: tf.keras.layers.Layer) -> bool:
    """Return whether a layer that makes images larger repeats their numbers."""
    return isinstance(layer, tf.keras.layers.UpSampling2D) and layer.interpolation == "nearest"


def _is_bilinear(layer: tf.keras.layers.Layer) -> bool:
    return isinstance(layer, tf.keras.layers.UpSampling2D) and layer.interpolation == "bilinear"
