"""Calls that become one operation, and tensors that are written as bits.

The rules are what Larq Compute Engine's converter does, seen in its flatbuffers.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.graph.calls import Call, needed_by
from larq_nas.graph.quantizers import sign_of_zero, zero_one
from larq_nas.layers import Scale
from larq_nas.lce.fallback import runs_in_binary, zero_padded
from larq_nas.lce.network import WEIGHTED, Network
from larq_nas.lce.offsets import MovedOffsets
from larq_nas.lce.padding import Paddings, folds, paddings_of, reached, taken_in

AFFINE = ("norm", "scale", "offset")
_FUSES_RELU = (*WEIGHTED, *AFFINE, "add", "arithmetic", "max_pool", "average_pool")
_PADDED = ("conv", "depthwise", "separable")
# The sign of their outputs is that of an input, or a constant.
_KEEP_SIGNS = ("max_pool", "pass", "crop", "reshape", "concat", "pad")


class Fusing:
    """What fuses with what in a network.

    # Arguments
        network: the network.
        binary: whether binary layers run in binary; otherwise it is the float twin's.
        moves: whether batch norms and activations that the export computes elsewhere, or in
            another way, count as such.
        offsets: whether offsets that the export moves to where they cost nothing do so too.

    # Attributes
        inputs: what each call reads, as it is exported, equal calls merged.
        needed: the calls that are computed: others do what a later one does itself, or are equal.
        readers: which calls read each.
        moved: batch norms that are computed before the call they read.
        crossing: batch norms and the like behind a reshape that the converter computes before it.
        trimmed: pads that the export computes smaller, and how much they add then.
        handed_on: reshapes behind these pads, which change no shape and are left out.
        thresholds: the last calls of which the signs alone are read, and the increasing calls
            up to them that become one offset.
        offsets: the offsets that are moved, and what takes them; `None` if none is looked for.
    """

    def __init__(
        self, network: Network, binary: bool = True, moves: bool = True, offsets: bool = True
    ) -> None:
        self.network = network
        calls = range(len(network.calls))
        self.binary = [binary and runs_in_binary(network, index) for index in calls]
        self.emulated = [
            binary
            and not self.binary[index]
            and (network.binary(index) or _takes_sign(network, index))
            for index in calls
        ]
        self.inputs = [
            [network.stands_for[network.source(index)], *inputs[1:]]
            if self.binary[index]
            else inputs
            for index, inputs in enumerate(network.inputs)
        ]
        self.needed = needed_by(
            (network.stands_for[i] for i in calls if network.calls[i].output),
            lambda index: () if network.facts[index].kind == "static" else self.inputs[index],
        )
        self.readers: dict[int, list[int]] = defaultdict(list)
        for index in sorted(self.needed):
            for read in self.inputs[index]:
                self.readers[read].append(index)

        self.moved: set[int] = set()
        self.thresholds: dict[int, tuple[int, ...]] = {}
        self.trimmed: dict[int, Paddings] = {}
        self.handed_on: set[int] = set()
        self._kinds = dict.fromkeys(network.pads_of_ones if binary else (), "pass")
        self.crossing: set[int] = set()
        self._with_relu: set[int] = set()
        for index in calls:
            self._find_pad(index)
            self._find_crossing(index)
        if binary and moves:
            self.moved = {index for index in calls if self._moves(index)}
            self._kinds |= dict.fromkeys(self.moved, "pass")
            # From the end, so that what is read for its signs is known to what it reads.
            for index in reversed(calls):
                self._find_threshold(index)
        self.offsets: MovedOffsets | None = None
        self.offsets = MovedOffsets(self) if binary and moves and offsets else None

    def leave_out_offset(self, index: int) -> None:
        """Take note that norm or offset `index` adds nothing, as its offset is moved."""
        self._kinds[index] = "scale" if self.kind(index) == "norm" else "pass"

    def takes_offset(self, index: int) -> bool:
        """Return whether an offset is moved into call `index`, or what goes into it."""
        inside = (index, *self.chain(index))
        return self.offsets is not None and not self.offsets.taking.isdisjoint(inside)

    def kind(self, index: int) -> str:
        """Return the kind of call `index`."""
        return self._kinds.get(index) or self.network.facts[index].kind

    def reader(self, index: int) -> int | None:
        """Return the call that alone reads the output of call `index`, if one does."""
        readers = self.readers[index]
        return readers[0] if len(readers) == 1 and not self.network.calls[index].output else None

    def all_read(self, index: int, wanted: Callable[[int], bool]) -> bool:
        """Return whether all that reads the output of call `index` is wanted."""
        readers = self.readers[index]
        return bool(readers) and not self.network.calls[index].output and all(map(wanted, readers))

    def _find_pad(self, index: int) -> None:
        """Take note if the converter takes pad `index` into the convolution that reads it.

        Where it would do so wrongly, the export pads no more than the convolution reaches: that
        is either as with padding="same" or left as it is.
        """
        calls = self.network.calls
        if self.network.facts[index].kind != "pad":
            return
        between, reader = self._behind_pad(index)
        if reader is None:
            return
        (read,) = self.inputs[index]
        layer, kind = calls[reader].layer, self.network.facts[reader].kind
        real = not self.binary[reader] and not getattr(layer, "input_quantizer", None)
        if not real or kind not in _PADDED or len(calls[reader].shape) != 3:
            return
        found = paddings_of(calls[index])
        if getattr(layer, "padding", "") != "valid" or found is None or found[1]:
            return
        self._kinds |= dict.fromkeys(between, "pass")
        taken = taken_in(layer, found[0], calls[read].shape)
        fewer = reached(layer, found[0], calls[read].shape)
        if taken == fewer:
            self._kinds[index] = "pass"
        elif taken is not None:
            self.trimmed[index] = fewer
            self.handed_on |= {i for i in between if self.network.facts[i].kind == "reshape"}

    def _behind_pad(self, index: int) -> tuple[list[int], int | None]:
        """Return the call that alone reads a pad, if one does, and those between that fold."""
        between: list[int] = []
        while (reader := self.reader(index)) is not None and folds(self.network.calls, reader):
            index = reader
            between.append(index)
        return between, reader

    def _find_crossing(self, index: int) -> None:
        """Take note if call `index` goes into the operation before the reshape that it reads.

        So do batch norms, scales, offsets and ReLUs behind a reshape that keeps the channels.
        """
        kind, network = self.kind(index), self.network
        if index not in self.needed or kind not in (*AFFINE, "relu"):
            return
        read, reader = self.inputs[index][0], index
        while self.kind(read) == "pass" and self.readers[read] == [reader]:
            read, reader = self.inputs[read][0], read
        if self.kind(read) != "reshape" or self.reader(read) != reader:
            return
        (source,) = self.inputs[read]
        start = self.chain_start(source)
        if network.calls[source].shape[-1] != network.calls[read].shape[-1]:
            return
        if start in self._with_relu or not self.ends_in(source, read):
            return
        if kind != "relu":
            self.crossing.add(index)
        elif self.binary[start] or not self._fusible(start)[1]:
            return
        else:
            self._with_relu.add(start)
        self._kinds[index] = "pass"

    def _find_threshold(self, end: int) -> None:
        r"""Take note if the increasing calls up to call `end` become one offset.

        Where only the sign of an increasing \\(f(x)\\) is read, it is that of \\(x - t\\),
        with the smallest \\(t\\) at which \\(f\\) is not negative: batch norms of positive
        scales need no multiplication, and PReLUs of positive slopes no operation.
        """
        chain = self._increasing_calls(end)
        if not chain:
            return
        (read,) = self.inputs[chain[0]]
        fused = {read, *self.chain(read)}
        left = [self.kind(index) for index in chain if index not in fused]
        before = sum(2 if kind == "norm" else kind != "pass" for kind in left)
        keep_signs = all(_keeps_zero(self.network.calls[index]) for index in chain)
        offset = self.read_for_signs(end) and not keep_signs
        alone = self.reader(read) == chain[0]
        if before > (offset and not (alone and self.takes_affine(read))):
            self.thresholds[end] = chain
            self._kinds |= dict.fromkeys(chain, "pass")
            self._kinds[end] = "offset" if offset else "pass"

    def _increasing_calls(self, end: int) -> tuple[int, ...]:
        """Return the increasing calls up to call `end`, if only its signs are read."""
        network, chain = self.network, list[int]()
        if network.stands_for[end] != end or network.facts[end].kind == "pass":
            return ()
        if not self.read_for_signs(end):
            keeps = _keeps_numbers(network.calls[end].layer) and self.all_read(
                end, self._takes_levels
            )
            return (end,) if keeps else ()
        index = end
        while index not in self._kinds and increases(network.calls[index]):
            if chain and self.reader(index) != chain[0]:
                break
            chain.insert(0, index)
            index, *others = self.inputs[index]
            if others:
                return ()
        return tuple(chain)

    def read_for_signs(self, index: int) -> bool:
        """Return whether all that reads the output of call `index` takes the sign of it."""
        return self.all_read(index, self._takes_signs)

    def _takes_signs(self, index: int) -> bool:
        kind = self.kind(index)
        if kind in _KEEP_SIGNS:
            return self.read_for_signs(index)
        facts = self.network.facts[index]
        # An offset is found for signs of 1 at 0.
        if facts.sign_of_zero != 1 or facts.before_sign is not None:
            return False
        if self.binary[index]:
            return not self.network.flips(index)
        quantizer = getattr(self.network.calls[index].layer, "input_quantizer", None)
        signs = kind in WEIGHTED and sign_of_zero(quantizer, self.network.shape_read(index)) == 1
        return kind == "sign" or signs

    def _moves(self, index: int) -> bool:
        """Return whether norm `index` is computed before the call it reads, where it fuses.

        The export does so for a concatenation of convolutions, and for a max-pool of one if all
        scales are positive: then the order of numbers is kept.
        """
        layer, (read, *_) = self.network.calls[index].layer, (*self.inputs[index], index)
        if type(layer) is not tf.keras.layers.BatchNormalization or self.kind(index) != "norm":
            return False
        if self.reader(read) != index:
            return False
        last = getattr(self.network.calls[read].layer, "axis", -1) in (-1, 3)
        positive = not layer.scale or bool(np.all(layer.gamma.numpy() > 0))
        keeps = {"concat": last, "max_pool": positive}.get(self.kind(read), False)
        return keeps and all(self.ends_in(source, read) for source in self.inputs[read])

    def ends_in(self, index: int, reader: int) -> bool:
        """Return whether `reader` alone reads call `index`, and that could take an affine."""
        start = self.chain_start(index)
        if self.reader(index) != reader or not self.takes_affine(start):
            return False
        # A ReLU that is fused lets no affine follow it.
        return self.binary[start] or "relu" not in map(self.kind, self.chain(start))

    def _takes_levels(self, index: int) -> bool:
        """Return whether call `index` quantizes its inputs to 0 and 1."""
        if self.kind(index) in ("max_pool", "pass"):
            return self.all_read(index, self._takes_levels)
        return bool(self.network.levels(index) or zero_one(self.network.calls[index].layer))

    def chain(self, index: int) -> list[int]:
        """Return the calls that go into the operation of call `index`, in order."""
        affine, relu = self._fusible(index)
        binary, chain = self.binary[index], []
        while (reader := self.reader(index)) is not None:
            index, kind = reader, self.kind(reader)
            if affine and kind in AFFINE:
                relu = relu and not binary
            elif relu and kind == "relu":
                affine, relu = affine and binary, False
            elif kind != "pass":
                break
            chain.append(index)
        return chain

    def takes_flip(self, index: int) -> bool:
        """Return whether an affine behind call `index` fuses into the operation it goes into."""
        layer, reader = self.network.calls[index].layer, self.reader(index)
        if reader is None:
            return False
        if isinstance(layer, tf.keras.layers.Flatten | tf.keras.layers.Reshape):
            # A number for all channels moves before a reshape.
            return self.takes_flip(self.inputs[index][0])
        return self.ends_in(index, reader)

    def fused_kinds(self, index: int) -> set[str]:
        """Return the kinds of what goes into the operation of call `index`."""
        kinds = {self.kind(i) for i in self.chain(index)}
        kinds |= {"offset"} if self.takes_offset(index) else set()
        return kinds | {self.network.facts[i].kind for i in self.moved_into(index)}

    def moved_into(self, index: int) -> list[int]:
        """Return the batch norms and the like behind what reads call `index` that go into it."""
        chain, moved = self.chain(index), list[int]()
        waiting = [
            n for read in self.readers[chain[-1] if chain else index] for n in self.readers[read]
        ]
        while waiting:
            behind = waiting.pop()
            if behind in self.moved | self.crossing:
                moved.append(behind)
            if self.kind(behind) == "pass" and self.crossing:
                waiting += self.readers[behind]
        return sorted(moved)

    def chain_start(self, index: int) -> int:
        """Return the call whose operation call `index` goes into; itself, if into none."""
        start = index
        while self.kind(start) in (*AFFINE, "relu", "pass") and len(self.inputs[start]) == 1:
            start = self.inputs[start][0]
        return start if index in (start, *self.chain(start)) else index

    def takes_affine(self, index: int) -> bool:
        """Return whether batch norms behind call `index` fuse into it."""
        return self._fusible(index)[0]

    def _fusible(self, index: int) -> tuple[bool, bool]:
        """Return whether call `index` takes in batch norms and scales, and whether a ReLU."""
        layer, kind = self.network.calls[index].layer, self.kind(index)
        if self.binary[index]:
            if self.network.facts[index].groups > 1 or self.activates_apart(index):
                return False, False
            return True, self._is_plain(index) and own_activation(layer) is None
        free = own_activation(layer) is None
        if self.dilates_rows(index):
            return False, free and self.network.facts[index].bias
        return free and kind in WEIGHTED, free and kind in _FUSES_RELU

    def dilates_rows(self, index: int) -> bool:
        """Return whether call `index` dilates over rows, on a batch of every other one."""
        layer = self.network.calls[index].layer
        rows = isinstance(layer, tf.keras.layers.Conv1D) and self.kind(index) == "conv"
        return rows and not self.binary[index] and max(layer.dilation_rate) > 1

    def activates_apart(self, index: int) -> bool:
        """Return whether the activation of binary call `index` stays an operation of its own."""
        layer = self.network.calls[index].layer
        activation = own_activation(layer)
        fuses = activation is tf.keras.activations.relu and self._is_plain(index)
        return activation is not None and not fuses

    def _is_plain(self, index: int) -> bool:
        """Return whether a ReLU right behind binary call `index` fuses into it."""
        layer, facts = self.network.calls[index].layer, self.network.facts[index]
        around, flipped = self.network.borders.get(index), self.network.levels(index)
        if around and around.doubles and own_activation(layer) is not None:
            # The export puts the ReLU of the layer before its scale.
            return not (flipped or layer.use_bias)
        halved = bool(around and around.doubles)
        zeros = zero_padded(self.network, index)
        return not (facts.kernel_scale != "ones" or facts.bias or zeros or flipped or halved)

    def read_as_bits(self, index: int) -> bool:
        """Return whether all that reads the output of call `index` wants its signs alone."""
        return self.all_read(index, lambda reader: self._wants_bits(reader, index))

    def _wants_bits(self, index: int, read: int) -> bool:
        kind = self.kind(index)
        if kind in ("max_pool", "pass"):
            return self.read_as_bits(index)
        around = self.network.borders.get(index)
        if self.binary[index] and around and around.added:
            return False
        if self.binary[index] and self.network.flips(index):
            # Its inputs are flipped, which only goes into what computes them.
            return self.takes_flip(read) and self.network.facts[index].groups == 1
        facts = self.network.facts[index]
        grouped, before = facts.groups > 1, facts.before_sign
        signs = kind == "sign" or self.binary[index]
        if signs and (before is not None or facts.sign_of_zero < 0):
            # What comes before the sign must go into what computes its inputs.
            affine = before is None or set(before.kinds) <= {"ADD", "SUB", "MUL"}
            return affine and self.takes_flip(read) and not grouped
        return kind == "sign" or (self.binary[index] and not grouped)


def _takes_sign(network: Network, index: int) -> bool:
    """Return whether call `index` multiplies the signs of its inputs, by whatever weights."""
    facts = network.facts[index]
    return facts.kind in WEIGHTED and facts.binary_inputs and not network.levels(index)


def increases(call: Call) -> bool:
    """Return whether the output of a call never falls where its input grows, channel by channel.

    As its weights are now; of layers of which that is known.
    """
    layer, kind = call.layer, call.facts.kind
    if kind == "norm":
        training = layer._inbound_nodes[call.index].call_kwargs.get("training")
        finite = all(np.isfinite(weight.numpy()).all() for weight in layer.weights)
        positive = not layer.scale or bool(np.all(layer.gamma.numpy() >= 0))
        return finite and positive and not training
    if kind == "relu":
        return getattr(layer, "negative_slope", 0.0) >= 0
    return kind == "pass" or _keeps_zero(call)


def _keeps_zero(call: Call) -> bool:
    """Return whether a call keeps the sign of every number, and only passes or scales it."""
    layer = call.layer
    if isinstance(layer, Scale):
        return bool(np.all(layer.scale.numpy() > 0))
    if isinstance(layer, tf.keras.layers.LeakyReLU):
        return bool(layer.alpha > 0)
    if call.facts.kind == "prelu":
        # One slope for each channel: others would need an offset for each position.
        return call.facts.vectors == 1 and bool(np.all(layer.alpha.numpy() > 0))
    return call.facts.kind == "pass"


def _keeps_numbers(layer: Any) -> bool:
    """Return whether an activation keeps what is above 0, and gives no more than 0 for the rest."""
    if isinstance(layer, tf.keras.layers.ReLU):
        plain = layer.max_value is None and not layer.threshold
        return plain and layer.negative_slope >= 0
    if isinstance(layer, tf.keras.layers.LeakyReLU):
        return bool(layer.alpha >= 0)
    if isinstance(layer, tf.keras.layers.PReLU):
        return bool(np.all(layer.alpha.numpy() >= 0))
    activation = isinstance(layer, tf.keras.layers.Activation)
    return activation and layer.activation is tf.keras.activations.relu


def own_activation(layer: Any) -> Any:
    """Return the activation that a convolution or dense layer applies itself, if any."""
    kinds = tf.keras.layers.Dense | tf.keras.layers.Conv1D | tf.keras.layers.Conv2D
    if not isinstance(layer, kinds) and not hasattr(layer, "depthwise_kernel"):
        return None
    activation = layer.activation
    return None if activation is tf.keras.activations.linear else activation
