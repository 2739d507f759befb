"""Real layers in int8, with what the converter folds into their weights."""

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import tensorflow as tf

from larq_nas.deploy.causes import quantized_kernel
from larq_nas.deploy.flatbuffer import Operator
from larq_nas.deploy.int8.plan import Grid
from larq_nas.deploy.rewriting.forms import call_layer
from larq_nas.graph.calls import Call
from larq_nas.lce.fusing import AFFINE, Fusing, own_activation
from larq_nas.quantizers import quantized_scope

__all__ = [
    "Folded",
    "Weights",
    "cause_of_float",
    "foldable",
    "keeps_activation",
]


_KINDS = {"conv": "CONV_2D", "depthwise": "DEPTHWISE_CONV_2D", "dense": "FULLY_CONNECTED"}
_LARGEST = 127
# A filter that is almost 0 would make its bias overflow, which is held in steps of its weights.
_SMALLEST_FILTER = 1e-3


class Weights:
    """A kernel in int8, symmetric around 0: each filter with a step of its own.

    A dense layer has one step for all: with more, the converter fails.

    # Arguments
        kernel: shape `(height, width, inputs, filters)`, `(height, width, channels, multiplier)`
            or `(inputs, filters)`.
        kind: `"conv"`, `"depthwise"` or `"dense"`.
    """

    def __init__(self, kernel: np.ndarray, kind: Literal["conv", "depthwise", "dense"]) -> None:
        self.kernel, self.kind = kernel.astype("float32"), kind

    @property
    def operation(self) -> str:
        """The kind of operation that computes with it."""
        return _KINDS[self.kind]

    @cached_property
    def variable(self) -> tf.Variable:
        """The kernel before it is rounded."""
        return tf.Variable(self.kernel, trainable=False)

    @cached_property
    def rows(self) -> np.ndarray:
        """The weights of each filter, shape `(filters, weights)`."""
        return _rows(self.kernel, self.kind)

    @cached_property
    def bounds(self) -> np.ndarray:
        """The largest weight of each filter; of a dense layer, one for all."""
        largest = np.abs(self.rows).max(axis=1)
        top = max(float(largest.max()), 1e-6)
        return (
            np.full_like(largest, top)
            if self.kind == "dense"
            else np.maximum(largest, _SMALLEST_FILTER * top)
        )

    def rounded(self) -> tf.Tensor:
        """Return the kernel through fake-quant."""
        kernel = tf.convert_to_tensor(self.variable)
        if self.kind == "dense":
            bound = float(self.bounds[0])
            return tf.quantization.fake_quant_with_min_max_vars(
                kernel, -bound, bound, narrow_range=True
            )
        flat = (
            tf.reshape(kernel, (*kernel.shape[:-2], 1, -1)) if self.kind == "depthwise" else kernel
        )
        flat = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            flat, -self.bounds, self.bounds, narrow_range=True
        )
        return tf.reshape(flat, kernel.shape)

    def are_those_of(self, operator: Operator) -> bool:
        """Return whether an operation of a flatbuffer computes with this kernel in int8."""
        if operator.kind != self.operation or operator.filters is None or operator.steps is None:
            return False
        filters = operator.filters
        # A depthwise convolution has its filters last.
        filters = filters.reshape(-1, filters.shape[-1]).T if self.kind == "depthwise" else filters
        rows = filters.reshape(len(filters), -1) * operator.steps.reshape(-1, 1)
        steps = self.bounds.reshape(-1, 1) / _LARGEST
        return rows.shape == self.rows.shape and bool(np.all(np.abs(rows - self.rows) <= steps))


def _rows(kernel: np.ndarray, kind: str) -> np.ndarray:
    """Return a kernel as one row for each filter."""
    filters = int(np.prod(kernel.shape[2:])) if kind == "depthwise" else kernel.shape[-1]
    rows: np.ndarray = kernel.reshape(-1, filters).T
    return rows


_PROBES = np.array([-1.0, 0.0, 3.0, 9.0], "float32")
_RELUS = ([0.0, 0.0, 3.0, 9.0], [0.0, 0.0, 3.0, 6.0])

_Affine = tuple[np.ndarray, np.ndarray]


class Folded:
    """A real layer, and all that becomes one operation with it, in int8.

    # Arguments
        calls: the network.
        index: call of the layer.
        chain: the calls that follow and are folded into it, from `foldable`.
        read: rounds its input; `None` if that is rounded already.
        write: rounds its output, before an activation that is not fused.
        active: rounds the output of such an activation, if that is in int8.
    """

    def __init__(
        self,
        calls: Sequence[Call],
        index: int,
        chain: Sequence[int],
        read: Grid | None,
        write: Grid,
        active: Grid | None = None,
    ) -> None:
        self.call, self.read, self.write, self.active = calls[index], read, write, active
        (self.reads,) = self.call.inputs
        self.end = chain[-1] if chain else index
        layer, width = self.call.layer, self.call.shape[-1]
        scale, offset = np.ones(width, "float32"), np.zeros(width, "float32")
        if layer.use_bias:
            offset = layer.bias.numpy()
        for follower in (calls[i] for i in chain if calls[i].facts.kind in AFFINE):
            factor, summand = _affine(follower)
            scale, offset = scale * factor, offset * factor + summand
        self.weights = _weights(self.call, scale)
        self.bias = offset.astype("float32")
        self._relus = [calls[i] for i in chain if calls[i].facts.kind == "relu"]

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Return the output for `x`, through fake-quant."""
        y = self.before_activation(x)
        y = self.call.layer.activation(y) if keeps_activation(self.call.layer) else y
        return self.active(y) if self.active else y

    def before_activation(self, x: tf.Tensor) -> tf.Tensor:
        """Return the output for `x` before an activation that is not fused."""
        x = self.read(x) if self.read else x
        with tf.name_scope(self.call.layer.name):
            y = self._multiply(x) + self.bias
        activation = own_activation(self.call.layer)
        y = activation(y) if activation is tf.keras.activations.relu else y
        for relu in self._relus:
            (y,) = call_layer(relu, [y])
        return self.write(y)

    def _multiply(self, x: tf.Tensor) -> tf.Tensor:
        layer, kernel = self.call.layer, self.weights.rounded()
        if self.weights.kind == "dense":
            return tf.matmul(x, kernel)
        if isinstance(layer, tf.keras.layers.Dense):
            # At each position a vector: what the converter knows as a 1x1 convolution.
            image = tf.reshape(x, (-1, int(np.prod(x.shape[1:-2])), *x.shape[-2:]))
            y = tf.nn.conv2d(image, kernel, 1, "VALID")
            return tf.reshape(y, (-1, *self.call.shape))
        if self.weights.kind == "conv":
            # Keras's own way around what TensorFlow lacks on a CPU.
            on_cpu = layer.groups > 1 and tf.executing_eagerly()
            convolve = layer._jit_compiled_convolution_op if on_cpu else layer.convolution_op
            return convolve(x, kernel)
        return tf.nn.depthwise_conv2d(
            x, kernel, (1, *layer.strides, 1), layer.padding.upper(), dilations=layer.dilation_rate
        )


def keeps_activation(layer: tf.keras.layers.Layer) -> bool:
    """Return whether the activation of `layer` stays an operation of its own, in float."""
    return own_activation(layer) not in (None, tf.keras.activations.relu)


def foldable(fusing: Fusing, index: int) -> list[int]:
    """Return the calls that are folded into the real layer of call `index`."""
    calls = fusing.network.calls
    chain: list[int] = []
    for follower in fusing.chain(index):
        kind = fusing.kind(follower)
        if kind in AFFINE and not _is_affine(calls[follower]):
            break
        if kind == "relu" and not _is_plain_relu(calls[follower]):
            break
        chain.append(follower)
    return chain


def cause_of_float(call: Call) -> str:
    """Return why a real layer cannot run in int8, in one clause; empty if it can."""
    layer, kinds = call.layer, tf.keras.layers
    others = (kinds.Conv2DTranspose, kinds.SeparableConv2D)
    if not isinstance(layer, kinds.Conv2D | kinds.Dense | kinds.DepthwiseConv2D) or isinstance(
        layer, others
    ):
        return f"{type(layer).__name__} is none of Conv2D, DepthwiseConv2D and Dense"
    if getattr(layer, "input_quantizer", None) is not None:
        return "it quantizes its inputs itself"
    if getattr(layer, "pad_values", 0.0) and layer.padding == "same":
        return "it pads with another number than 0"
    return ""


def _is_affine(call: Call) -> bool:
    """Return whether an affine call has one scale and one offset for each channel."""
    return _probe(call, 0.0).size == call.shape[-1]


def _affine(call: Call) -> _Affine:
    """Return scale and offset of an affine call, for each channel."""
    offset = _probe(call, 0.0)
    return (_probe(call, 1.0) - offset).reshape(-1), offset.reshape(-1)


def _probe(call: Call, value: float) -> np.ndarray:
    shape = (1,) * len(call.shape) + call.shape[-1:]
    output: np.ndarray = call_layer(call, [tf.fill(shape, value)])[0].numpy()
    return output


def _is_plain_relu(call: Call) -> bool:
    (output,) = call_layer(
        call, [tf.constant(_PROBES.reshape(1, *(1,) * (len(call.shape) - 1), -1))]
    )
    return output.numpy().reshape(-1).tolist() in _RELUS


def _weights(call: Call, scale: np.ndarray) -> Weights:
    layer = call.layer
    if hasattr(layer, "depthwise_kernel"):
        with quantized_scope():
            kernel = tf.convert_to_tensor(layer.depthwise_kernel).numpy()
        return Weights(kernel * scale.reshape(kernel.shape[2:]), "depthwise")
    kernel = quantized_kernel(layer) * scale
    if not isinstance(layer, tf.keras.layers.Dense):
        return Weights(kernel, "conv")
    return Weights(kernel, "dense") if len(call.shape) == 1 else Weights(kernel[None, None], "conv")
