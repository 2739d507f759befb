"""Which layer of a model became which operation of its flatbuffer."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from larq_nas.cost.fallback import has_quantizer, is_binary
from larq_nas.deploy.causes import likely_cause, quantized_kernel
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
    binary: Collection[int] = (),
) -> Audit:
    """Match the layers of `model` with the operations of `flatbuffer`.

    Binary layers are matched by the very bits of their kernels, so that no renaming or
    fusing in the converter can hide one.

    # Arguments
        model: the model that was converted.
        flatbuffer: what it was converted to.
        rewritten: for layers that are computed in another way, by id, the signs of their
            binary convolutions.
        binary: ids of further layers that are binary, by what they read.
    """
    rewritten = rewritten or {}
    found = operators(flatbuffer)
    packed = [op.filters for op in found if op.kind == _BINARY and op.filters is not None]
    floats = [op for op in found if op.kind in _FLOAT_KINDS]
    rows = []
    for layer, calls in weighted_layers(model):
        known = rewritten.get(id(layer))
        ways = [known] if known else _own_kernels(layer, calls)
        runs_in_binary = any(_take(packed, kernels) for kernels in ways)
        if is_binary(layer) or id(layer) in binary:
            cause = "" if runs_in_binary else likely_cause(layer)
            rows.append(LayerAudit(layer.name, True, "float" if cause else _BINARY, cause))
        else:
            kind = _BINARY if runs_in_binary else _kind_of(layer, floats)
            rows.append(LayerAudit(layer.name, False, kind))
    return Audit(rows, dict(Counter(op.kind for op in found).most_common()))


def _own_kernels(layer: tf.keras.layers.Layer, calls: int) -> list[list[np.ndarray]]:
    """Return the kernels of `layer` if nothing is rewritten: all groups in one, or each."""
    if not isinstance(layer, tf.keras.layers.Conv2D):
        return []
    kernel = quantized_kernel(layer)
    return [calls * [kernel], calls * np.split(kernel, layer.groups, axis=-1)]


def _take(packed: list[np.ndarray], kernels: Sequence[np.ndarray]) -> bool:
    """Return whether there is an operation for each of `kernels`, and use them up."""
    left = list(packed)
    for kernel in kernels:
        same = (number for number, filters in enumerate(left) if _holds_signs(filters, kernel))
        found = next(same, None)
        if found is None:
            return False
        del left[found]
    packed[:] = left
    return True


def _holds_signs(filters: np.ndarray, kernel: np.ndarray) -> bool:
    """Return whether packed `filters` are those of `kernel`, up to the sign of each filter.

    The converter turns the sign of filters whose outputs are scaled by a negative number.
    """
    own = pack_signs(kernel)
    if own.shape != filters.shape:
        return False
    axes = (1, 2, 3)
    turned = pack_signs(-kernel)
    return bool(np.all(np.all(own == filters, axes) | np.all(turned == filters, axes)))


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
