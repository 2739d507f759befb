"""Move batch norms, activations and offsets to where they cost less."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from larq_nas.deploy.rewriting.forms import SMALLEST, Rewrite, call_layer
from larq_nas.graph.calls import Call
from larq_nas.lce.fusing import Fusing
from larq_nas.lce.offsets import affine_of

__all__ = ["Shifts", "rewrite_norm", "rewrite_offset", "rewrite_threshold"]


# Larger than any activation, and small enough to be added to one.
_LARGEST = np.float32(1e30)
_CANDIDATES = 255

_Affine = tuple[np.ndarray, np.ndarray]


def rewrite_norm(fusing: Fusing, index: int) -> Rewrite | None:
    """Return how to compute batch norm `index` before the concatenation or pool it reads.

    # Arguments
        fusing: the network, with what fuses in it.
        index: a call of any layer.
    """
    calls = fusing.network.calls
    if index not in fusing.moved:
        return None
    layer, (read,) = calls[index].layer, calls[index].inputs
    sources, moved_past = calls[read].inputs, calls[read].layer
    scale, offset = _affine(layer)
    reason = f"`{calls[index].name}` is computed before `{calls[read].name}`, where it fuses"
    if fusing.kind(read) == "concat":
        widths = [calls[source].shape[-1] for source in sources]
        return Rewrite(index, sources, _each_part(scale, offset, widths), reason)
    return Rewrite(index, sources, lambda x: moved_past(x * scale + offset), reason)


def _affine(layer: tf.keras.layers.BatchNormalization) -> _Affine:
    """Return scale and offset of a trained batch norm, for each channel."""
    scale = 1.0 / np.sqrt(layer.moving_variance.numpy() + layer.epsilon)
    scale = scale * layer.gamma.numpy() if layer.scale else scale
    offset = -layer.moving_mean.numpy() * scale
    # Added to 0, an offset of -0.0 becomes 0.0: processors may take the sign of -0.0 for -1.
    offset = offset + (layer.beta.numpy() if layer.center else 0.0)
    return scale.astype("float32"), offset.astype("float32")


def _each_part(
    scale: np.ndarray, offset: np.ndarray, widths: Sequence[int]
) -> Callable[..., tf.Tensor]:
    ends = np.cumsum(widths)[:-1]
    affine = list(zip(np.split(scale, ends), np.split(offset, ends), strict=True))

    def compute(*parts: tf.Tensor) -> tf.Tensor:
        scaled = [x * s + o for x, (s, o) in zip(parts, affine, strict=True)]
        return tf.concat(scaled, axis=-1)

    return compute


def rewrite_threshold(
    fusing: Fusing, index: int, moved: np.ndarray | None = None
) -> Rewrite | None:
    """Return how to compute call `index`, and those before it, as an offset before a sign.

    # Arguments
        fusing: the network, with what fuses in it.
        index: a call of any layer.
        moved: what is added to what it reads in Keras, and is left for it to add.
    """
    if index not in fusing.thresholds:
        return None
    calls, chain = fusing.network.calls, fusing.thresholds[index]
    names = ", ".join(f"`{calls[i].name}`" for i in chain if calls[i].facts.kind != "pass")
    read = calls[chain[0]].inputs
    if fusing.kind(index) == "pass":
        levels = "signs are" if fusing.read_for_signs(index) else "which numbers are above 0 is"
        reason = f"{names} left out: only {levels} read, and kept by it"
        return Rewrite(index, read, lambda x: x, reason, signs_only=True)
    offset = _offset([calls[i] for i in chain])
    if moved is not None:
        offset = without_zeros(offset + moved)
    reason = f"{names} reduced to an addition: only signs are read, and no scale is negative"
    return Rewrite(index, read, lambda x: x + offset, reason, signs_only=True)


def _offset(chain: Sequence[Call]) -> np.ndarray:
    """Return what to add for the sign that `chain` gives, for each channel.

    Exactly: the smallest number at which the layers themselves give 0 or more is found among
    all numbers, by bisection, and a sum of two numbers has the right sign whatever its rounding.
    """
    shape = chain[0].shape
    low = np.full(shape[-1], _ordered(-_LARGEST), dtype=np.int64)
    high = np.full(shape[-1], _ordered(_LARGEST), dtype=np.int64)
    while np.any(high - low > 1):
        steps = np.arange(1, _CANDIDATES + 1)[:, np.newaxis]
        candidates = low + (high - low) * steps // (_CANDIDATES + 1)
        values = tf.constant(_number(candidates).reshape(-1, *[1] * (len(shape) - 1), shape[-1]))
        for call in chain:
            (values,) = call_layer(call, [values])
        bounds = np.concatenate([[low], candidates, [high]])
        below = np.sum(values.numpy().reshape(candidates.shape) < 0, axis=0)
        low, high = (np.take_along_axis(bounds, below[np.newaxis] + i, 0)[0] for i in (0, 1))
    return without_zeros(-_number(high))


def without_zeros(offset: np.ndarray) -> np.ndarray:
    """Return an offset before a sign without zeros, which would leave a -0.0 as it is."""
    small = np.abs(offset) < SMALLEST
    offset = np.where(small, np.where(offset < 0, -SMALLEST, SMALLEST), offset)
    return offset.astype("float32")


def _ordered(number: np.float32) -> int:
    """Return the place of a number among all of 32 bits."""
    place = int(np.abs(number).view(np.int32))
    return -place if number < 0 else place


def _number(places: np.ndarray) -> np.ndarray:
    """Return the numbers at some places."""
    numbers: np.ndarray = np.sign(places) * np.abs(places).astype(np.int32).view(np.float32)
    return numbers.astype("float32")


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
        return Rewrite(index, call.inputs, _affine_of_call(call, scale, offset + added))
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


def _affine_of_call(
    call: Call, scale: np.ndarray, offset: np.ndarray
) -> Callable[[tf.Tensor], tf.Tensor]:
    factors, summands = scale.astype("float32"), offset.astype("float32")
    if call.facts.kind == "offset":
        return lambda x: x + summands
    return lambda x: x * factors + summands
