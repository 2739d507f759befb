"""Fake-quant of the real part of a network, and its check."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from larq_nas.deploy.flatbuffer import Operator, operators
from larq_nas.deploy.int8.folding import Folded, cause_of_float, foldable, keeps_activation
from larq_nas.deploy.int8.plan import Grid, Grids, Int8, border, real_layers
from larq_nas.deploy.meaning import Kind, meanings
from larq_nas.deploy.rewriting import Lowered
from larq_nas.deploy.rewriting.forms import Rewrite, call_layer, compute
from larq_nas.errors import ConversionError
from larq_nas.graph.calls import Call
from larq_nas.lce.fallback import pads_with_zeros
from larq_nas.lce.fusing import Fusing
from larq_nas.lce.network import Network

__all__ = ["InInt8", "losses", "quantize", "require_close", "require_int8", "stays_float"]


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


_MOVES = ("QUANTIZE", "DEQUANTIZE", "LceQuantize", "LceBconv2d")
_IMAGES = 64
# Int8 loses a hundredth or so; a range that is too narrow, or a wrong scale, loses more.
LARGEST_LOSS = 0.1
# A channel that varies less beside the largest number has one value, up to float32's rounding.
_CONSTANT, _ALL = 1e-6, 0.9


def require_close(network: InInt8, lowered: Lowered, images: Sequence[np.ndarray]) -> None:
    """Refuse a layer whose outputs in int8 differ from those in float by more than int8 costs.

    Each layer is judged by itself, on what it reads in float: the root mean square of the
    differences must be at most a tenth of the outputs' standard deviation.

    # Arguments
        network: the network in int8.
        lowered: the same in float.
        images: one array for each input, first axis the examples.
    """
    names = {index: call.name for index, call in enumerate(lowered.calls)}
    names |= {layer.end: layer.call.name for layer in network.layers}
    for index, loss in losses(network, lowered, images).items():
        if not loss <= LARGEST_LOSS:
            raise ConversionError(
                f"Layer `{names[index]}` loses too much in int8: its outputs differ by {loss:.0%} "
                f"of their standard deviation, and at most {LARGEST_LOSS:.0%} is rounding; "
                "calibrate on images as they are trained on, or convert without int8."
            )


def losses(network: InInt8, lowered: Lowered, images: Sequence[np.ndarray]) -> Mapping[int, float]:
    """Return how much the outputs of each call in int8 differ, in standard deviations.

    By index; that of a layer is the last call that is folded into it.
    """
    layers = {layer.end: layer for layer in network.layers}
    ends = sorted({*network.rounded, *layers})
    reads = [layers[index].reads if index in layers else index for index in ends]
    given = [tf.constant(image[:_IMAGES]) for image in images]
    values = compute(lowered.calls, given, [*reads, *ends], lowered.rewrites)
    found = {}
    for index, x, output in zip(ends, values, values[len(ends) :], strict=False):
        if index in layers:
            found[index] = _loss_of_layer(layers[index], x, output)
        else:
            grid = network.rounded[index]
            found[index] = _loss_between(grid.cut(output.numpy()), grid(output).numpy())
    return found


def _loss_of_layer(layer: Folded, x: tf.Tensor, output: tf.Tensor) -> float:
    # A softmax of large numbers differs more than they do.
    keeps = keeps_activation(layer.call.layer)
    output = _without_activation(layer.call.layer)(x) if keeps else output
    return _loss(layer.write.cut(output.numpy()), layer.before_activation(x).numpy())


def _loss(expected: np.ndarray, got: np.ndarray) -> float:
    root = float(np.sqrt(np.mean(np.square(got - expected))))
    return root / max(float(expected.std()), 1e-6)


def _loss_between(expected: np.ndarray, got: np.ndarray) -> float:
    """Return the loss of what stands between real layers.

    Beside one channel of large numbers, rounding may leave nothing of all others: where the
    median channel loses nine tenths of its standard deviation, its loss is returned.
    """
    rows, rounded = (x.reshape(-1, x.shape[-1]) for x in (expected, got))
    spread = rows.std(axis=0)
    varies = spread > _CONSTANT * max(float(np.abs(rows).max()), 1e-6)
    roots = np.sqrt(np.mean(np.square(rounded - rows), axis=0))
    median = float(np.median(roots[varies] / spread[varies])) if varies.any() else 0.0
    whole = _loss(expected, got)
    return max(whole, median) if median > _ALL else whole


def _without_activation(layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
    copy = type(layer).from_config({**layer.get_config(), "activation": "linear"})
    copy.build(layer.input_shape)
    copy.set_weights(layer.get_weights())
    return copy


def require_int8(network: InInt8, flatbuffer: bytes) -> dict[str, str]:
    """Return which operation computes each layer in int8, or refuse one that does not.

    # Arguments
        network: the network in int8.
        flatbuffer: what it was converted to.
    """
    found = operators(flatbuffer)
    return {layer.call.layer.name: _operation(layer, found) for layer in network.layers}


def _operation(layer: Folded, found: Sequence[Operator]) -> str:
    kind, name = layer.weights.operation, layer.call.name
    same = [op for op in found if layer.weights.are_those_of(op)]
    for op in same:
        if op.type == "INT8" and np.isclose(op.step, layer.write.step, rtol=1e-3):
            return f"{kind} in int8"
    if same:
        raise ConversionError(
            f"Layer `{name}` has an output in steps of {same[0].step:.3g} in the flatbuffer, not "
            f"of {layer.write.step:.3g} as calibrated ({same[0].type}): the converter did not use "
            "the fake-quant on its output."
        )
    of_kind = [op for op in found if op.kind == kind]
    in_int8 = sum(op.steps is not None for op in of_kind)
    raise ConversionError(
        f"Layer `{name}` was asked for in int8, but no {kind} of the flatbuffer holds its weights "
        f"in int8 ({in_int8} of {len(of_kind)} are in int8): the converter needs fake-quant on "
        "its input, its weights and its output."
    )


def stays_float(flatbuffer: bytes) -> dict[str, int]:
    """Return the operations whose outputs are float, by kind, the binary convolutions aside."""
    counts: dict[str, int] = {}
    for op in operators(flatbuffer):
        if op.type == "FLOAT32" and op.kind not in _MOVES:
            counts[op.kind] = counts.get(op.kind, 0) + 1
    return counts


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

    def _chain(self, index: int) -> list[int]:
        """Return the calls that are folded into a real layer.

        A batch norm of which only signs are read is an offset, which reads the layer itself.
        """
        chain = foldable(self.fusing, index)
        read = {read for one in self.lowered.rewrites.values() for read in one.inputs}
        ends = [number for number, call in enumerate([index, *chain]) if call in read]
        return chain[: ends[0]] if ends else chain

    def _fold(self, index: int) -> Folded:
        """Compute a real layer in int8."""
        (read,) = self.calls[index].inputs
        chain = self._chain(index)
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
