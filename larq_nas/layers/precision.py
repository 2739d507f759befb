"""The floating-point precision of binary convolutions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, TypeAlias, get_args

import tensorflow as tf

from larq_nas.errors import unknown_name, warn

ComputedIn: TypeAlias = Literal["float32", "bfloat16"]
"""Type of the operands of binary convolutions. Everything else is float32."""

_current: ContextVar[ComputedIn] = ContextVar("larq_nas_precision", default="float32")


def current_precision() -> ComputedIn:
    """Return what binary convolutions are computed in at this moment."""
    return _current.get()


def require_precision(precision: str) -> None:
    """Raise `InputError` if there is no such precision."""
    # TensorFlow's own types are equal to their names.
    if not isinstance(precision, str) or precision not in get_args(ComputedIn):
        raise unknown_name("precision", precision, get_args(ComputedIn))


def warn_if_unused(model: tf.keras.Model, precision: ComputedIn) -> None:
    """Warn of a precision that no layer of `model` computes in."""
    layers = model._flatten_layers(include_self=False)
    if precision != "float32" and not any(getattr(x, "has_precision", False) for x in layers):
        warn(f"`precision` {precision} has no effect: the network has no `BinaryConv2D`.")


@contextmanager
def computing_in(precision: ComputedIn) -> Iterator[None]:
    """Compute binary convolutions with operands of `precision` within a `with` block.

    # Arguments
        precision: `"float32"` or `"bfloat16"`.
    """
    require_precision(precision)
    token = _current.set(precision)
    try:
        yield
    finally:
        _current.reset(token)


def convolve(
    inputs: tf.Tensor,
    kernel: tf.Tensor,
    strides: Sequence[int],
    padding: str,
    dilations: Sequence[int],
) -> tf.Tensor:
    """Convolve in the current precision.

    Operands of -1 and 1 are exact in bfloat16, and processors add their products up in float32;
    sums of more than 256 are rounded to 8 bits. So are real kernels, and gradients.

    The arguments are those of `tf.nn.conv2d`; the type is that of `inputs`. With a 1x1 kernel,
    strides are taken before: the numbers are the same, while TensorFlow's gradient of the strided
    kernel writes behind its memory, and ends the process, for images of 50 pixels or more with less
    than 16 channels.
    """
    if tuple(kernel.shape[:2]) == (1, 1) and max(strides) > 1:
        inputs, strides = inputs[:, :: strides[0], :: strides[1]], (1, 1)
    if _current.get() == "float32":
        return tf.nn.conv2d(inputs, kernel, strides, padding, dilations=dilations)
    x, w = tf.cast(inputs, tf.bfloat16), tf.cast(kernel, tf.bfloat16)
    y = tf.nn.conv2d(x, w, strides, padding, dilations=dilations)
    return tf.cast(y, inputs.dtype)
