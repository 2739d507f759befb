"""Offsets that move to where they cost no operation.

An offset for each channel that nothing before it takes in is an addition of its own. It may as
well be added later: sums, concatenations, pools, crops and what only passes numbers on give the
same with the offset added behind them. So it moves on through these until it meets something that
takes it: a batch norm or an offset that is there anyway, the bias of a real convolution, or the
convolution in another branch of a sum. Everything that reads the moved tensor has to agree.

Here is only where offsets go. How large they are is found where a network is rewritten.
"""

from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from larq_nas.graph.calls import Call, call_layer
from larq_nas.lce.network import WEIGHTED

if TYPE_CHECKING:
    from larq_nas.lce.fusing import Fusing

_COMMUTING = (
    "pass",
    "average_pool",
    "max_pool",
    "global_average_pool",
    "global_max_pool",
    "crop",
    "concat",
    "add",
)
# What gives whole numbers if it reads such, at least for some inputs.
_KEEPS_WHOLE = (*_COMMUTING, "offset", "scale", "relu", "prelu", "reshape", "pad", "resize")
# What gives numbers that vary in a channel if those that it reads do.
_VARIES = (*_COMMUTING, "norm", "offset", "scale", "prelu", "reshape", "resize")
# A norm gives numbers about as large as its scale and offset. What it adds is far larger where
# it takes almost the same from numbers that hardly vary: added later, rounding would be left.
_LARGEST = 64.0
# Numbers of so few digits add up exactly, and may add up to 0.
_FEW_BITS = 2.0**10


class MovedOffsets:
    """The offsets that are moved, and what takes them.

    # Arguments
        fusing: what fuses with what in the network; it is told what becomes of the calls whose
            offsets move.

    # Attributes
        dropped: the batch norms and offsets that no longer add anything; by each the calls that
            add it.
        taking: the calls that add what was moved to them.
        branches: by sums the call in one of their branches that adds what moves into them.
        back: by sums and convolutions the offset behind them that is moved into them, and which of
            its channels is their first.
    """

    def __init__(self, fusing: "Fusing") -> None:
        self._fusing = fusing
        self._calls = fusing.network.calls
        self._times = Counter(id(call.layer) for call in self._calls)
        self._ends = {chain[0]: end for end, chain in fusing.thresholds.items()}
        self._inner = {index for chain in fusing.thresholds.values() for index in chain}
        # By call whose output is moved, what takes the offset.
        self._moving: dict[int, tuple[int, ...]] = {}
        self.dropped: dict[int, tuple[int, ...]] = {}
        self.branches: dict[int, int] = {}
        self.back: dict[int, tuple[int, int]] = {}
        # From the end, so that what keeps its offset is known to those before.
        for index in sorted(fusing.needed, reverse=True):
            if self._is_offset(index) and index not in self._inner:
                self._move(index)
        self.taking = {index for takers in self.dropped.values() for index in takers}

    def _is_offset(self, index: int) -> bool:
        """Return whether call `index` is a norm or an offset with an addition of its own."""
        fusing, call = self._fusing, self._calls[index]
        kind = fusing.kind(index)
        if kind not in ("norm", "offset") or fusing.chain_start(index) != index:
            return False
        return kind == call.facts.kind and len(fusing.inputs[index]) == 1 and _is_plain(call)

    def _move(self, index: int) -> None:
        """Move the offset of call `index`, if there is where to."""
        fusing, kind = self._fusing, self._fusing.kind(index)
        if kind == "norm" and not _is_small(self._calls[index]):
            return
        before = dict(self._moving), dict(self.branches)
        takers = self._pushed(index)
        if takers is None:
            self._moving, self.branches = before
            takers = self._taken_before(index) if kind == "offset" else None
        if takers:
            self.dropped[index] = takers
            fusing.leave_out_offset(index)

    def _pushed(self, index: int) -> tuple[int, ...] | None:
        """Return what takes an offset off the output of call `index`; `None` if not all do."""
        if index in self._moving:
            return self._moving[index]
        readers = self._fusing.readers[index]
        if self._calls[index].output or not readers:
            return None
        takers: list[int] = []
        for reader in dict.fromkeys(readers):
            found = self._takers(reader, index)
            if found is None:
                return None
            takers += found
        self._moving[index] = tuple(dict.fromkeys(takers))
        return self._moving[index]

    def _takers(self, index: int, read: int) -> tuple[int, ...] | None:
        """Return what takes an offset that call `index` reads with the output of call `read`."""
        fusing, call = self._fusing, self._calls[index]
        if index in self._inner:
            end = self._ends.get(index)
            takes = end is not None and fusing.kind(end) == "offset" and read in self._real
            return (end,) if takes and end is not None else None
        if index in self.dropped:
            return self._pushed(index)
        kind = call.facts.kind
        if kind != fusing.kind(index):
            return None
        if kind == "concat":
            return self._pushed(index) if _joins_channels(call) else None
        if kind == "add" and call.shape[-1] == self._calls[read].shape[-1]:
            branch = self._branch(index, read)
            return (branch,) if branch is not None else self._pushed(index)
        if kind in _COMMUTING and kind != "add":
            return self._pushed(index)
        takes = self._is_offset(index) and read in self._real
        return (index,) if takes or self._has_bias(index) else None

    def _branch(self, index: int, read: int | None = None) -> int | None:
        """Return the branch of sum `index` that takes an offset, besides that of call `read`."""
        fusing = self._fusing
        if index not in self.branches:
            for branch in fusing.inputs[index]:
                wide = self._calls[branch].shape[-1] == self._calls[index].shape[-1]
                if wide and branch != read and index in self._real and self._ends_in(branch, index):
                    self.branches[index] = branch
                    break
        return self.branches.get(index)

    def _ends_in(self, index: int, reader: int) -> bool:
        """Return whether a convolution alone gives what `reader` reads, and takes an offset."""
        fusing = self._fusing
        start = fusing.chain_start(index)
        inside = {start, index, *fusing.chain(start)}
        once = all(self._times[id(self._calls[i].layer)] == 1 for i in inside)
        return once and not fusing.emulated[start] and fusing.ends_in(index, reader)

    def _taken_before(self, index: int) -> tuple[int, ...] | None:
        """Return what takes offset `index` before it, if nothing else reads what it reads."""
        before = dict(self.branches), dict(self.back)
        (read,) = self._fusing.inputs[index]
        takers = self._before(read, index, index, 0)
        if takers is None:
            self.branches, self.back = before
        return takers

    def _before(self, index: int, reader: int, offset: int, start: int) -> tuple[int, ...] | None:
        """Return what takes an offset for the output of call `index`; `None` if nothing does.

        `reader` has to be all that reads it. It is the offset of call `offset`, from channel
        `start`.
        """
        fusing, call = self._fusing, self._calls[index]
        kind = call.facts.kind
        if fusing.reader(index) != reader or kind != fusing.kind(index):
            return None
        if index in self._real and self._ends_in(index, reader):
            self.back[index] = offset, start
            return (index,)
        if kind == "add":
            branch = self._branch(index)
            self.back[index] = offset, start
            return None if branch is None else (branch,)
        if kind not in _COMMUTING or (kind == "concat" and not _joins_channels(call)):
            return None
        takers: list[int] = []
        for read in fusing.inputs[index]:
            found = self._before(read, index, offset, start)
            if found is None:
                return None
            takers += found
            start += self._calls[read].shape[-1]
        return tuple(dict.fromkeys(takers))

    def _has_bias(self, index: int) -> bool:
        """Return whether call `index` is a real layer whose bias takes an offset of its inputs.

        Padding adds zeros, which no offset was added to.
        """
        layer = self._calls[index].layer
        bias = self._calls[index].facts.bias or self._fusing.fused_kinds(index) & {"norm", "offset"}
        if type(layer) is tf.keras.layers.Conv2D:
            whole = layer.padding == "valid" or set(layer.kernel_size) == {1}
        else:
            whole = type(layer) is tf.keras.layers.Dense
        once = self._times[id(layer)] == 1
        return bool(bias) and whole and once and self._fusing.takes_affine(index)

    @cached_property
    def _real(self) -> set[int]:
        """The calls whose numbers vary in every channel and are no multiples of whole numbers.

        Sums of whole numbers and offsets are often exactly 0, where another order of adding
        could turn a sign. A ReLU gives exactly 0 in many places, and filters of zeros give one
        number everywhere. Such constants may cancel, where another order could turn one as well.
        """
        varying: set[int] = set()
        real: set[int] = set()
        for index in sorted(self._fusing.needed):
            call, kind = self._calls[index], self._calls[index].facts.kind
            if kind in ("input", *WEIGHTED):
                varies = not _has_constant_filters(call)
            else:
                handed_on = kind in _VARIES and self._reads_from(varying, index)
                varies = handed_on and not _has_constant_channels(call)
            if varies:
                varying.add(index)
                handed_on = kind in _KEEPS_WHOLE and self._reads_from(real, index)
                real |= {index} if _makes_real(call) or handed_on else set()
        return real

    def _reads_from(self, found: set[int], index: int) -> bool:
        """Return whether call `index` reads calls that are in `found`; of a sum, one is enough."""
        inputs = self._fusing.inputs[index]
        enough = any if self._calls[index].facts.kind == "add" else all
        return bool(inputs) and enough(read in found for read in inputs)


def _joins_channels(call: Call) -> bool:
    return getattr(call.layer, "axis", None) in (-1, len(call.shape))


def _has_constant_filters(call: Call) -> bool:
    """Return whether a convolution has filters of zeros alone."""
    kernels = [weight.numpy() for weight in call.layer.weights if weight.shape.rank > 1]
    return any(
        bool(np.any(np.all(kernel == 0, axis=tuple(range(kernel.ndim - 1))))) for kernel in kernels
    )


def _has_constant_channels(call: Call) -> bool:
    """Return whether a norm has scales of 0, or a PReLU slopes of 0."""
    if call.facts.kind == "norm":
        return not _is_plain(call) or bool(np.any(affine_of(call)[0] == 0))
    slopes = call.layer.weights if call.facts.kind == "prelu" else []
    return any(bool(np.any(slope.numpy() == 0)) for slope in slopes)


def _makes_real(call: Call) -> bool:
    """Return whether a call gives multiples of no whole number, whatever it reads."""
    if call.facts.kind == "norm":
        return _is_plain(call) and not _has_few_bits(affine_of(call)[0])
    if call.facts.kind not in WEIGHTED:
        return False
    plain = call.facts.kernel_scale == "ones" and min(call.facts.kernel_bits) == 32
    return plain or call.facts.kernel_scale == "scaled"


def affine_of(call: Call) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and offset of a norm or an offset, for each channel, in double precision."""
    layer = call.layer
    if call.facts.kind == "norm":
        scale = 1.0 / np.sqrt(layer.moving_variance.numpy().astype("float64") + layer.epsilon)
        scale = scale * layer.gamma.numpy() if layer.scale else scale
        offset = -layer.moving_mean.numpy() * scale
        return scale, offset + (layer.beta.numpy() if layer.center else 0.0)
    (offset,) = call_layer(call, [tf.zeros([1] * len(call.shape) + [call.shape[-1]])])
    return np.ones(call.shape[-1]), offset.numpy().ravel().astype("float64")


def _is_plain(call: Call) -> bool:
    """Return whether a norm or offset is known to be one, with finite numbers."""
    layer: Any = call.layer
    if call.facts.kind == "norm":
        training = layer._inbound_nodes[call.index].call_kwargs.get("training")
        if type(layer) is not tf.keras.layers.BatchNormalization or training:
            return False
        return all(np.isfinite(weight.numpy()).all() for weight in layer.weights)
    symbol = str(getattr(layer, "symbol", "")).rsplit(".", maxsplit=1)[-1].strip("_")
    (read,) = (node := layer._inbound_nodes[call.index]).keras_inputs
    first = len(node.call_args) > 0 and node.call_args[0] is read
    known = symbol in ("add", "bias_add") or (symbol in ("sub", "subtract") and first)
    if not known or read.dtype != tf.float32:
        return False
    return bool(np.isfinite(affine_of(call)[1]).all())


def _is_small(call: Call) -> bool:
    """Return whether a norm adds no numbers that are far larger than what it gives."""
    layer, (_, offset) = call.layer, affine_of(call)
    gamma = np.abs(layer.gamma.numpy()) if layer.scale else np.ones_like(offset)
    beta = np.abs(layer.beta.numpy()) if layer.center else np.zeros_like(offset)
    return bool(np.all(np.abs(offset) <= _LARGEST * np.maximum(gamma, beta)))


def _has_few_bits(scale: np.ndarray) -> bool:
    """Return whether some scales, but for a power of two, are numbers of few digits."""
    mantissa = np.frexp(scale.astype("float32"))[0] * _FEW_BITS
    return bool(np.any((mantissa == np.round(mantissa)) & (scale != 0)))
