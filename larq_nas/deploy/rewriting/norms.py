"""Batch norms that the converter leaves as operations, moved to where it fuses them."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from larq_nas.cost.fusing import Fusing
from larq_nas.deploy.rewriting.walk import Rewrite

__all__ = ["rewrite_norm"]

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
