"""Offsets that are added later than in Keras, or in another branch, where that costs nothing.

`larq_nas.cost.offsets` decides which. Here is how large they are: what the output of each call
lacks of Keras's, and what the calls add that take the offsets.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from larq_nas.cost.fusing import Fusing
from larq_nas.cost.graph import Call
from larq_nas.cost.offsets import affine_of
from larq_nas.deploy.rewriting.walk import Rewrite, call_layer

__all__ = ["Shifts", "rewrite_offset"]


class Shifts:
    """What moved offsets make of the numbers in a network, for each channel.

    # Arguments
        fusing: the network, with the offsets that are moved.

    # Attributes
        lacking: by index of a call, what its output lacks of that in Keras.
        added: by index of a call that takes offsets, what it adds for them to its output.
    """

    def __init__(self, fusing: Fusing) -> None:
        self._fusing, self._calls = fusing, fusing.network.calls
        self.lacking: dict[int, np.ndarray] = {}
        self.added: dict[int, np.ndarray] = {}
        moved = fusing.offsets
        if moved is None or not moved.dropped:
            return
        self._inner = {i for chain in fusing.thresholds.values() for i in chain}
        for index in sorted(fusing.needed):
            if index in moved.branches:
                self._balance(index, moved.branches[index])
            elif index in moved.dropped:
                scale, offset = affine_of(self._calls[index])
                vector = scale * self._read(index) + offset
                # Nothing is left of what was moved back.
                self.lacking |= {index: vector} if np.any(vector) else {}
            elif index in moved.back:
                self._add(index, self._behind(index))
                self.lacking[index] = -self._behind(index)
            else:
                self._follow(index)

    def _balance(self, total: int, branch: int) -> None:
        """Let a branch of a sum add what the other branches lack, and the offset behind it."""
        behind = self._behind(total)
        others = [read for read in self._fusing.inputs[total] if read != branch]
        vector = self._sum(others, total) + behind
        self._add(branch, vector)
        self.lacking[branch] = -vector
        self.lacking |= {total: -behind} if np.any(behind) else {}

    def _behind(self, index: int) -> np.ndarray:
        """Return the offset behind call `index` that is moved into it; zeros if none is."""
        moved = self._fusing.offsets
        if moved is None or index not in moved.back:
            return np.zeros(self._width(index))
        offset, start = moved.back[index]
        return affine_of(self._calls[offset])[1][start : start + self._width(index)]

    def _follow(self, index: int) -> None:
        """Find what a call makes of what its inputs lack: it hands that on, or adds it."""
        calls, inputs = self._calls, self._fusing.inputs[index]
        chain = self._fusing.thresholds.get(index)
        if chain:
            inputs = self._fusing.inputs[chain[0]]
        elif index in self._inner:
            return
        if not any(read in self.lacking for read in inputs):
            return
        call, kind = calls[index], calls[index].facts.kind
        if chain:
            self._add(index, self._of(inputs[0]))
        elif kind in ("norm", "offset"):
            self._add(index, affine_of(call)[0] * self._of(inputs[0]))
        elif kind in ("conv", "dense"):
            self._add(index, _convolved(call, self._of(inputs[0])))
        elif kind == "add":
            self.lacking[index] = self._sum(inputs, index)
        else:
            self.lacking[index] = np.concatenate([self._of(read) for read in inputs])

    def _sum(self, reads: Sequence[int], index: int) -> np.ndarray:
        vector: np.ndarray = sum(map(self._of, reads), np.zeros(self._width(index)))
        return vector

    def _add(self, index: int, vector: np.ndarray) -> None:
        self.added[index] = vector + self.added.get(index, np.zeros(len(vector)))

    def _read(self, index: int) -> np.ndarray:
        return self._of(self._fusing.inputs[index][0])

    def _of(self, index: int) -> np.ndarray:
        return self.lacking.get(index, np.zeros(self._width(index)))

    def _width(self, index: int) -> int:
        return self._calls[index].shape[-1]


def _convolved(call: Call, vector: np.ndarray) -> np.ndarray:
    """Return what a convolution or dense layer without padding makes of a vector at each pixel."""
    kernel = call.layer.kernel.numpy().astype("float64")
    groups = getattr(call.layer, "groups", 1)
    taps = kernel.reshape(-1, *kernel.shape[-2:]).sum(axis=0)
    parts = taps.reshape(len(taps), groups, -1)
    return np.einsum("gi,igo->go", vector.reshape(groups, -1), parts).ravel()


def rewrite_offset(
    fusing: Fusing, shifts: Shifts, index: int, found: Rewrite | None
) -> Rewrite | None:
    """Return how to compute call `index` without an offset that is moved, or with one.

    # Arguments
        fusing: the network, with the offsets that are moved.
        shifts: what they are.
        index: a call of any layer.
        found: how it is computed, if in another way than its layer says.
    """
    if fusing.offsets is None:
        return found
    calls = fusing.network.calls
    call = calls[index]
    takers = fusing.offsets.dropped.get(index)
    if takers:
        where = ", ".join(f"`{calls[taker].owner}`" for taker in takers)
        reason = (
            f"`{call.owner}` adds nothing: its offset goes into {where}, where it costs nothing"
        )
        return Rewrite(index, call.inputs, _scaled(call), reason)
    # A threshold has it in its own offset.
    if index not in shifts.added or index in fusing.thresholds:
        return found
    added = shifts.added[index]
    if call.facts.kind in ("norm", "offset") and fusing.chain_start(index) == index:
        scale, offset = affine_of(call)
        return Rewrite(index, call.inputs, _affine(call, scale, offset + added))
    before = found or Rewrite(
        index, call.inputs, lambda *values: call_layer(call, values)[call.position]
    )
    vector = added.astype("float32")
    return dataclasses.replace(before, compute=lambda *values: before.compute(*values) + vector)


def _scaled(call: Call) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return what is left of a norm or an offset that adds nothing."""
    if call.facts.kind == "offset":
        return lambda x: x
    scale = affine_of(call)[0].astype("float32")
    return lambda x: x * scale


def _affine(call: Call, scale: np.ndarray, offset: np.ndarray) -> Callable[[tf.Tensor], tf.Tensor]:
    factors, summands = scale.astype("float32"), offset.astype("float32")
    if call.facts.kind == "offset":
        return lambda x: x + summands
    return lambda x: x * factors + summands
