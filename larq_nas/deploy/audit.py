"""Which layer of a model became which operation of its flatbuffer."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from larq_nas.deploy.causes import is_binary, likely_cause, quantized_kernel
from larq_nas.deploy.flatbuffer import Operator, operators, pack_signs

__all__ = ["Audit", "LayerAudit", "audit"]

_FLOAT_KINDS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


@dataclass(frozen=True)
class LayerAudit:
    """What became of one convolution or dense layer.

    # Arguments
        layer: name of the Keras layer.
        binary: whether it is binary by definition.
        runs_as: the operation that computes it.
        cause: why a binary layer does not run in binary; empty if it does.
    """

    layer: str
    binary: bool
    runs_as: str
    cause: str = ""


@dataclass(frozen=True)
class Audit:
    """The operations of a flatbuffer, and the layers they came from.

    # Arguments
        layers: every convolution and dense layer, in the model's order.
        operations: number of operations by kind.
    """

    layers: Sequence[LayerAudit]
    operations: dict[str, int]

    @property
    def fallbacks(self) -> list[LayerAudit]:
        """The layers that are binary by definition and run in float."""
        return [row for row in self.layers if row.cause]

    def __str__(self) -> str:
        binary = [row for row in self.layers if row.binary]
        ran = len(binary) - len(self.fallbacks)
        lines = [f"{ran} of {len(binary)} binary layers run as LceBconv2d"]
        lines += [f"{row.layer}: {row.runs_as} (float)" for row in self.layers if not row.binary]
        lines += [f"{row.layer}: {row.runs_as} (FELL BACK: {row.cause})" for row in self.fallbacks]
        counts = ", ".join(f"{kind} {count}" for kind, count in self.operations.items())
        return "\n".join([*lines, f"operations: {counts}"])


def audit(model: tf.keras.Model, flatbuffer: bytes) -> Audit:
    """Match the layers of `model` with the operations of `flatbuffer`.

    Binary layers are matched by the very bits of their kernels, so that no renaming or
    fusing in the converter can hide one.

    # Arguments
        model: the model that was converted.
        flatbuffer: what it was converted to.
    """
    found = operators(flatbuffer)
    packed = Counter(_key(op.filters) for op in found if op.kind == "LceBconv2d")
    rows = []
    for layer in _weighted_layers(model):
        rows.append(_row_binary(layer, packed) if is_binary(layer) else _row_float(layer, found))
    return Audit(rows, dict(Counter(op.kind for op in found).most_common()))


def _row_binary(layer: tf.keras.layers.Layer, packed: Counter[bytes]) -> LayerAudit:
    keys = []
    if isinstance(layer, tf.keras.layers.Conv2D):
        kernels = np.split(quantized_kernel(layer), layer.groups, axis=-1)
        keys = [_key(pack_signs(kernel)) for kernel in kernels]
        whole = [_key(np.concatenate([pack_signs(kernel) for kernel in kernels]))]
        for wanted in (keys, whole):
            if not Counter(wanted) - packed:
                packed.subtract(wanted)
                return LayerAudit(layer.name, True, "LceBconv2d")
    return LayerAudit(layer.name, True, "float", likely_cause(layer))


def _row_float(layer: tf.keras.layers.Layer, found: Sequence[Operator]) -> LayerAudit:
    kinds = [
        op.kind for op in found if op.kind in _FLOAT_KINDS and layer.name in op.output.split("/")
    ]
    dense = isinstance(layer, tf.keras.layers.Dense)
    return LayerAudit(layer.name, False, kinds[0] if kinds else _FLOAT_KINDS[2 if dense else 0])


def _weighted_layers(model: tf.keras.Model) -> list[tf.keras.layers.Layer]:
    kinds = (
        tf.keras.layers.Conv2D,
        tf.keras.layers.DepthwiseConv2D,
        tf.keras.layers.SeparableConv2D,
        tf.keras.layers.Dense,
    )
    # `_flatten_layers` also reaches the layers of models that are used as a layer.
    return [layer for layer in model._flatten_layers() if isinstance(layer, kinds)]


def _key(filters: np.ndarray | None) -> bytes:
    if filters is None:
        return b""
    return repr(filters.shape).encode() + filters.tobytes()
