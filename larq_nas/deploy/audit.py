"""Which layer of a model became which operation of its flatbuffer."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from larq_nas.deploy.causes import has_quantizer, is_binary, likely_cause, quantized_kernel
from larq_nas.deploy.flatbuffer import Operator, operators, pack_signs

__all__ = ["Audit", "LayerAudit", "audit", "weighted_layers"]

_BINARY = "LceBconv2d"
_FLOAT_KINDS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
_WEIGHTED = (
    tf.keras.layers.Conv1D,
    tf.keras.layers.Conv2D,
    tf.keras.layers.DepthwiseConv2D,
    tf.keras.layers.SeparableConv1D,
    tf.keras.layers.SeparableConv2D,
    tf.keras.layers.Dense,
)


@dataclass(frozen=True)
class LayerAudit:
    """What became of one convolution or dense layer.

    # Arguments
        layer: name of the Keras layer.
        binary: whether its inputs and weights are binary by definition.
        runs_as: the operation that computes it, `"float"` for a fallback.
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
        lines = [f"{ran} of {len(binary)} binary layers run as {_BINARY}"]
        lines += [f"{row.layer}: {row.runs_as} (real)" for row in self.layers if not row.binary]
        lines += [f"{row.layer}: {row.runs_as} (FELL BACK: {row.cause})" for row in self.fallbacks]
        counts = ", ".join(f"{kind} {count}" for kind, count in self.operations.items())
        return "\n".join([*lines, f"operations: {counts}"])


def audit(
    model: tf.keras.Model,
    flatbuffer: bytes,
    rewritten: Mapping[int, Sequence[np.ndarray]] | None = None,
) -> Audit:
    """Match the layers of `model` with the operations of `flatbuffer`.

    Binary layers are matched by the very bits of their kernels, so that no renaming or
    fusing in the converter can hide one.

    # Arguments
        model: the model that was converted.
        flatbuffer: what it was converted to.
        rewritten: for layers that are computed in another way, by id, the signs of their
            binary convolutions.
    """
    rewritten = rewritten or {}
    found = operators(flatbuffer)
    packed = Counter(_key(op.filters) for op in found if op.kind == _BINARY)
    floats = [op for op in found if op.kind in _FLOAT_KINDS]
    rows = []
    for layer, calls in weighted_layers(model):
        if id(layer) in rewritten:
            keys = [_key(pack_signs(signs)) for signs in rewritten[id(layer)]]
            runs_in_binary = _take(packed, keys)
        else:
            runs_in_binary = _take_kernels(layer, calls, packed)
        if is_binary(layer):
            cause = "" if runs_in_binary else likely_cause(layer)
            rows.append(LayerAudit(layer.name, True, "float" if cause else _BINARY, cause))
        else:
            kind = _BINARY if runs_in_binary else _kind_of(layer, floats)
            rows.append(LayerAudit(layer.name, False, kind))
    return Audit(rows, dict(Counter(op.kind for op in found).most_common()))


def _take_kernels(layer: tf.keras.layers.Layer, calls: int, packed: Counter[bytes]) -> bool:
    """Return whether every call of `layer` has its binary operations, and use them up."""
    if not isinstance(layer, tf.keras.layers.Conv2D):
        return False
    kernels = np.split(quantized_kernel(layer), layer.groups, axis=-1)
    split = [_key(pack_signs(kernel)) for kernel in kernels]
    whole = [_key(np.concatenate([pack_signs(kernel) for kernel in kernels]))]
    return any(_take(packed, calls * keys) for keys in (split, whole))


def _take(packed: Counter[bytes], keys: Sequence[bytes]) -> bool:
    """Return whether there is an operation for each of `keys`, and use them up."""
    wanted = Counter(keys)
    if wanted - packed:
        return False
    packed.subtract(wanted)
    return True


def _kind_of(layer: tf.keras.layers.Layer, floats: Sequence[Operator]) -> str:
    for op in floats:
        if layer.name in op.output.split("/") or _holds_kernel(layer, op.filters):
            return op.kind
    return "not found"


def _holds_kernel(layer: tf.keras.layers.Layer, filters: np.ndarray | None) -> bool:
    """Return whether `filters` are those of `layer`, each times a number of its own.

    The converter folds batch norm into a real convolution, and names it after what follows.
    """
    if filters is None or not hasattr(layer, "kernel"):
        return False
    own = np.moveaxis(quantized_kernel(layer), -1, 0).reshape(layer.kernel.shape[-1], -1)
    other = filters.reshape(len(filters), -1)
    if own.shape != other.shape:
        return False
    lengths = np.linalg.norm(own, axis=1) * np.linalg.norm(other, axis=1)
    return bool(np.all(np.abs(np.sum(own * other, axis=1)) >= 0.999 * lengths))


def weighted_layers(model: tf.keras.Model) -> Iterator[tuple[tf.keras.layers.Layer, int]]:
    """Yield each convolution and dense layer, and how often the model calls it."""
    # `_flatten_layers` also reaches the layers of models that are used as a layer.
    calls = Counter(
        id(node.layer) for nodes in getattr(model, "_nodes_by_depth", {}).values() for node in nodes
    )
    for layer in model._flatten_layers():
        if isinstance(layer, _WEIGHTED) or has_quantizer(layer):
            yield layer, max(1, calls[id(layer)])


def _key(filters: np.ndarray | None) -> bytes:
    if filters is None:
        return b""
    return repr(filters.shape).encode() + filters.tobytes()
