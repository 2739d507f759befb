"""Plan of a fused cell: what it computes once, and where its weights are."""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import larq as lq
import tensorflow as tf

from larq_nas.errors import InputError
from larq_nas.graph.rebuild import call_of, has_weights, layers_between
from larq_nas.layers import BinaryConv2D
from larq_nas.layers.conv import block_diagonal
from larq_nas.layers.mixture import Kept
from larq_nas.layers.scale import CenteredClip
from larq_nas.quantizers import XnorSign
from larq_nas.spaces.chooser import Operation

_keras = tf.keras.layers
_ACTIVATIONS = (tf.keras.activations.relu, tf.keras.activations.linear)
# These take each filter for itself, so that several kernels can be one. Not so sums of plain
# signs: they are 0 where they cancel, and what rounding leaves where they were weighted before.
_KERNEL_QUANTIZERS = (type(None), XnorSign)
_CONSTRAINTS = (type(None), lq.constraints.WeightClip, CenteredClip)
_CONSTANT = (tf.keras.initializers.Zeros, tf.keras.initializers.Constant)


def is_norm(layer: tf.keras.layers.Layer) -> bool:
    """Return whether `layer` is a batch norm without scale and offset."""
    if type(layer) is not _keras.BatchNormalization:
        return False
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    settings = {"momentum": layer.momentum, "epsilon": layer.epsilon, "axis": layer.axis}
    default = _keras.BatchNormalization(center=False, scale=False, **settings)
    return axes in ([-1], [3]) and _is_like(layer, default)


def is_pool(layer: tf.keras.layers.Layer) -> bool:
    """Return whether `layer` is a pool over the channels-last image."""
    if type(layer) not in (_keras.MaxPooling2D, _keras.AveragePooling2D):
        return False
    return _is_like(layer, type(layer)(layer.pool_size, layer.strides, layer.padding))


def is_prelu(layer: tf.keras.layers.Layer) -> bool:
    """Return whether `layer` has a slope for each channel, equal at the start."""
    if type(layer) is not _keras.PReLU or not isinstance(layer.alpha_initializer, _CONSTANT):
        return False
    default = _keras.PReLU(alpha_initializer=layer.alpha_initializer, shared_axes=[1, 2])
    return _is_like(layer, default)


# What may differ of convolutions that are computed as one.
_SETTINGS = (
    "filters",
    "kernel_size",
    "strides",
    "dilation_rate",
    "groups",
    "padding",
    "pad_values",
    "activation",
    "input_quantizer",
    "kernel_quantizer",
    "kernel_initializer",
    "kernel_constraint",
)


def is_convolution(layer: tf.keras.layers.Layer) -> bool:
    """Return whether several such binary convolutions are one with all their filters."""
    if type(layer) is not BinaryConv2D or layer.activation not in _ACTIVATIONS:
        return False
    quantizer, constraint = layer.kernel_quantizer, layer.kernel_constraint
    if not isinstance(quantizer, _KERNEL_QUANTIZERS) or not isinstance(constraint, _CONSTRAINTS):
        return False
    default = BinaryConv2D(**{name: getattr(layer, name) for name in _SETTINGS})
    return _is_sign(layer.input_quantizer) and _is_like(layer, default) and _can_be_rebuilt(layer)


def _is_sign(quantizer: Any) -> bool:
    """Return whether a quantizer of inputs is a function alone: it learns and measures nothing."""
    if quantizer is None:
        return True
    known = isinstance(quantizer, lq.quantizers.Quantizer)
    metrics = getattr(quantizer, "_custom_metrics", None)
    return known and not quantizer.weights and not metrics


def _can_be_rebuilt(layer: BinaryConv2D) -> bool:
    """Return whether its settings say all of it, an initializer of one's own included."""
    try:
        again = BinaryConv2D.from_config(json.loads(json.dumps(layer.get_config())))
    except (TypeError, ValueError):
        return False
    return _is_like(layer, again)


def _is_like(layer: Any, other: Any) -> bool:
    """Return whether settings are equal, apart from the name."""
    one, another = (
        json.dumps({**x.get_config(), "name": ""}, default=repr) for x in (layer, other)
    )
    return one == another


Parts: TypeAlias = dict[str, Any]
"""`kind` (`"convolution"`, `"pool"`, `"identity"`, `"zero"`, `"other"`), and its layers as JSON."""

Layers: TypeAlias = list[tf.keras.layers.Layer]

_OTHER: Parts = {"kind": "other"}
_count = itertools.count()


class Description(NamedTuple):
    """What an operation is made of, the shape it gives, and whether it has weights."""

    parts: Parts
    shape: tuple[int, ...] | None
    has_weights: bool

    @property
    def kind(self) -> str:
        return str(self.parts["kind"])


def describe(operation: Operation, shape: Sequence[int]) -> Description:
    """Return what `operation` is made of.

    Known are batch norm without scale and offset, a binary convolution, PReLU and an added
    input; a pool and such a batch norm; and the input itself. Anything else is `"other"`.

    # Arguments
        operation: a candidate of a cell.
        shape: `(height, width, channels)` of the tensor it reads.
    """
    if operation is None:
        return Description({"kind": "zero"}, None, False)
    x = tf.keras.Input(tuple(shape))
    y, again = (_call(operation, x) for _ in range(2))
    layers, others = layers_between(x, y), layers_between(x, again)
    parts = _parts(x, y)
    # A layer of both calls is one for all edges, and cannot be made anew; nor what depends on
    # the names of layers, such as an initializer's seed.
    shared = any(layer in others for layer in layers)
    if shared or parts != _parts(x, again) or not all(layer.trainable for layer in layers):
        parts = _OTHER
    return Description(parts, tuple(y.shape[1:]), has_weights(x, y))


def _call(operation: Callable[[tf.Tensor, str], tf.Tensor], x: tf.Tensor) -> tf.Tensor:
    # A prefix of the form that operations are given for an edge.
    y = operation(x, f"described{next(_count)}_node0_in0")
    if y is None:
        raise InputError("Each operation must return a tensor, but one returned None.")
    return y


def _parts(x: tf.Tensor, y: tf.Tensor) -> Parts:
    if y is x:
        return {"kind": "identity"}
    chain = _chain(x, y)
    known = chain and (_convolution(*chain) or _pool(*chain))
    return known or _OTHER


def _chain(x: tf.Tensor, y: tf.Tensor) -> tuple[Layers, bool] | None:
    """Return the layers between `x` and `y`, and whether `x` is added; `None` if they branch."""
    call = call_of(y)
    adds = isinstance(call.layer, tf.keras.layers.Add)
    if adds:
        summed = [tensor for tensor in call.keras_inputs if tensor is not x]
        if len(call.keras_inputs) != 2 or len(summed) != 1 or summed[0].shape != x.shape:
            return None
        y = summed[0]
    layers: Layers = []
    while y is not x:
        call = call_of(y)
        if len(call.keras_inputs) != 1:
            return None
        layers.insert(0, call.layer)
        y = call.keras_inputs[0]
    return layers, adds


def _convolution(layers: Layers, adds: bool) -> Parts | None:
    prelu = layers[2] if len(layers) == 3 else None
    if len(layers) not in (2, 3) or not is_norm(layers[0]) or not is_convolution(layers[1]):
        return None
    if prelu is not None and not is_prelu(prelu):
        return None
    config = layers[1].get_config()
    return {
        "kind": "convolution",
        "layer": {key: value for key, value in config.items() if key != "name"},
        "norm": _norm(layers[0]),
        "prelu": prelu and prelu.get_config()["alpha_initializer"],
        "adds": adds,
    }


def _pool(layers: Layers, adds: bool) -> Parts | None:
    if adds or len(layers) not in (1, 2) or not is_pool(layers[0]):
        return None
    if len(layers) == 2 and not is_norm(layers[1]):
        return None
    pool = layers[0]
    return {
        "kind": "pool",
        "pool": "max" if isinstance(pool, tf.keras.layers.MaxPooling2D) else "average",
        "size": list(pool.pool_size),
        "strides": list(pool.strides),
        "padding": pool.padding.upper(),
        "norm": _norm(layers[1]) if len(layers) == 2 else None,
    }


def _norm(layer: tf.keras.layers.BatchNormalization) -> dict[str, float]:
    return {"momentum": float(layer.momentum), "epsilon": float(layer.epsilon)}


@tf.keras.utils.register_keras_serializable("larq_nas")
class Stacked(tf.keras.initializers.Initializer):
    """Draw each part of a stack as if it was alone.

    # Arguments
        initializer: of one part.
        parts: number of parts along the last axis, of the same size.
    """

    def __init__(self, initializer: Any, parts: int) -> None:
        self.initializer = tf.keras.initializers.get(initializer)
        self.parts = parts

    def __call__(self, shape: Sequence[int], dtype: Any = None, **kwargs: Any) -> tf.Tensor:
        part = (*shape[:-1], shape[-1] // self.parts)
        # Without a seed of its own, one initializer draws the same values each time.
        config = self.initializer.get_config()
        drawn = [type(self.initializer).from_config(config) for _ in range(self.parts)]
        return tf.concat([one(part, dtype=dtype) for one in drawn], axis=-1)

    def get_config(self) -> dict[str, Any]:
        initializer = tf.keras.initializers.serialize(self.initializer)
        return {"initializer": initializer, "parts": self.parts}


class Stack:
    """Kernels of one size, quantized and weighted at once.

    The convolutions differ from `layer` in strides and dilation alone. `prelu` is the initializer
    of the slopes of PReLU behind them, if it is there.
    """

    def __init__(self, layer: BinaryConv2D, channels: int, prelu: Any = None) -> None:
        self.layer = layer
        self.channels = channels
        self.prelu = prelu
        self.filters = layer.filters
        self.parts = 0
        self.convolutions: list[tuple[int, int, int]] = []

    def add(self, state: int, operation: int, targets: int) -> None:
        """Add the kernels of an operation on a state, one for each node that reads it."""
        self.convolutions.append((state, operation, targets))
        self.parts += targets

    @staticmethod
    def key(made: Parts) -> str:
        """Return what convolutions of one stack have in common."""
        config = made["layer"]
        names = "kernel_size", "groups", "filters", "kernel_quantizer", "kernel_constraint"
        alike = [config[name] for name in (*names, "kernel_initializer")]
        return json.dumps([*alike, made["prelu"]])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        height, width = self.layer.kernel_size
        return height, width, self.channels // self.layer.groups, self.parts * self.filters

    @property
    def sizes(self) -> list[int]:
        """Filters of each convolution."""
        return [targets * self.filters for _, _, targets in self.convolutions]

    def kernels(self, kernel: tf.Tensor, weights: tf.Tensor) -> list[tf.Tensor]:
        """Return the kernel of each convolution, its filters weighted by 0 or more."""
        if self.layer.kernel_quantizer is not None:
            kernel = self.layer.kernel_quantizer(kernel)
        # Their gradient comes from `weighed`, which needs no gradient of the kernel.
        kernel = kernel * tf.stop_gradient(weights)
        if self.layer.groups > 1:
            kernel = block_diagonal(kernel, self.layer.groups, self.parts)
        return tf.split(kernel, self.sizes, axis=-1)


@tf.custom_gradient
def weighed(y: tf.Tensor, weights: tf.Tensor) -> Any:
    """Return `y`, whose channels a kernel has weighted, as a function of the weights too.

    For `y = w * f(x)`, the derivative by `w` is `y / w`.
    """

    def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return upstream, tf.math.divide_no_nan(tf.reduce_sum(upstream * y, axis=(0, 1, 2)), weights)

    return tf.identity(y), gradients


# Where nothing is normalized, what a norm would be does not matter.
_NO_NORM = {"momentum": 0.9, "epsilon": 1e-5}

CONVOLVED = -1
"""In place of an operation: the batch norm that all convolutions on a state share."""


class Plan:
    """Operations of a cell, the stacks of their kernels and the rows of their batch norms.

    # Arguments
        inputs: number of inputs, the first states.
        operations: what each operation on each state is made of; see `describe`.
        concat: indices of the states that are concatenated.
        shape: `(height, width, channels)` of a node; of inputs the channels are these too.
        kept: of each node, which operations on which states are candidates; all, if not given.
    """

    def __init__(
        self,
        inputs: int,
        operations: Sequence[Sequence[Parts]],
        concat: Sequence[int],
        shape: Sequence[int],
        kept: Sequence[Kept] | None = None,
    ) -> None:
        self.inputs = inputs
        self.operations = operations
        self.kept = kept
        self.concat = concat
        self.shape = shape
        self.channels = shape[-1]
        self.states = len(operations) + 1
        self.prototypes = {
            place: BinaryConv2D.from_config(made["layer"])
            for place, made in self.of_kind("convolution")
        }
        self.stacks = self._stack()
        self.rows, self.norm = self._norms()

    @property
    def key(self) -> str:
        """The plan as JSON, equal for cells that compute the same."""
        names = ("inputs", "operations", "concat", "shape", "kept")
        return json.dumps({name: getattr(self, name) for name in names})

    def of_kind(self, kind: str) -> Iterator[tuple[tuple[int, int], Parts]]:
        """Yield state and number of each operation of that kind, with what it is made of."""
        for state in range(len(self.operations)):
            for number, made in self.candidates(state):
                if made["kind"] == kind:
                    yield (state, number), made

    def candidates(self, state: int) -> Iterator[tuple[int, Parts]]:
        """Yield number and parts of each operation on a state that a node may read it by."""
        for number, made in enumerate(self.operations[state]):
            if self.readers(state, number):
                yield number, made

    def targets(self, state: int) -> range:
        """Return the nodes that read a state."""
        return range(max(state + 1, self.inputs), self.states)

    def readers(self, state: int, number: int) -> tuple[int, ...]:
        """Return the nodes that may read a state by that operation."""
        if self.kept is None:
            return tuple(self.targets(state))
        of_node = self.kept
        return tuple(
            node for node in self.targets(state) if of_node[node - self.inputs][state][number]
        )

    def place(self, state: int, number: int, target: int) -> int:
        """Return where the probability of an operation is, among those of all nodes."""
        count = len(self.operations[0])
        return (sum(range(self.inputs, target)) + state) * count + number

    @property
    def others(self) -> list[tuple[int, int, int]]:
        """State, number and node of each operation that a layer of its own computes."""
        return [
            (*place, node) for place, _ in self.of_kind("other") for node in self.readers(*place)
        ]

    def _stack(self) -> list[Stack]:
        stacks: dict[str, Stack] = {}
        for (state, number), layer in self.prototypes.items():
            made = self.operations[state][number]
            stack = Stack(layer, self.channels, made["prelu"])
            stack = stacks.setdefault(Stack.key(made), stack)
            stack.add(state, number, len(self.readers(state, number)))
        return list(stacks.values())

    def _norms(self) -> tuple[dict[tuple[int, int], int], dict[str, float]]:
        """Number the batch norms: one of each state, and one of each of its pools."""
        rows: dict[tuple[int, int], int] = {}
        norms = []
        for state in range(len(self.operations)):
            for number, made in self.candidates(state):
                if made.get("norm"):
                    place = (state, number if made["kind"] == "pool" else CONVOLVED)
                    rows.setdefault(place, len(rows))
                    norms.append(made["norm"])
        return rows, norms[0] if norms else _NO_NORM
