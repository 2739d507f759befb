"""Audit which layer of a model became which operation of its flatbuffer."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from larq_nas.deploy.causes import likely_cause, quantized_kernel
from larq_nas.deploy.flatbuffer import Operator, operators, pack_signs
from larq_nas.errors import ConversionError
from larq_nas.graph.calls import functional, unread_weights
from larq_nas.graph.layers import is_own, shape_read
from larq_nas.graph.quantizers import scale_of, sign_of_zero
from larq_nas.lce.fallback import has_quantizer, is_binary, weight_quantizers
from larq_nas.quantizers import quantized_scope

_BINARY = "LceBconv2d"
_CONSTANT = "constant"
_FLOAT_KINDS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
_WEIGHTED = (
    tf.keras.layers.Conv1D,
    tf.keras.layers.Conv2D,
    tf.keras.layers.DepthwiseConv2D,
    tf.keras.layers.SeparableConv1D,
    tf.keras.layers.SeparableConv2D,
    tf.keras.layers.Dense,
)
_TRANSPOSED = (tf.keras.layers.Conv1DTranspose, tf.keras.layers.Conv2DTranspose)


@dataclass(frozen=True)
class LayerAudit:
    """What became of one convolution or dense layer.

    # Arguments
        layer: name of the Keras layer.
        binary: whether its inputs and weights are binary by definition.
        runs_as: the operation that computes it, `"float"` for a fallback, `"constant"` if no image
            changes what it gives.
        cause: why a binary layer does not run in binary; empty if it does.
        note: what a layer that is not binary wastes, such as 31 bits of each binary weight.
    """

    layer: str
    binary: bool
    runs_as: str
    cause: str = ""
    note: str = ""


@dataclass(frozen=True)
class Audit:
    """The operations of a flatbuffer, and the layers they came from.

    # Arguments
        layers: every convolution and dense layer, in the model's order, then the layers of the
            user's own that convolve or multiply themselves.
        operations: number of operations by kind.
    """

    layers: Sequence[LayerAudit]
    operations: dict[str, int]

    @property
    def fallbacks(self) -> list[LayerAudit]:
        """The layers that are binary by definition and run in float."""
        return [row for row in self.layers if row.cause]

    def __str__(self) -> str:
        binary = [row for row in self.layers if row.binary and row.runs_as != _CONSTANT]
        ran = len(binary) - len(self.fallbacks)
        lines = [f"{ran} of {len(binary)} binary layers run as {_BINARY}"]
        lines += [
            f"{row.layer}: {row.runs_as} (real{f': {row.note}' if row.note else ''})"
            for row in self.layers
            if not row.binary
        ]
        lines += [
            f"{row.layer}: a constant, computed beforehand"
            for row in self.layers
            if row.binary and row.runs_as == _CONSTANT
        ]
        lines += [f"{row.layer}: {row.runs_as} (FELL BACK: {row.cause})" for row in self.fallbacks]
        counts = ", ".join(f"{kind} {count}" for kind, count in self.operations.items())
        return "\n".join([*lines, f"operations: {counts}"])


def float_signs(audited: Audit) -> list[str]:
    """Return a line for each layer that computes with binary weights or inputs in float."""
    return [
        f"`{row.layer}` runs in float ({row.runs_as}): {row.note}"
        for row in audited.layers
        if row.note
    ]


def audit(
    model: tf.keras.Model,
    flatbuffer: bytes,
    rewritten: Mapping[int, Sequence[np.ndarray]] | None = None,
    binary: Collection[int] = (),
    constant: Collection[int] = (),
) -> Audit:
    """Match the layers of `model` with the operations of `flatbuffer`.

    Layers are matched by the numbers of their kernels, binary ones by the very bits, so that no
    renaming or fusing in the converter can hide one. Each operation with a kernel belongs to one.

    # Arguments
        model: the model that was converted.
        flatbuffer: what it was converted to.
        rewritten: for layers that are computed in another way, by id, the signs of their
            binary convolutions.
        binary: ids of further layers that are binary, by what they read.
        constant: ids of layers whose outputs no image changes: the converter computes them.
    """
    rewritten = rewritten or {}
    found = operators(flatbuffer)
    packed = [op for op in found if op.kind == _BINARY and op.filters is not None]
    floats = [op for op in found if op.kind in _FLOAT_KINDS]
    rows = []
    ran: list[np.ndarray] = []
    for layer, calls in weighted_layers(model):
        known = rewritten.get(id(layer))
        ways = [known] if known else _own_kernels(layer, calls)
        runs_in_binary = any(_take(packed, kernels) for kernels in ways)
        ran += [kernel for way in ways for kernel in way] if runs_in_binary else []
        taken = [] if runs_in_binary else _take_floats(floats, layer, calls)
        kinds = " + ".join(dict.fromkeys(op.kind for op in taken)) or "not found"
        if id(layer) in constant and not (runs_in_binary or taken):
            of_signs = is_binary(layer) or id(layer) in binary
            rows.append(LayerAudit(layer.name, of_signs, _CONSTANT))
        elif is_binary(layer) or id(layer) in binary:
            cause = "" if runs_in_binary else likely_cause(layer)
            rows.append(LayerAudit(layer.name, True, "float" if cause else _BINARY, cause))
        elif runs_in_binary:
            rows.append(LayerAudit(layer.name, True, _BINARY))
        else:
            rows.append(LayerAudit(layer.name, False, kinds, note=_note(layer)))
    # An own layer that is called twice calls the layers in it twice.
    packed = [op for op in packed if not any(_holds_signs(op.filters, one) for one in ran)]
    rows += _rows_of_own(model, packed, floats, {row.layer for row in rows})
    return Audit(rows, dict(Counter(op.kind for op in found).most_common()))


def require_kernels(model: tf.keras.Model, flatbuffer: bytes) -> None:
    """Refuse operations that Larq Compute Engine has no kernel for, naming the layer.

    # Raises
        ConversionError: such as for `Resizing(interpolation="lanczos3")`.
    """
    layers = {layer.name for layer in model._flatten_layers()}
    for op in operators(flatbuffer):
        if not op.kind.isupper() and not op.kind.startswith("Lce"):
            named = [part for part in re.split("[/;]", op.output) if part in layers]
            layer = named[-1] if named else op.output
            kind = op.kind.removeprefix("Flex")
            resizes = "Resize" in kind or "Scale" in kind
            raise ConversionError(
                f"Layer `{layer}` needs the operation {kind}, for which Larq Compute Engine has no "
                f"kernel; use {'bilinear or nearest' if resizes else 'another layer'}."
            )


def _note(layer: tf.keras.layers.Layer) -> str:
    """Return what a real layer wastes, if its weights or its inputs are binary."""
    weights = weight_quantizers(layer)
    if weights and all(scale_of(kernel) != "other" for kernel in _kernels_of(layer).values()):
        return (
            "its weights are binary, but its inputs are not, so that weights of 1 bit take 32; "
            'use input_quantizer="ste_sign", or real weights'
        )
    if not weights and sign_of_zero(getattr(layer, "input_quantizer", None), shape_read(layer)):
        return (
            "its inputs are binary, but its weights are not, and binary kernels need both; use "
            'kernel_quantizer="ste_sign", or real inputs'
        )
    return ""


def _rows_of_own(
    model: tf.keras.Model, packed: list[Operator], floats: list[Operator], known: Collection[str]
) -> list[LayerAudit]:
    """Return the rows of layers that call convolutions and products themselves."""
    layers = {layer.name: layer for layer in model._flatten_layers()}
    rows: dict[tuple[str, str], LayerAudit] = {}
    for op in (*packed, *floats):
        name = _owner(op, layers)
        if op.kind == _BINARY:
            row = LayerAudit(name, True, _BINARY)
        elif name in known:  # a further call of a layer that has its row
            continue
        else:
            row = LayerAudit(name, False, op.kind, note=_note_of_filters(op))
        rows[name, op.kind] = max(rows.get((name, op.kind), row), row, key=lambda one: one.note)
    return list(rows.values())


def _owner(op: Operator, layers: Mapping[str, tf.keras.layers.Layer]) -> str:
    """Return the layer whose weights an operation holds, or the innermost it is named after."""
    kernels = {
        name: [weight for weight in layer.weights if weight.shape.rank > 1]
        for name, layer in layers.items()
        if not isinstance(layer, tf.keras.Model)
    }
    for name, weights in kernels.items():
        if any(_is_made_of(op, weight.numpy()) for weight in weights):
            return name
    parts = [part for path in op.output.split(";") for part in path.split("/")]
    named = [part for part in parts if kernels.get(part)] or [p for p in parts if p in layers]
    return named[-1] if named else parts[0]


def _is_made_of(op: Operator, weight: np.ndarray) -> bool:
    """Return whether the filters of an operation are a weight, or its signs."""
    if op.filters is None or weight.ndim < 2 or weight.size != op.filters.size:
        return False
    own = np.moveaxis(weight, -1, 0).reshape(weight.shape[-1], -1)
    return any(_is_proportional(kernel, _rows_of(op)) for kernel in (own, np.sign(own)))


def _note_of_filters(op: Operator) -> str:
    """Return a note if each filter of an operation holds two values."""
    if op.filters is None or op.filters.dtype == np.int32:
        return ""
    rows = _rows_of(op)
    if rows.shape[-1] < 2 or not rows.any() or scale_of(rows.T) == "other":
        return ""
    return "its kernel has two values in each filter, and takes 32 bits a weight; use QuantConv2D"


def _own_kernels(layer: tf.keras.layers.Layer, calls: int) -> list[list[np.ndarray]]:
    """Return the kernels of `layer` if nothing is rewritten: all groups in one, or each."""
    if not isinstance(layer, tf.keras.layers.Conv2D):
        return []
    kernel = quantized_kernel(layer)
    return [calls * [kernel], calls * np.split(kernel, layer.groups, axis=-1)]


def _take(packed: list[Operator], kernels: Sequence[np.ndarray]) -> bool:
    """Return whether there is an operation for each of `kernels`, and use them up."""
    left = list(packed)
    for kernel in kernels:
        same = (number for number, op in enumerate(left) if _holds_signs(op.filters, kernel))
        found = next(same, None)
        if found is None:
            return False
        del left[found]
    packed[:] = left
    return True


def _holds_signs(filters: np.ndarray | None, kernel: np.ndarray) -> bool:
    """Return whether packed `filters` are those of `kernel`, up to the sign of each filter.

    The converter turns the sign of filters whose outputs are scaled by a negative number.
    """
    own = pack_signs(kernel)
    if filters is None or own.shape != filters.shape:
        return False
    axes = (1, 2, 3)
    turned = pack_signs(-kernel)
    return bool(np.all(np.all(own == filters, axes) | np.all(turned == filters, axes)))


def _take_floats(
    floats: list[Operator], layer: tf.keras.layers.Layer, calls: int
) -> list[Operator]:
    """Return the float operations of a layer, and use them up: by its kernels, else by its name."""
    taken = []
    for kind, kernel in _kernels_of(layer).items():
        rows = _as_rows(layer, kind, kernel)
        same = [op for op in floats if op.filters is not None and _holds_rows(op, rows)]
        same.sort(key=lambda op: layer.name not in op.output.split("/"))
        taken += same[:calls]
    if not taken:
        taken = [op for op in floats if layer.name in re.split("[/;]", op.output)]
    floats[:] = [op for op in floats if op not in taken]
    return taken


def _kernels_of(layer: tf.keras.layers.Layer) -> dict[str, np.ndarray]:
    """Return the kernels a layer computes with, by the names of its attributes."""
    names = ("kernel", "depthwise_kernel", "pointwise_kernel")
    kernels = {name: getattr(layer, name, None) for name in names}
    with quantized_scope():
        return {
            name: tf.convert_to_tensor(kernel).numpy()
            for name, kernel in kernels.items()
            if isinstance(kernel, tf.Variable) or hasattr(kernel, "latent_variable")
        }


def _as_rows(layer: tf.keras.layers.Layer, name: str, kernel: np.ndarray) -> np.ndarray:
    """Return a kernel with a row for each filter, as the operation holds it."""
    if name == "depthwise_kernel":
        return kernel.reshape(-1, kernel.shape[-2] * kernel.shape[-1]).T
    filters = -2 if isinstance(layer, _TRANSPOSED) else -1
    return np.moveaxis(kernel, filters, 0).reshape(kernel.shape[filters], -1)


def _rows_of(op: Operator) -> np.ndarray:
    """Return the filters of an operation, a row for each."""
    filters = np.asarray(op.filters, "float32")
    if op.kind == "DEPTHWISE_CONV_2D":
        return filters.reshape(-1, filters.shape[-1]).T
    return filters.reshape(len(filters), -1)


def _holds_rows(op: Operator, rows: np.ndarray) -> bool:
    """Return whether an operation computes with these filters, each times a number of its own.

    The converter folds the batch norm behind a real convolution into it, and names it after what
    follows; and the scale of one before a dense layer, a number for each input.
    """
    other = _rows_of(op)
    return _is_proportional(rows, other) or _is_proportional_by_input(rows, other)


def _is_proportional(own: np.ndarray, other: np.ndarray) -> bool:
    if own.shape != other.shape:
        return False
    lengths = np.linalg.norm(own, axis=1) * np.linalg.norm(other, axis=1)
    return bool(np.all(np.abs(np.sum(own * other, axis=1)) >= 0.999 * lengths))


def _is_proportional_by_input(own: np.ndarray, other: np.ndarray) -> bool:
    """Return whether rows are proportional once each column is scaled as in the largest row."""
    if own.shape != other.shape or len(own) < 2:
        return False
    largest = int(np.argmax(np.linalg.norm(own, axis=1)))
    seen = np.abs(own[largest]) > 1e-6 * np.abs(own[largest]).max(initial=0.0)
    if seen.sum() < 2:
        return False
    scale = other[largest, seen] / own[largest, seen]
    return _is_proportional(own[:, seen] * scale, other[:, seen])


def weighted_layers(model: tf.keras.Model) -> Iterator[tuple[tf.keras.layers.Layer, int]]:
    """Yield each convolution and dense layer of inference, and how often the model calls it."""
    # `_flatten_layers` also reaches the layers of models that are used as a layer.
    calls = Counter(
        id(node.layer) for nodes in getattr(model, "_nodes_by_depth", {}).values() for node in nodes
    )
    layers = list(model._flatten_layers())
    unread = _unread_weights(model) if any(map(is_own, layers)) else set()
    for layer in layers:
        # Layers that only training calls are not built, or inference does not read them.
        if not layer.built or (layer.weights and unread.issuperset(map(id, layer.weights))):
            continue
        if isinstance(layer, _WEIGHTED) or has_quantizer(layer):
            yield layer, max(1, calls[id(layer)])


def _unread_weights(model: tf.keras.Model) -> set[int]:
    model = functional(model)
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in model.inputs]
    return unread_weights(model, lambda *images: model(list(images), training=False), specs)
