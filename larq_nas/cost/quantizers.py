"""What quantizers of inputs and weights give, in bits."""

import functools
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_nas.quantizers import LearnedStep

__all__ = ["bits", "is_sign", "kernel_scale", "zero_one"]

_SIGN_QUANTIZERS = (lq.quantizers.SteSign, lq.quantizers.ApproxSign, lq.quantizers.SwishSign)
_OTHER_QUANTIZERS = (lq.quantizers.DoReFa, lq.quantizers.SteTern, lq.quantizers.SteHeaviside)
_SIGNS = np.array([-9, -2, -1, -0.5, -0.2, -0.03, -1e-3, -1e-6, 0], dtype="float32")
_SIGNS = np.concatenate([_SIGNS, -_SIGNS])


def is_sign(quantizer: Any) -> bool:
    """Return whether `quantizer` gives -1 or 1, and 1 at 0, as binary kernels compute it."""
    if quantizer is None or isinstance(quantizer, _OTHER_QUANTIZERS):
        return False
    if isinstance(quantizer, _SIGN_QUANTIZERS):
        return True
    try:
        outputs = np.asarray(quantizer(tf.constant(_SIGNS)))
    except Exception:  # noqa: BLE001 - a quantizer of someone else may want another shape
        return False
    return outputs.shape == _SIGNS.shape and np.array_equal(outputs, np.where(_SIGNS < 0, -1, 1))


def zero_one(quantizer: Any) -> tuple[float, float] | None:
    """Return the height and the threshold of a quantizer that gives 0 or a height above it.

    # Returns
        `(height, threshold)`: the output is `height` where the input is above `threshold`, and
        0 elsewhere; `None` for other quantizers.
    """
    if isinstance(quantizer, lq.quantizers.DoReFa) and quantizer.mode == "activations":
        return (1.0, 0.5) if quantizer.precision == 1 else None
    if isinstance(quantizer, lq.quantizers.SteHeaviside):
        return 1.0, 0.0
    if isinstance(quantizer, LearnedStep):
        return quantizer.height, quantizer.height / 2
    return None


def bits(quantizer: Any) -> int:
    """Return the bits of a quantized number; one that does not say is taken at its sign."""
    if quantizer is None:
        return 32
    precision = getattr(quantizer, "precision", None)
    return int(precision) if precision else (1 if is_sign(quantizer) else 32)


@functools.lru_cache(maxsize=256)
def kernel_scale(quantizer: Any) -> str:
    """Return what a kernel quantizer gives, as binary kernels see it.

    # Returns
        `"ones"` for -1 and 1, `"scaled"` for a scale times that in each filter, `"other"` for
        what no binary kernel computes.
    """
    if isinstance(quantizer, lq.quantizers.SteSign):
        return "ones"
    if isinstance(quantizer, lq.quantizers.MagnitudeAwareSign):
        return "scaled"
    kernel = np.random.default_rng(0).uniform(-0.9, 0.9, (1, 1, 8, 2)).astype("float32")
    try:
        with lq.context.quantized_scope(True):
            sizes = np.abs(np.asarray(quantizer(tf.constant(kernel))))
    except Exception:  # noqa: BLE001 - a quantizer of someone else may want another shape
        return "scaled"
    if sizes.shape != kernel.shape or not np.allclose(sizes, sizes[:, :, :1], rtol=1e-4):
        return "other"
    if np.any(sizes == 0):
        return "other"
    return "ones" if np.allclose(sizes, 1) else "scaled"
