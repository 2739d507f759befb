"""Batch norms and activations that the converter leaves as operations, where they cost less."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from larq_nas.cost.fusing import Fusing
from larq_nas.cost.graph import Call
from larq_nas.deploy.rewriting.form import SMALLEST
from larq_nas.deploy.rewriting.walk import Rewrite, call_layer

__all__ = ["rewrite_norm", "rewrite_threshold", "without_zeros"]

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
