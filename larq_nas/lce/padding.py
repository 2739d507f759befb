"""Padding that the converter or a binary kernel cannot compute right.

Binary kernels pad with signs of 1 or with zeros, as much on one side as on the other, and with
zeros only what is at least as large as the kernel. What else pads signs is added as numbers
before the sign. A pad in front of a real convolution is taken into it by the converter where sizes
agree, though not always where it was.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_nas.graph.calls import Call, arguments_of
from larq_nas.graph.quantizers import gives_signs_of_another, sign_of_zero, zero_one
from larq_nas.layers import Scale

SIGN_PASSES = ("max_pool", "reshape", "concat", "crop", "pass")
"""The kinds of calls that hand on signs as they are."""

Paddings = tuple[tuple[int, int], tuple[int, int]]
"""Rows above and below, columns left and right."""

_LAYERS = (lq.layers.QuantConv2D, lq.layers.QuantConv1D)


@dataclass(frozen=True)
class Border:
    """What is added around the numbers of which a binary convolution takes the sign.

    # Arguments
        source: index of the call that gives the numbers.
        values: 1 or -1; both for zeros, of which the convolution is the mean of that with 1 and
            that with -1; none if nothing is added.
        paddings: how much.
        taps: the rows and columns of the kernel that reach the image at all.
        same: whether the kernel can pad after all, with padding="same" and ones.
    """

    source: int
    values: tuple[float, ...]
    paddings: Paddings
    taps: tuple[slice, slice]
    same: bool = False

    @property
    def added(self) -> tuple[float, ...]:
        """What is added as numbers: none, one, or two."""
        return () if self.same else self.values

    @property
    def doubles(self) -> bool:
        """Whether it computes the convolution twice, with 1 and with -1 around the image."""
        return len(self.values) > 1


def border(calls: Sequence[Call], index: int) -> Border | None:
    """Return what pads call `index` before its sign, if it is binary and its kernel cannot."""
    layer = calls[index].layer
    known = isinstance(layer, _LAYERS) and calls[index].facts.kind == "conv"
    if not known or layer.kernel_quantizer is None:
        return None
    read = giver(calls, calls[index].inputs[0])
    levels = zero_one(layer.input_quantizer)
    if layer.input_quantizer is None:
        return _border_behind_sign(calls, index, read)
    zero = sign_of_zero(layer.input_quantizer, calls[read].shape)
    if not (levels or zero or gives_signs_of_another(layer.input_quantizer, calls[read].shape)):
        return None
    return _own_border(layer, calls[index].inputs[0], calls[read].shape, bool(levels), zero == -1)


def _border_behind_sign(calls: Sequence[Call], index: int, read: int) -> Border | None:
    """Return what pads a convolution that reads signs, perhaps through a pad."""
    layer, found = calls[index].layer, None
    if calls[read].facts.kind == "pad":
        found, read = paddings_of(calls[read]), giver(calls, calls[read].inputs[0])
        if found is None or layer.padding != "valid" or len(calls[read].shape) != 3:
            return None
    levels = found is None and bool(zero_one(calls[read].layer))
    sign = calls[read].facts.kind == "sign"
    if not sign and not levels and not _holds_signs(calls, read):
        return None
    shape = calls[read].shape
    # Signs that others moved are taken once more: these are the same.
    source = calls[read].inputs[0] if sign or levels else read
    strict = sign and calls[read].facts.sign_of_zero == -1
    if found is None:
        return _own_border(layer, source, shape, levels, strict)
    paddings, value = found
    fewer = reached(layer, paddings, shape)
    if value not in (0.0, 1.0, -1.0):
        return None
    return _signed(layer, source, -value if strict else value, fewer, shape)


def _holds_signs(calls: Sequence[Call], index: int) -> bool:
    """Return whether the output of a call holds only -1 and 1, which it hands on."""
    kind = calls[index].facts.kind
    handed = kind in SIGN_PASSES and all(_holds_signs(calls, i) for i in calls[index].inputs)
    return kind == "sign" or handed


def _own_border(
    layer: Any, source: int, shape: Sequence[int], levels: bool, strict: bool
) -> Border | None:
    """Return the border of a layer that pads itself.

    Its signs are computed with the other one in their place where they are -1 at 0.
    """
    if layer.padding == "causal":
        before = (layer.kernel_size[0] - 1) * layer.dilation_rate[0]
        return _signed(layer, source, 1.0 if levels else 0.0, ((before, 0), (0, 0)), shape)
    value = -float(layer.pad_values) if strict else float(layer.pad_values)
    if layer.padding != "same" or levels or value not in (0.0, -1.0):
        return None
    large = any((taps - 1) * gap + 1 > size for size, taps, _, gap in _axes(layer, shape))
    if value == 0.0 and not large:
        return None
    return _signed(layer, source, value, same_paddings(layer, shape), shape)


def _signed(
    layer: Any, source: int, value: float, paddings: Paddings, shape: Sequence[int]
) -> Border:
    """Return the border of signs: where zeros are wanted, without the taps that read no other."""
    if value:
        height, width = pair(layer.kernel_size)
        alike = value == 1.0 or paddings == ((0, 0), (0, 0))
        same = alike and paddings == same_paddings(layer, shape)
        return Border(source, (value,), paddings, (slice(0, height), slice(0, width)), same)
    (rows, above), (columns, beside) = (_crop(*axis) for axis in _axes(layer, shape, paddings))
    needed = any((*above, *beside))
    return Border(source, (1.0, -1.0) if needed else (), (above, beside), (rows, columns))


def _crop(
    size: int, taps: int, step: int, gap: int, padding: tuple[int, int]
) -> tuple[slice, tuple[int, int]]:
    """Return the taps of an axis that ever reach the image, and what they need around it."""
    before, after = padding
    outputs = (before + size + after - (taps - 1) * gap - 1) // step + 1
    starts = np.arange(outputs) * step - before
    places = starts[:, np.newaxis] + np.arange(taps) * gap
    reaching = np.flatnonzero(np.any((places >= 0) & (places < size), axis=0)).tolist()
    if reaching:
        first, last = reaching[0], reaching[-1]
        left = before - first * gap
        right = (outputs - 1) * step + (last - first) * gap + 1 - size - left
        if left >= 0 and right >= 0:
            return slice(first, last + 1), (left, right)
    return slice(0, taps), padding


def paddings_of(call: Call) -> tuple[Paddings, float] | None:
    """Return how much `ZeroPadding2D` or `tf.pad` pads, and with what; `None` if not one number."""
    layer = call.layer
    if isinstance(layer, tf.keras.layers.ZeroPadding2D):
        last = layer.data_format == "channels_last"
        return (layer.padding, 0.0) if last else None
    if len(call.shape) != 3 or not isinstance(layer, tf.keras.layers.Layer):
        return None
    node = layer._inbound_nodes[call.index]
    shape = node.keras_inputs[0].shape[1:]
    numbers = np.arange(2, 2 + np.prod(shape), dtype="float32").reshape(1, *shape)
    arguments, settings = arguments_of(node, [tf.constant(numbers)])
    padded = np.asarray(layer(*arguments, **settings))
    corners = np.argwhere(padded == numbers.flat[0])
    if len(corners) != 1 or corners[0][0] or corners[0][3] or padded.shape[3] != shape[2]:
        return None
    top, left = map(int, corners[0][1:3])
    inside = np.zeros(padded.shape, bool)
    inside[:, top : top + shape[0], left : left + shape[1]] = True
    around = padded[~inside]
    if not around.size or np.any(around != around[0]):
        return None
    bottom, right = (padded.shape[i + 1] - shape[i] - (top, left)[i] for i in (0, 1))
    return ((top, int(bottom)), (left, int(right))), float(around[0])


def folds(calls: Sequence[Call], index: int) -> bool:
    """Return whether call `index` hands on an image, scaled or shifted by one number at most.

    The converter takes such a call into a convolution behind it, and a pad before the call then
    as well.
    """
    call = calls[index]
    layer, kind = call.layer, call.facts.kind
    if kind == "reshape":
        function = "reshape" in str(getattr(layer, "symbol", ""))
        reshapes = function or isinstance(layer, tf.keras.layers.Reshape)
        return reshapes and calls[call.inputs[0]].shape == call.shape
    if isinstance(layer, tf.keras.layers.Rescaling):
        return np.size(layer.scale) == np.size(layer.offset) == 1
    if isinstance(layer, Scale):
        return bool(np.all(layer.scale.numpy() == 1))
    return kind == "pass" or (kind in ("scale", "offset") and call.facts.constants == 1)


def reached(layer: Any, paddings: Paddings, shape: Sequence[int]) -> Paddings:
    """Return the part of a padding, of an image of `shape`, that a convolution's windows reach."""
    sides = []
    for size, taps, step, gap, (before, after) in _axes(layer, shape, paddings):
        window = (taps - 1) * gap + 1
        outputs = (before + size + after - window) // step + 1
        sides.append((before, max(0, (outputs - 1) * step + window - size - before)))
    return sides[0], sides[1]


def taken_in(layer: Any, paddings: Paddings, shape: Sequence[int]) -> Paddings | None:
    """Return the padding with which the converter computes a convolution behind a pad.

    It takes for padding="same" what gives as many outputs and is even on both sides, or one
    more behind, and leaves other pads as they are.
    """
    for size, taps, step, gap, (before, after) in _axes(layer, shape, paddings):
        outputs = (before + size + after - (taps - 1) * gap - 1) // step + 1
        if outputs != -(-size // step) or before != (before + after) // 2:
            return None
    return same_paddings(layer, shape)


def same_paddings(layer: Any, shape: Sequence[int]) -> Paddings:
    """Return what padding="same" adds to an image of `shape`, with its channels."""
    sides = []
    for size, taps, step, gap in _axes(layer, shape):
        total = max(0, (-(-size // step) - 1) * step + (taps - 1) * gap + 1 - size)
        sides.append((total // 2, total - total // 2))
    return sides[0], sides[1]


def pair(sizes: Sequence[int]) -> tuple[int, int]:
    """Return sizes of rows as those of an image."""
    return (sizes[0], 1) if len(sizes) == 1 else (sizes[0], sizes[1])


def _axes(layer: Any, shape: Sequence[int], *more: Any) -> Iterable[tuple[Any, ...]]:
    """Return size, taps, step and gap of both axes, and what more there is of each."""
    settings = (layer.kernel_size, layer.strides, layer.dilation_rate)
    return zip(pair(shape[:-1]), *map(pair, settings), *more, strict=True)


def giver(
    calls: Sequence[Call],
    index: int,
    passes: Collection[str] = ("pass",),
    passed: Collection[int] = (),
) -> int:
    """Return the call that gives what call `index` hands on: of these kinds, and these calls."""
    while calls[index].facts.kind in passes or index in passed:
        index = calls[index].inputs[0]
    return index
