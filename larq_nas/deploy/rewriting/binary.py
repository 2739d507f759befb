"""Rewrite layers that would run in float to the form that runs in binary."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_nas.deploy.causes import quantized_kernel
from larq_nas.deploy.rewriting.forms import SMALLEST, BinaryForm, Rewrite, call_layer
from larq_nas.deploy.rewriting.groups import GroupCost, SplitGroups, group_computation
from larq_nas.graph.calls import Call
from larq_nas.graph.layers import is_convolution_function, shape_read
from larq_nas.graph.quantizers import (
    gives_signs,
    gives_signs_of_another,
    sign_of_zero,
    turns,
    zero_one,
)
from larq_nas.layers import BinaryConv2D
from larq_nas.lce.fallback import name_of, odd_padding
from larq_nas.lce.network import Network
from larq_nas.lce.padding import Border, paddings_of

__all__ = ["rewrite_binary", "rewrite_sign"]

_LAYERS = (lq.layers.QuantConv2D, lq.layers.QuantConv1D, lq.layers.QuantDense)
_SMALLEST_SCALE = 1e-6
# The converter quantizes constants of up to 128 MiB itself, and leaves larger ones in float.
_LARGEST_KERNEL = 2**24


def rewrite_binary(calls: Sequence[Call], index: int, cost: GroupCost | None) -> Rewrite | None:
    """Return how to compute call `index` in binary, if its own way would not be.

    # Arguments
        calls: the network.
        index: a call of any layer.
        cost: measures ways to compute groups on a kernel that runs padded ones; `None` if a
            kernel that does not is to run the model.
    """
    call = calls[index]
    if is_convolution_function(call.layer):
        return _rewrite_function(Network(calls), index)
    if not isinstance(call.layer, _LAYERS) or call.layer.kernel_quantizer is None:
        return None
    network = Network(calls)
    around = network.borders.get(index)
    quantizer = _quantizer(network, index)
    if quantizer is None and not network.reads_signs(index):
        return None
    read = network.source(index)
    form = _form(call.layer, quantizer, around)
    if form is None:
        return None
    reasons = _reasons(network, index, form)
    compute: Any = form
    kernels, variables = [form.signs], [form.kernel]
    if form.groups > 1:
        rows, *columns, channels = calls[read].shape
        shape = (rows, int(np.prod(columns)), channels)
        compute, reason = group_computation(form, shape, cost)
        # `BinaryConv2D` splits its groups itself.
        kernels, variables = compute.kernels, compute.variables
        own = isinstance(call.layer, BinaryConv2D) and isinstance(compute, SplitGroups)
        reasons += [] if own and cost is None else [reason]
    if not isinstance(call.layer, lq.layers.QuantConv2D):
        compute = _as_image(compute, calls[read].shape, call.shape)
    if not reasons:
        return None
    text = f"`{call.name}`: " + "; ".join(reasons)
    return Rewrite(index, (read,), compute, text, kernels, variables)


def _rewrite_function(network: Network, index: int) -> Rewrite | None:
    """Return how to compute a convolution that is a function, behind a sign that is -1 at 0."""
    call, calls = network.calls[index], network.calls
    if not network.strict(index) or not network.reads_signs(index):
        return None
    pads = [i for i in _calls_before(calls, index) if calls[i].facts.kind == "pad"]
    paddings = [found[0] for found in map(paddings_of, (calls[i] for i in pads)) if found]

    def compute(x: tf.Tensor) -> tf.Tensor:
        turned = x * -1.0 + SMALLEST
        for padding in reversed(paddings):
            turned = tf.pad(turned, [(0, 0), *padding, (0, 0)], constant_values=-1.0)
        return call_layer(call, [lq.math.sign(turned)])[call.position] * -1.0

    reason = f"`{call.name}`: the sign before it, which is -1 at 0, is taken in the convolution"
    return Rewrite(index, (network.source(index),), compute, reason)


def _calls_before(calls: Sequence[Call], index: int) -> Iterator[int]:
    """Yield the calls that only pad or hand on what call `index` reads, the last one first."""
    index, *_ = calls[index].inputs
    while calls[index].facts.kind in ("pass", "pad"):
        yield index
        index, *_ = calls[index].inputs


def rewrite_sign(call: Call, index: int) -> Rewrite | None:
    """Return how to compute a sign that is written by hand as the engine knows it."""
    if call.facts.kind != "sign" or not _is_by_hand(getattr(call.layer, "activation", call.layer)):
        return None
    reason = f"`{call.name}` is a sign, and runs as Larq's"
    return Rewrite(index, call.inputs, _SIGNS[call.facts.sign_of_zero], reason)


def _strict_sign(x: tf.Tensor) -> tf.Tensor:
    """Return the sign of `x`, -1 at 0, without a comparison, which would be an operation."""
    return lq.math.sign(x * -1.0 + SMALLEST) * -1.0


def _sign(quantizer: Any, shape: Sequence[int] | None) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return what gives the signs that `quantizer` gives, so that the converter knows them."""
    zero = sign_of_zero(quantizer, shape)
    return _SIGNS[zero] if zero else quantizer


def _is_by_hand(sign: Any) -> bool:
    """Return whether a sign is neither Larq's nor one of `larq_nas.quantizers`."""
    kind = sign if isinstance(getattr(sign, "__module__", None), str) else type(sign)
    return not str(kind.__module__).startswith(("larq.", "larq_nas."))


def _quantizer(network: Network, index: int) -> Any:
    """Return what quantizes the inputs of a binary layer; `None` if nothing needs to.

    A quantizer to 0 and 1, or to signs of -1 at 0, that is a layer of its own goes into the
    convolution. The sign of signs is these signs, and makes a convolution binary wherever they
    were taken.
    """
    call = network.calls[index]
    own = call.layer.input_quantizer
    if own is not None:
        return own
    if network.levels(index):
        return network.calls[call.inputs[0]].layer
    if network.strict(index):
        return _strict_sign
    again = network.signs(call.inputs[0]) and not network.reads_signs(index)
    return lq.math.sign if again or index in network.borders else None


def _form(layer: Any, quantizer: Any, around: Border | None) -> BinaryForm | None:
    kernel = quantized_kernel(layer)
    kernel = kernel.reshape((1,) * (4 - kernel.ndim) + kernel.shape)
    if isinstance(layer, lq.layers.QuantConv1D):
        kernel = np.moveaxis(kernel, 0, 1)
    scale = np.abs(kernel).max(axis=(0, 1, 2))
    levels = zero_one(quantizer)
    padding = getattr(layer, "padding", "valid")
    pad_values = float(getattr(layer, "pad_values", 0.0))
    if not np.allclose(np.abs(kernel), scale, rtol=1e-4, atol=0):
        return None
    shape = shape_read(layer)
    if not levels and quantizer is not None and not gives_signs(quantizer, shape):
        return None
    if not around and (padding == "causal" or odd_padding(layer)):
        return None
    if levels and padding == "same" and pad_values:
        return None
    signs = np.where(kernel < 0, -1.0, 1.0).astype("float32")
    offset = layer.bias.numpy() if layer.use_bias else None
    plain = bool(np.allclose(scale, 1.0))
    activation = layer.activation
    form = BinaryForm(
        signs,
        None if plain else scale,
        offset,
        quantizer=None if quantizer is None else _sign(quantizer, shape),
        strides=_pair(getattr(layer, "strides", (1, 1))),
        dilation_rate=_pair(getattr(layer, "dilation_rate", (1, 1))),
        padding=padding,
        pad_values=pad_values,
        groups=getattr(layer, "groups", 1),
        activation=None if activation is tf.keras.activations.linear else activation,
    )
    padded = around is not None and bool(around.added)
    if levels:
        form = form.on_zero_one(*levels)
    elif sign_of_zero(quantizer, shape) == -1:
        form = form.on_strict_sign()
    elif turns(quantizer, shape):
        form = dataclasses.replace(form, flips=True, quantizer=lq.math.sign)
    elif gives_signs_of_another(quantizer, shape) and (form.groups > 1 or padded):
        # It may be of all channels together, and is of what the image holds without a border.
        form = dataclasses.replace(form, before=quantizer, quantizer=lq.math.sign)
    return form.on_border(around) if around else form


def _pair(sizes: tuple[int, ...]) -> tuple[int, int]:
    return (sizes[0], 1) if len(sizes) == 1 else (sizes[0], sizes[1])


def _reasons(network: Network, index: int, form: BinaryForm) -> list[str]:
    """Return what keeps the layer, as it is, from running in binary."""
    call = network.calls[index]
    layer = call.layer
    reasons = []
    if not isinstance(layer, lq.layers.QuantConv2D):
        reasons.append(f"{type(layer).__name__} runs as a binary convolution")
    quantizer = layer.input_quantizer
    if quantizer is not None and _is_by_hand(quantizer) and form.quantizer is not quantizer:
        gives = "gives signs" if form.before else "is a sign"
        reasons.append(f"its input quantizer `{name_of(quantizer)}` {gives}, and runs as Larq's")
    if quantizer is None and network.strict(index):
        reasons.append("the sign before it, which is -1 at 0, is taken in the convolution")
    elif quantizer is None and not network.levels(index) and not network.reads_signs(index):
        reasons.append("the sign of the signs that it reads is taken once more")
    if form.border:
        reasons.append(_around(form.border))
    if network.levels(index):
        reasons.append("inputs of 0 and 1 run as signs")
    if form.scale is not None and form.scale.min() < _SMALLEST_SCALE:
        dead = int(np.sum(form.scale < _SMALLEST_SCALE))
        reasons.append(f"scales of {dead} filters below 1e-6 moved behind the convolution")
    if form.signs.size > _LARGEST_KERNEL:
        reasons.append(f"{4 * form.signs.size / 1e6:.0f} MB of weights quantized beforehand")
    if max(form.dilation_rate) > 1 and not isinstance(layer, BinaryConv2D):
        reasons.append("dilates inside the convolution")
    return reasons


def _around(border: Border) -> str:
    """Return how a convolution is padded that its kernel cannot pad."""
    if not border.values:
        return "the part of its kernel that reads padding alone left out"
    number = "zeros as the mean of 1 and -1" if border.doubles else f"{border.values[0]:.0f}"
    return f"padded with {number} before the sign"


def _as_image(
    compute: Callable[..., Any], read: tuple[int, ...], written: tuple[int, ...]
) -> Callable[..., Any]:
    """Return `compute` for rows or vectors: images of height 1, or of one pixel."""
    rows = read[0] if len(read) > 1 else 1
    flat = (-1, rows, int(np.prod(read[1:-1])), read[-1])

    def reshaped(x: tf.Tensor) -> tf.Tensor:
        return tf.reshape(compute(tf.reshape(x, flat)), (-1, *written))

    return reshaped


_SIGNS = {1: lq.math.sign, -1: _strict_sign}
"""The engine's sign, by what it gives for 0."""
