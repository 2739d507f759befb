"""Layers that become several operations: groups, separable and dilated convolutions."""

import math
from collections.abc import Sequence
from typing import Any

from larq_nas.cost.constants import separable_constants
from larq_nas.cost.fusing import Fusing
from larq_nas.cost.operators import Constant, Constants, Operator, Tensor

__all__ = ["grouped", "separable", "spread"]


def grouped(index: int, groups: int, source: Tensor, constants: Constants) -> list[Operator]:
    """Return a grouped binary convolution: one convolution for each part of the channels.

    # Arguments
        index: index of the call.
        groups: number of groups.
        source: what it reads.
        constants: the constants of each convolution.
    """
    read = source.call
    parts = tuple(Tensor(read, f"part{g} of {index}", groups) for g in range(groups))
    signs = [Tensor(read, f"bits{g} of {index}", groups, True) for g in range(groups)]
    outputs = tuple(Tensor(index, f"output{g}", groups) for g in range(groups))
    quantized = [
        Operator("LceQuantize", index, (part,), (packed,))
        for part, packed in zip(parts, signs, strict=True)
    ]
    convolved = [
        Operator("LceBconv2d", index, (packed,), (output,), constants)
        for packed, output in zip(signs, outputs, strict=True)
    ]
    split = Operator("SPLIT", index, (source,), parts, lambda channels: [Constant(4)])
    joined = Operator("CONCATENATION", index, outputs, (Tensor(index),))
    return [split, *quantized, *convolved, joined]


def separable(fusing: Fusing, index: int, source: Tensor, output: Tensor) -> list[Operator]:
    """Return a separable convolution: a depthwise one and a 1x1 one."""
    depthwise, pointwise = separable_constants(fusing, index)
    area = fusing.network.calls[index].area
    between = Tensor(source.call, f"depthwise of {index}", area=area)
    return [
        Operator("DEPTHWISE_CONV_2D", index, (source,), (between,), depthwise),
        Operator("CONV_2D", index, (between,), (output,), pointwise),
    ]


def spread(
    fusing: Fusing, index: int, kind: str, source: Tensor, output: Tensor, constants: Constants
) -> list[Operator]:
    """Return a dilated convolution as one on a batch of every other pixel.

    The first operation is the same for all that dilate `source` in the same way.
    """
    layer = fusing.network.calls[index].layer
    padded = _padded(layer, fusing.network.calls[source.call].shape[:-1])
    form = f"spread by {layer.dilation_rate} for {layer.kernel_size}"
    batch = Tensor(source.call, form, area=math.prod(padded))
    settings = zip(padded, layer.kernel_size, layer.dilation_rate, strict=True)
    area = math.prod(size - (taps - 1) * step for size, taps, step in settings)
    convolved = Tensor(index, "spread", area=area)
    return [
        Operator("SPACE_TO_BATCH_ND", index, (source,), (batch,), _block_and_padding),
        Operator(kind, index, (batch,), (convolved,), constants),
        Operator("BATCH_TO_SPACE_ND", index, (convolved,), (output,), _block_and_padding),
    ]


def _padded(layer: Any, sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the height and width of a tensor padded for a dilated convolution."""
    settings = zip(sizes, layer.kernel_size, layer.dilation_rate, strict=True)
    return tuple(-(-(size + (taps - 1) * step) // step) * step for size, taps, step in settings)


def _block_and_padding(channels: Any) -> list[Constant]:
    return [Constant(8), Constant(16)]
