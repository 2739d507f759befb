"""Batch norms that the converter leaves as operations, moved to where it fuses them."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from larq_nas.cost.fusing import AFFINE, Fusing
from larq_nas.deploy.rewriting.walk import Rewrite

__all__ = ["rewrite_norm"]

_Affine = tuple[np.ndarray, np.ndarray]


def rewrite_norm(fusing: Fusing, index: int) -> Rewrite | None:
    """Return how to compute batch norm `index` before the concatenation or pool it reads.

    A batch norm behind a concatenation goes into each part, if each is a convolution's. One
    behind a max-pool goes before it, if its scales are positive: the order of numbers is kept.

    # Arguments
        fusing: the network, with what fuses in it.
        index: a call of any layer.
    """
    calls = fusing.network.calls
    layer = calls[index].layer
    if type(layer) is not tf.keras.layers.BatchNormalization or fusing.kind(index) != "norm":
        return None
    (read,) = calls[index].inputs
    if calls[read].output or fusing.readers[read] != [index]:
        return None
    sources = calls[read].inputs
    if not sources or not all(_fuses(fusing, source, read) for source in sources):
        return None
    scale, offset = _affine(layer)
    before = f"`{calls[index].name}` is computed before `{calls[read].name}`, where it fuses"
    if fusing.kind(read) == "concat" and getattr(calls[read].layer, "axis", 0) in (-1, 3):
        widths = [calls[source].shape[-1] for source in sources]
        return Rewrite(index, sources, _each_part(scale, offset, widths), before)
    if fusing.kind(read) == "max_pool" and scale.min() > 0:
        pool = calls[read].layer
        return Rewrite(index, sources, lambda x: pool(x * scale + offset), before)
    return None


def _fuses(fusing: Fusing, index: int, reader: int) -> bool:
    """Return whether a batch norm on the output of call `index` fuses into a convolution."""
    if fusing.network.calls[index].output or fusing.readers[index] != [reader]:
        return False
    start = index
    while fusing.kind(start) in AFFINE and len(fusing.inputs[start]) == 1:
        start = fusing.inputs[start][0]
    ends = [start, *fusing.chain(start)]
    return fusing.takes_affine(start) and index in ends


def _affine(layer: tf.keras.layers.BatchNormalization) -> _Affine:
    """Return scale and offset of a trained batch norm, for each channel."""
    scale = 1.0 / np.sqrt(layer.moving_variance.numpy() + layer.epsilon)
    scale = scale * layer.gamma.numpy() if layer.scale else scale
    offset = -layer.moving_mean.numpy() * scale
    offset = offset + layer.beta.numpy() if layer.center else offset
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
