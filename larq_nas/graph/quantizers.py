"""What quantizers of inputs and weights give, in bits."""

from collections.abc import Iterator, Sequence
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_nas.quantizers import LearnedStep, quantized_scope

_SIGN_QUANTIZERS = (lq.quantizers.SteSign, lq.quantizers.ApproxSign, lq.quantizers.SwishSign)
_OTHER_QUANTIZERS = (lq.quantizers.DoReFa, lq.quantizers.SteTern, lq.quantizers.SteHeaviside)
_SIZES = np.array([1e-30, 1e-9, 1e-6, 1e-3, 0.03, 0.2, 0.5, 1, 2, 9, 99], dtype="float32")
# A straight-through estimator of floats, `x + (sign(x) - x)`, rounds.
_ROUNDING = 1e-4


def sign_of_zero(quantizer: Any, shape: Sequence[int] | None = None) -> int | None:
    """Return 1 or -1, what a sign gives for 0; `None` for what is no sign.

    What is none of Larq's is computed on numbers of both signs, of one sign and of none, from
    tiny to large: a function of means, say, is no sign of its inputs. Some need their `shape`,
    without the batch.
    """
    if quantizer is None or isinstance(quantizer, _OTHER_QUANTIZERS):
        return None
    if isinstance(quantizer, _SIGN_QUANTIZERS):
        return 1
    return next((zero for zero in (1, -1) if _gives_signs(quantizer, shape, zero)), None)


def is_sign_but_at_zero(quantizer: Any, shape: Sequence[int] | None = None) -> bool:
    """Return whether `quantizer` gives another number than 1 or -1 for 0 alone, as `tf.sign`."""
    return _gives_signs(lambda x: quantizer(x + tf.cast(x == 0, x.dtype)), shape, 1)


def gives_signs(quantizer: Any, shape: Sequence[int] | None = None) -> bool:
    """Return whether `quantizer` gives -1 and 1 alone, whatever the sign is of."""
    return bool(sign_of_zero(quantizer, shape)) or gives_signs_of_another(quantizer, shape)


def gives_signs_of_another(quantizer: Any, shape: Sequence[int] | None = None) -> bool:
    """Return whether `quantizer` gives -1 and 1 alone, and is no sign of its inputs.

    Such as the sign of what is above a learned threshold.
    """
    if quantizer is None or isinstance(quantizer, _OTHER_QUANTIZERS + _SIGN_QUANTIZERS):
        return False
    try:
        outputs = [np.asarray(quantizer(tf.constant(inputs))) for inputs in _trials(shape)]
    except Exception:  # noqa: BLE001 - a quantizer of someone else may want another shape
        return False
    signs = all(np.allclose(np.abs(values), 1, 0, _ROUNDING) for values in outputs)
    return signs and sign_of_zero(quantizer, shape) is None


def turns(quantizer: Any, shape: Sequence[int] | None = None) -> bool:
    """Return whether `quantizer` gives the sign of its inputs times -1, and 1 at 0."""
    if quantizer is None or isinstance(quantizer, _OTHER_QUANTIZERS + _SIGN_QUANTIZERS):
        return False
    return _gives_signs(lambda x: -quantizer(x), shape, -1)


def _gives_signs(function: Any, shape: Sequence[int] | None, zero: int) -> bool:
    """Return whether `function` gives signs of its inputs, as far as trying it can tell."""
    try:
        return all(
            np.shape(outputs) == inputs.shape
            and np.allclose(outputs, np.where(inputs, np.sign(inputs), zero), 0, _ROUNDING)
            for inputs in _trials(shape)
            for outputs in [np.asarray(function(tf.constant(inputs)))]
        )
    except Exception:  # noqa: BLE001 - a function of someone else may want another shape
        return False


def _trials(shape: Sequence[int] | None) -> Iterator[np.ndarray]:
    """Yield inputs on which a sign can be told from another function."""
    draw = np.random.default_rng(0)
    zeros = np.zeros(1, "float32")
    size = (1, *shape) if shape else (32,)
    for values in (
        np.concatenate([-_SIZES, zeros, _SIZES]),
        np.concatenate([zeros, _SIZES]),
        -_SIZES,
        np.concatenate([-_SIZES[:5], _SIZES[-3:]]),
        np.concatenate([-_SIZES[-3:], zeros, _SIZES[:5]]),
        zeros,
    ):
        yield np.resize(draw.permutation(values), size)


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


def bits(quantizer: Any, shape: Sequence[int] | None = None) -> int:
    """Return the bits of a quantized number; one that does not say is taken at its sign."""
    if quantizer is None:
        return 32
    precision = getattr(quantizer, "precision", None)
    if precision:
        return int(precision)
    return 1 if gives_signs(quantizer, shape) else 32


def kernel_scale(quantizer: Any, kernel: Any) -> str:
    """Return what a kernel quantizer gives for a kernel, as binary kernels see it.

    # Returns
        `"ones"` for -1 and 1, `"scaled"` for a scale times that in each filter, `"other"` for
        what no binary kernel computes.
    """
    if isinstance(quantizer, lq.quantizers.SteSign):
        return "ones"
    if isinstance(quantizer, lq.quantizers.MagnitudeAwareSign):
        return "scaled"
    with quantized_scope():
        # A `QuantizedVariable` quantizes itself; so it is also where the quantizer has weights.
        values = tf.convert_to_tensor(kernel).numpy()
    return scale_of(values)


def scale_of(kernel: np.ndarray) -> str:
    """Return whether each filter of a kernel is a scale times -1 and 1; see `kernel_scale`."""
    sizes = np.abs(kernel)
    scale = sizes.max(axis=tuple(range(kernel.ndim - 1)))
    if not np.allclose(sizes, scale, rtol=1e-4, atol=0):
        return "other"
    return "ones" if np.allclose(scale, 1) else "scaled"
