"""Signatures of operations: all that decides how long they take."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from flatbuffers import flexbuffers
from tensorflow.lite.python import schema_py_generated as schema

from larq_nas.cost.profile import Structure
from larq_nas.deploy.flatbuffer import operators, read_model
from larq_nas.errors import InputError
from larq_nas.graph.channels import divide
from larq_nas.latency.latency import Latency
from larq_nas.lce.fallback import zero_padded
from larq_nas.lce.network import Network
from larq_nas.lce.operators import Operator, Tensor, words

_CONVOLUTIONS = ("LceBconv2d", "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")
_POOLS = ("LceBMaxPool2d", "MAX_POOL_2D", "AVERAGE_POOL_2D")
_ARITHMETIC = ("ADD", "MUL", "SUB", "DIV", "ARITHMETIC")
_SIZE = r"\d+x\d+ \w+"
_SIDE = rf"{_SIZE}(?: \+ {_SIZE})*"
_SIGNATURE = re.compile(
    r"(?P<kind>\w+)(?: (?P<kernel>\d+x\d+))?(?: dilated (?P<dilation>\d+x\d+))?"
    r"(?P<zeros> zero-padded)?(?: by (?P<numbers>\d+(?:, \d+)*))?: "
    rf"(?P<reads>(?:{_SIDE})?) -> (?P<writes>{_SIDE})"
)


@dataclass(frozen=True)
class Size:
    """The size of a tensor: positions, and channels of floats, or of words that 32 signs share."""

    positions: int
    channels: Any
    unit: str = "float"

    def __str__(self) -> str:
        return f"{self.positions}x{self.channels} {self.unit}"


@dataclass(frozen=True)
class Signature:
    """What decides how long an operation takes.

    As text it is the key of a latency table, such as
    `"LceBconv2d 3x3: 1024x2 words -> 1024x64 float"`. Constants that it reads do not count, except
    in a sum or product: `numbers` tells how many numbers each of those holds.
    """

    kind: str
    reads: tuple[Size, ...]
    writes: tuple[Size, ...]
    kernel: tuple[int, int] | None = None
    dilation: tuple[int, int] = (1, 1)
    zero_padded: bool = False
    numbers: tuple[Any, ...] = ()

    def __str__(self) -> str:
        text = self.kind
        if self.kernel:
            text += " {}x{}".format(*self.kernel)
        if self.dilation != (1, 1):
            text += " dilated {}x{}".format(*self.dilation)
        text += " zero-padded" * self.zero_padded
        if self.numbers:
            text += f" by {', '.join(map(str, self.numbers))}"
        return f"{text}: {' + '.join(map(str, self.reads))} -> {' + '.join(map(str, self.writes))}"

    @property
    def widths(self) -> tuple[Any, ...]:
        """All that depends on the widths of a network."""
        return (*(size.channels for size in (*self.reads, *self.writes)), *self.numbers)

    def at(self, widths: Sequence[int]) -> "Signature":
        """Return the same operation with other `widths`."""
        left = iter(widths)
        reads, writes = (
            tuple(replace(size, channels=next(left)) for size in sizes)
            for sizes in (self.reads, self.writes)
        )
        return replace(self, reads=reads, writes=writes, numbers=tuple(left))

    @property
    def moved(self) -> int:
        """Bytes that it reads and writes, constants not counted."""
        return 4 * sum(size.positions * size.channels for size in (*self.reads, *self.writes))

    @property
    def steps(self) -> int:
        """Multiply-accumulates, or what a window takes in; 32 binary ones in a word count once."""
        taps = self.kernel[0] * self.kernel[1] if self.kernel else 1
        written = sum(
            size.positions * size.channels * (32 if size.unit == "words" else 1)
            for size in self.writes
        )
        mixes = self.kind in ("LceBconv2d", "CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED")
        read = sum(size.channels for size in self.reads) if mixes else 1
        return taps * written * read


def parse(text: object) -> Signature:
    """Return the signature that `text` stands for, or raise `InputError` if it is none."""
    match = _SIGNATURE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InputError(
            f"An operation must read like `MUL by 64: 1024x64 float -> 1024x64 float`, "
            f"but got {text!r}."
        )
    return Signature(
        match["kind"],
        _sizes(match["reads"]),
        _sizes(match["writes"]),
        _pair(match["kernel"]) if match["kernel"] else None,
        _pair(match["dilation"] or "1x1"),
        bool(match["zeros"]),
        tuple(map(int, re.findall(r"\d+", match["numbers"] or ""))),
    )


def _sizes(text: str) -> tuple[Size, ...]:
    parts = re.findall(r"(\d+)x(\d+) (\w+)", text)
    return tuple(Size(int(positions), int(channels), unit) for positions, channels, unit in parts)


def _pair(text: str) -> tuple[int, int]:
    return _two([int(number) for number in text.split("x")])


def predicted(structure: Structure, answers: Mapping[str, Any] | None = None) -> list[Signature]:
    """Return the signatures of a network's operations, in the order they run.

    Answers are widths, as `Structure.costs` takes them; arrays of them make arrays of the widths.
    """
    channels = [call.channels for call in structure.count(answers)]
    return [_signature(structure.network, operator, channels) for operator in structure.operators]


def _signature(network: Network, operator: Operator, channels: Sequence[Any]) -> Signature:
    layer, kind = network.calls[operator.call].layer, operator.kind
    kernel, dilation, numbers = None, (1, 1), ()
    if kind in _CONVOLUTIONS:
        kernel, dilation = _two(layer.kernel_size), _two(layer.dilation_rate)
        around = network.borders.get(operator.call)
        if kind == "LceBconv2d" and around:
            rows, columns = around.taps
            kernel = rows.stop - rows.start, columns.stop - columns.start
    elif kind in _POOLS:
        kernel = _two(layer.pool_size)
    elif kind in _ARITHMETIC:
        numbers = tuple(constant.bytes // 4 for constant in operator.constants(channels))
    if any(tensor.form.startswith("spread") for tensor in operator.reads):
        dilation = (1, 1)
    if any(tensor.form.startswith("depthwise") for tensor in operator.reads):
        kernel, dilation = (1, 1), (1, 1)
    reads, writes = (
        tuple(_size(network, tensor, channels) for tensor in tensors)
        for tensors in (operator.reads, operator.writes)
    )
    zeros = kind == "LceBconv2d" and zero_padded(network, operator.call)
    return Signature(kind, reads, writes, kernel, dilation, zeros, numbers)


def _size(network: Network, tensor: Tensor, channels: Sequence[Any]) -> Size:
    wide = divide(channels[tensor.call], tensor.parts) * tensor.times
    area = network.calls[tensor.call].area if tensor.area is None else tensor.area
    return Size(area, words(wide), "words") if tensor.packed else Size(area, wide)


def _two(values: int | Sequence[int]) -> tuple[int, int]:
    """Return height and width; rows are images of height 1."""
    values = (values,) if isinstance(values, int) else tuple(values)
    height, width = (1, *values)[-2:]
    return int(height), int(width)


_SAME = 0
# A device may tell milliseconds to so few digits that a short operation takes none.
_LEAST = 0.01
_UNITS = {
    value: name.lower() for name, value in vars(schema.TensorType).items() if name.isupper()
} | {schema.TensorType.FLOAT32: "float", schema.TensorType.INT32: "words"}


def signatures(flatbuffer: bytes) -> list[Signature]:
    """Return the signatures of the operations of `flatbuffer`, in the order they run."""
    model = read_model(flatbuffer)
    found = zip(operators(flatbuffer), model.subgraphs[0].operators, strict=True)
    return [_read(model, one.kind, operator) for one, operator in found]


def timed_operations(flatbuffer: bytes, latency: Latency) -> list[tuple[str, float]]:
    """Return each operation's signature and microseconds, or refuse those of another network."""
    found = signatures(flatbuffer)
    kinds = [signature.kind for signature in found]
    timed = [operation.kind for operation in latency.operations]
    if timed != kinds:
        pairs = enumerate(zip_longest(kinds, timed, fillvalue="nothing"), 1)
        number, (kind, other) = next((n, pair) for n, pair in pairs if pair[0] != pair[1])
        raise InputError(
            f"`measure` must time each of {len(kinds)} operations in order, but timed "
            f"{len(timed)}: number {number} is {kind}, and it timed {other}; switch off what joins "
            "operations, such as XNNPACK."
        )
    return [
        (str(signature), max(_LEAST, operation.microseconds))
        for signature, operation in zip(found, latency.operations, strict=True)
    ]


def _read(model: schema.ModelT, kind: str, operator: schema.OperatorT) -> Signature:
    tensors = model.subgraphs[0].tensors
    # An optional input that is not given has index -1.
    given = [tensors[index] for index in operator.inputs if index >= 0]
    constants = [t for t in given if model.buffers[t.buffer].data is not None]
    reads = [t for t in given if model.buffers[t.buffer].data is None]
    data, options = operator.customOptions, operator.builtinOptions
    custom: Any = {} if data is None or not len(data) else flexbuffers.Loads(bytes(data))
    kernel = None
    if kind in _CONVOLUTIONS:
        # The first constant of a transposed one is the shape of its output.
        kernel = _two(constants[kind == "TRANSPOSE_CONV"].shape[1:3])
    elif kind == "LceBMaxPool2d":
        kernel = custom["filter_height"], custom["filter_width"]
    elif hasattr(options, "filterHeight"):
        kernel = options.filterHeight, options.filterWidth
    dilation = getattr(options, "dilationHFactor", 1), getattr(options, "dilationWFactor", 1)
    if "dilation_height_factor" in custom:
        dilation = custom["dilation_height_factor"], custom["dilation_width_factor"]
    return Signature(
        kind,
        tuple(map(_size_of, reads)),
        tuple(_size_of(tensors[index]) for index in operator.outputs),
        kernel,
        dilation,
        kind == "LceBconv2d" and custom["padding"] == _SAME and not custom["pad_values"],
        tuple(math.prod(t.shape) for t in constants) if kind in _ARITHMETIC else (),
    )


def _size_of(tensor: schema.TensorT) -> Size:
    *positions, channels = tensor.shape if len(tensor.shape) else [1]
    return Size(math.prod(map(int, positions)), int(channels), _UNITS[tensor.type])
