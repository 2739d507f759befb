"""Layers that become several operations: groups, dilations, sums and so on."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

from larq_nas.graph.calls import Call
from larq_nas.graph.opaque import CONSTANT_BYTES, Opaque
from larq_nas.lce.fusing import Fusing
from larq_nas.lce.operators import (
    Constant,
    Constants,
    Operator,
    Tensor,
    known,
    numbers,
    shape_of,
)

Surrounding = tuple[Sequence[float], str, int]
"""The numbers that are added around an image, a text for how many, and the area it has then."""


def surround(index: int, source: Tensor, around: Surrounding) -> list[Operator]:
    """Return what adds numbers around an image: side by side, if there are two of them."""
    values, paddings, area = around
    operators = []
    for value in values:
        padded = replace(source, form=f"{source.form} in {value} by {paddings}", area=area)
        constants = partial(_surrounding, paddings, value)
        operators.append(Operator("PADV2", index, (source,), (padded,), constants))
    if len(values) > 1:
        sides = tuple(operator.writes[0] for operator in operators)
        joined = replace(sides[0], form=f"{sides[0].form}, and twice", times=2)
        operators.append(Operator("CONCATENATION", index, sides, (joined,)))
    return operators


def _surrounding(paddings: str, value: float, channels: Any) -> list[Constant]:
    return [Constant(32, paddings), Constant(4, ("around", value))]


def grouped(
    index: int,
    source: Tensor,
    output: Tensor,
    constants: Sequence[Constants],
    around: Surrounding,
) -> list[Operator]:
    """Return a grouped binary convolution: one convolution for each part of the channels.

    # Arguments
        index: index of the call.
        source: what it reads.
        output: what it writes.
        constants: the constants of the convolution of each group.
        around: what is added before the signs.
    """
    read, groups = source.call, len(constants)
    parts = tuple(Tensor(read, f"part{g} of {index}", groups) for g in range(groups))
    padded = [surround(index, part, around) for part in parts]
    reads = [ops[-1].writes[0] if ops else part for ops, part in zip(padded, parts, strict=True)]
    signs = [replace(one, form=f"bits{g} of {index}", packed=True) for g, one in enumerate(reads)]
    outputs = tuple(Tensor(index, f"output{g}", groups) for g in range(groups))
    quantized = [
        Operator("LceQuantize", index, (part,), (packed,))
        for part, packed in zip(reads, signs, strict=True)
    ]
    convolved = [
        Operator("LceBconv2d", index, (packed,), (output,), held)
        for packed, output, held in zip(signs, outputs, constants, strict=True)
    ]
    split = Operator("SPLIT", index, (source,), parts, known(1, "channel axis"))
    joined = Operator("CONCATENATION", index, outputs, (output,))
    return [split, *chain(*padded), *quantized, *convolved, joined]


def separable(
    fusing: Fusing,
    index: int,
    source: Tensor,
    output: Tensor,
    depthwise: Constants,
    pointwise: Constants,
) -> list[Operator]:
    """Return a separable convolution: a depthwise one and a 1x1 one, with their constants."""
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


def total(
    kind: str, index: int, reads: Sequence[Tensor], output: Tensor, constants: Constants
) -> list[Operator]:
    """Return a sum, mean or other arithmetic of tensors, two at a time, or of one and constants."""
    name = "ARITHMETIC" if kind == "arithmetic" else "ADD"
    if len(reads) == 1:  # and a constant
        return [Operator(name, index, (reads[0],), (output,), constants)]
    operators = []
    so_far = reads[0]
    for number, other in enumerate(reads[1:], 2):
        last = number == len(reads) and kind != "average"
        result = output if last else Tensor(output.call, f"sum{number}")
        operators.append(Operator(name, index, (so_far, other), (result,)))
        so_far = result
    if kind == "average":
        operators.append(Operator("MUL", index, (so_far,), (output,), numbers(1)))
    return operators


def composite(index: int, reads: tuple[Tensor, ...], output: Tensor) -> list[Operator]:
    """Return an activation such as swish, `x * sigmoid(x)`."""
    between = Tensor(output.call, "between")
    return [
        Operator("ACTIVATION", index, reads, (between,)),
        Operator("MUL", index, (*reads, between), (output,)),
    ]


def signs_as_numbers(
    layer: Any, index: int, packed: Tensor, shape: Sequence[int]
) -> list[Operator]:
    """Return what gives a binary layer that runs in float its signs, padded.

    # Arguments
        layer: the layer.
        index: index of the call.
        packed: the signs, as bits.
        shape: shape of what the layer reads.
    """
    signs = Tensor(packed.call, f"signs for {index}")
    operators = [Operator("LceDequantize", index, (packed,), (signs,))]
    if getattr(layer, "pad_values", 0) and layer.padding == "same":
        sizes = zip(shape[:-1], layer.kernel_size, strict=True)
        area = math.prod(size + taps - 1 for size, taps in sizes)
        padded = Tensor(packed.call, f"padded for {index}", area=area)
        operators.append(Operator("PADV2", index, (signs,), (padded,), numbers(9)))
    return operators


def opaque(
    index: int,
    found: Opaque,
    reads: tuple[Tensor, ...],
    output: Tensor,
    once: Callable[[Constants], Constants],
) -> list[Operator]:
    """Return the operations of a call that was converted alone; the first has all constants.

    # Arguments
        index: index of the call.
        found: what it was converted to.
        reads: what it reads.
        output: what it writes.
        once: gives constants that are held once, however often a layer is called.
    """
    spare = found.bytes - CONSTANT_BYTES
    constants = once(numbers(spare // 4)) if spare > 0 else lambda channels: []
    operators = []
    for number, kind in enumerate(found.kinds, 1):
        last = number == len(found.kinds)
        written = output if last else Tensor(output.call, f"step {number}")
        held = constants if number == 1 else (lambda channels: [])
        operators.append(Operator(kind, index, reads, (written,), held))
        reads = (written,)
    return operators


def in_one_dimension(
    call: Call,
    index: int,
    kind: str,
    source: Tensor,
    output: Tensor,
    constants: Constants,
    rows: int,
) -> list[Operator]:
    """Return a convolution over rows: one over images of height 1.

    Where it dilates, on a batch of every other row, with what it adds in an operation of its own.
    """
    layer, read = call.layer, source.call
    taps, step, padding = layer.kernel_size[0], layer.dilation_rate[0], layer.padding
    around = (taps - 1) * step if padding != "valid" else 0
    operators, held = [], constants
    if padding == "causal" and around:
        rows, padded = rows + around, replace(source, form=f"{around} before", area=rows + around)
        operators.append(Operator("PAD", index, (source,), (padded,), known(6, "pad", around)))
        source, around = padded, 0
    spreads = step > 1 and kind == "CONV_2D"
    if spreads:
        extra = -(rows + around) % step
        rows += around + extra
        batch = replace(source, form=f"spread by {step} for {layer.kernel_size}", area=rows)
        sides = around // 2, around - around // 2 + extra
        block, paddings = known(1, "block", step), known(2, "paddings", *sides)
        crops = known(2, "paddings", 0, extra)
        operators.append(
            Operator("SPACE_TO_BATCH_ND", index, (source,), (batch,), _both(block, paddings))
        )
        source = batch
        held = lambda channels: [constants(channels)[0], Constant(4 * channels[index], 0.0)]  # noqa: E731
    image, result = replace(source, form=f"image for {index}"), Tensor(output.call, "image")
    if not spreads:
        return [
            *operators,
            Operator("RESHAPE", index, (source,), (image,), shape_of(rows, read, 4)),
            Operator(kind, index, (image,), (result,), held),
            Operator("RESHAPE", index, (result,), (output,), shape_of(call.area, index, 3)),
        ]
    area = rows - (taps - 1) * step
    image, result = replace(image, form=f"image of {source.form}"), replace(result, area=area)
    parts, joined = replace(result, form="rows of parts"), replace(output, form="joined")
    operators += [
        Operator("RESHAPE", index, (source,), (image,), shape_of(rows, read, 4)),
        Operator(kind, index, (image,), (result,), held),
        Operator("RESHAPE", index, (result,), (parts,), shape_of(area, index, 3)),
    ]
    whole = joined if call.facts.bias else output
    operators.append(Operator("BATCH_TO_SPACE_ND", index, (parts,), (whole,), _both(block, crops)))
    if call.facts.bias:
        bias: Constants = lambda channels: constants(channels)[1:]  # noqa: E731
        operators.append(Operator("ADD", index, (joined,), (output,), bias))
    return operators


def _both(one: Constants, other: Constants) -> Constants:
    return lambda channels: [*one(channels), *other(channels)]


def without_twice_reshaped(operators: Sequence[Operator]) -> list[Operator]:
    """Return the operations with reshapes of what was just reshaped as one, or as none.

    A convolution over rows reads images of height 1, and so does the one that follows.
    """
    read: Counter[Tensor] = Counter(tensor for op in operators for tensor in op.reads)
    writers: dict[Tensor, Operator] = {}
    same: dict[Tensor, Tensor] = {}
    kept: list[Operator] = []
    for operator in operators:
        operator = replace(operator, reads=tuple(same.get(t, t) for t in operator.reads))
        before = writers.get(operator.reads[0]) if operator.kind == "RESHAPE" else None
        if before is not None and before.kind == "RESHAPE" and read[before.writes[0]] == 1:
            kept.remove(before)
            operator = replace(operator, reads=before.reads)
            if before.reads[0].form == "image" and operator.writes[0].form.startswith("image for"):
                same[operator.writes[0]] = before.reads[0]
                continue
        kept.append(operator)
        writers |= dict.fromkeys(operator.writes, operator)
    return kept


def _padded(layer: Any, sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the height and width of a tensor padded for a dilated convolution."""
    settings = zip(sizes, layer.kernel_size, layer.dilation_rate, strict=True)
    return tuple(-(-(size + (taps - 1) * step) // step) * step for size, taps, step in settings)


def _block_and_padding(channels: Any) -> list[Constant]:
    return [Constant(8), Constant(16)]
