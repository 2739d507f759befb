"""Reads the signatures of the operations in a flatbuffer."""

import math
from itertools import zip_longest
from typing import Any

from flatbuffers import flexbuffers
from tensorflow.lite.python import schema_py_generated as schema

from larq_nas.deploy.flatbuffer import operators, read_model
from larq_nas.errors import InputError
from larq_nas.latency.latency import Latency
from larq_nas.latency.signature import Signature, Size

__all__ = ["signatures", "timed_operations"]

_ARITHMETIC = ("ADD", "MUL", "SUB", "DIV")
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
    return [_Reader(model, one.kind, operator).signature() for one, operator in found]


def timed_operations(flatbuffer: bytes, latency: Latency) -> list[tuple[str, float]]:
    """Return each operation's signature and microseconds, in the order they run.

    # Raises
        InputError: if the operations of `latency` are not those of `flatbuffer`.
    """
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


class _Reader:
    """Reads one operation."""

    def __init__(self, model: schema.ModelT, kind: str, operator: schema.OperatorT) -> None:
        self.kind, self.operator = kind, operator
        tensors = model.subgraphs[0].tensors
        # An optional input that is not given has index -1.
        given = [tensors[index] for index in operator.inputs if index >= 0]
        self.constants = [t for t in given if model.buffers[t.buffer].data is not None]
        self.reads = [t for t in given if model.buffers[t.buffer].data is None]
        self.writes = [tensors[index] for index in operator.outputs]

    def signature(self) -> Signature:
        custom = self._custom()
        numbers = self.constants if self.kind in _ARITHMETIC else ()
        return Signature(
            self.kind,
            tuple(map(_size, self.reads)),
            tuple(map(_size, self.writes)),
            self._kernel(custom),
            self._dilation(custom),
            self.kind == "LceBconv2d" and custom["padding"] == _SAME and not custom["pad_values"],
            tuple(math.prod(tensor.shape) for tensor in numbers),
        )

    def _custom(self) -> dict[str, Any]:
        data = self.operator.customOptions
        if data is None or not len(data):
            return {}
        options: dict[str, Any] = flexbuffers.Loads(bytes(data))
        return options

    def _kernel(self, custom: dict[str, Any]) -> tuple[int, int] | None:
        if self.kind in ("LceBconv2d", "CONV_2D", "DEPTHWISE_CONV_2D"):
            height, width = self.constants[0].shape[1:3]
            return int(height), int(width)
        if self.kind == "TRANSPOSE_CONV":  # its first constant is the shape of its output
            height, width = self.constants[1].shape[1:3]
            return int(height), int(width)
        if self.kind == "LceBMaxPool2d":
            return custom["filter_height"], custom["filter_width"]
        options = self.operator.builtinOptions
        if hasattr(options, "filterHeight"):
            return options.filterHeight, options.filterWidth
        return None

    def _dilation(self, custom: dict[str, Any]) -> tuple[int, int]:
        if "dilation_height_factor" in custom:
            return custom["dilation_height_factor"], custom["dilation_width_factor"]
        options = self.operator.builtinOptions
        return getattr(options, "dilationHFactor", 1), getattr(options, "dilationWFactor", 1)


def _size(tensor: schema.TensorT) -> Size:
    *positions, channels = tensor.shape if len(tensor.shape) else [1]
    return Size(math.prod(map(int, positions)), int(channels), _UNITS[tensor.type])
