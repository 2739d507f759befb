"""What quantizers of inputs and weights give, in bits."""

from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

__all__ = ["bits", "is_sign"]

_SIGN_QUANTIZERS = (lq.quantizers.SteSign, lq.quantizers.ApproxSign, lq.quantizers.SwishSign)
_OTHER_QUANTIZERS = (lq.quantizers.DoReFa, lq.quantizers.SteTern, lq.quantizers.SteHeaviside)
_SIGNS = np.array([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0], dtype="float32")


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


def bits(quantizer: Any) -> int:
    """Return the bits of a quantized number; one that does not say is taken at its sign."""
    if quantizer is None:
        return 32
    precision = getattr(quantizer, "precision", None)
    return int(precision) if precision else (1 if is_sign(quantizer) else 32)
