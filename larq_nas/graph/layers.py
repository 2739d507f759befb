"""What a layer or TensorFlow function does, as far as costs and conversion depend on it."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_nas.graph.opaque import Opaque, convert_alone
from larq_nas.graph.quantizers import (
    bits,
    gives_signs_of_another,
    kernel_scale,
    scale_of,
    sign_of_zero,
    turns,
)
from larq_nas.layers import DropPath, Scale, Zeros
from larq_nas.layers.mixture import Mixture
from larq_nas.quantizers import quantized_scope


@dataclass(frozen=True)
class Facts:
    """What the costs of a layer depend on, besides its inputs.

    # Arguments
        kind: `"conv"`, `"dense"`, `"norm"`, `"add"` and so on; `"unknown"` for a layer whose
            operations cannot be counted, `"converted"` for one that multiplies by no kernel, and
            whose operations are found by converting it alone, `"static"` for what does not depend
            on the numbers it reads, such as their shape.
        filters: number of its output channels, if it sets it.
        taps: number of positions of its kernel.
        groups: groups of channels that do not mix.
        multiplier: outputs of a depthwise convolution for each of its inputs.
        bias: whether it adds a bias.
        vectors: number of its weights for each channel, besides kernel and bias.
        folded: how many more it trains with; a batch norm becomes a scale and an offset.
        stored: number of further weights that no deployed network has.
        kernel_bits: bits of a weight of its kernel; of its depthwise kernel and then its
            pointwise one, if it has both.
        kernel_scale: what its kernel quantizer gives: `"ones"` for -1 and 1, `"scaled"` for a scale
            times these in each filter, `"other"` for what no binary kernel computes.
        binary_inputs: whether it takes the sign of its inputs.
        sign_of_zero: what the sign that it takes, of its inputs or as a layer, gives for 0.
        turned: whether its input quantizer takes the sign of its inputs times -1.
        before_sign: the operations before the sign, of an input quantizer that takes the sign of
            something else than its inputs.
        constants: numbers in constants of its own, such as `t` in `x + t`.
        same: of a layer without weights its settings: of the same tensors, two layers of the
            same settings compute the same.
    """

    kind: str
    filters: int | None = None
    taps: int = 1
    groups: int = 1
    multiplier: int = 1
    bias: bool = False
    vectors: int = 0
    folded: int = 0
    stored: int = 0
    kernel_bits: tuple[int, ...] = (32,)
    kernel_scale: str = "ones"
    binary_inputs: bool = False
    sign_of_zero: int = 1
    turned: bool = False
    before_sign: Opaque | None = None
    constants: int = 0
    same: str = ""


_WEIGHTED = {
    "conv2d": ("conv", 4),
    "convolution": ("conv", 4),
    "conv1d": ("conv", 3),
    "depthwise_conv2d": ("depthwise", 4),
    "matmul": ("dense", 2),
}
_STATIC = ("shape", "shape_v2", "ones_like", "ones_like_v2", "zeros_like", "zeros_like_v2")
_PASSING_FUNCTIONS = ("identity", "stop_gradient")
_ONE_OPERATION = (
    "abs",
    "cast",
    "exp",
    "floor",
    "neg",
    "negative",
    "round",
    "rsqrt",
    "sigmoid",
    "sign",
    "softmax",
    "sqrt",
    "square",
    "tanh",
)
_ARITHMETIC = (
    "add",
    "divide",
    "maximum",
    "minimum",
    "mul",
    "multiply",
    "sub",
    "subtract",
    "truediv",
)


def facts_of_function(layer: Any, node: Any) -> Facts:
    """Return what a TensorFlow operation does that is written on Keras tensors, as `x + y`."""
    symbol = str(getattr(layer, "symbol", "")).rsplit(".", maxsplit=1)[-1].strip("_")
    tensors = 2 if node is None else len(node.keras_inputs)
    values = [] if node is None else _constants((node.call_args, node.call_kwargs))
    constants = sum(int(np.size(value)) for value in values)
    if symbol in _WEIGHTED and tensors == 1 and len(values) == 1:
        with quantized_scope():
            kernel = tf.convert_to_tensor(values[0]).numpy()
        return _weighted(symbol, kernel, node)
    if symbol in _PASSING_FUNCTIONS or (
        symbol == "cast" and node and node.keras_inputs[0].dtype == node.outputs.dtype
    ):
        return Facts("pass")
    if symbol in _ONE_OPERATION:
        return Facts("activation")
    if symbol in _STATIC:
        return Facts("static")
    if symbol == "bias_add":
        return Facts("offset", constants=constants)
    of_channels = all(np.size(value) == np.max(np.shape(value)[-1:], initial=1) for value in values)
    affine = of_channels and symbol not in ("maximum", "minimum")
    if symbol in _ARITHMETIC and tensors == 1 and affine:
        kind = "offset" if symbol in ("add", "sub", "subtract") else "scale"
        return Facts(kind, constants=max(1, constants))
    if symbol == "add":
        return Facts("add", constants=constants)
    if symbol in _ARITHMETIC:
        return Facts("arithmetic", constants=constants)
    kinds = {"concat": "concat", "reshape": "reshape", "relu": "relu", "relu6": "relu"}
    return Facts({**kinds, "pad": "pad"}.get(symbol, "unknown"), constants=constants)


def is_convolution_function(layer: Any) -> bool:
    """Return whether a call is `tf.nn.conv2d`, which runs in binary between signs."""
    symbol = str(getattr(layer, "symbol", ""))
    return symbol.endswith(("nn.conv2d", "nn.convolution"))


def _weighted(symbol: str, kernel: np.ndarray, node: Any) -> Facts:
    """Return what a convolution or a product with a constant does."""
    read, written = node.keras_inputs[0].shape, node.outputs.shape
    kind, rank = _WEIGHTED[symbol]
    if kernel.ndim != rank or written[-1] is None:
        return Facts("unknown", constants=kernel.size)
    scale = scale_of(kernel)
    facts = Facts(
        kind,
        filters=int(written[-1]),
        taps=int(np.prod(kernel.shape[:-2])),
        kernel_bits=(32 if scale == "other" else 1,),
        kernel_scale=scale,
        constants=kernel.size,
    )
    if kind == "depthwise":
        return dataclasses.replace(facts, multiplier=kernel.shape[-1])
    return dataclasses.replace(facts, groups=int(read[-1]) // kernel.shape[-2])


def _constants(arguments: Any) -> list[Any]:
    """Return the constant tensors and the variables among `arguments`."""
    # Keras' own tensors are no `tf.Tensor`, and Keras refuses to tell that of an array.
    kinds = tf.Tensor | tf.Variable | np.ndarray
    return [value for value in tf.nest.flatten(arguments) if isinstance(value, kinds)]


_keras = tf.keras.layers
_PASSING = (
    _keras.Dropout,
    _keras.GaussianNoise,
    _keras.ActivityRegularization,
    _keras.AlphaDropout,
    _keras.GaussianDropout,
    _keras.RandomBrightness,
    _keras.RandomContrast,
    _keras.RandomFlip,
    _keras.RandomRotation,
    _keras.RandomTranslation,
    _keras.RandomZoom,
    DropPath,
)
_CONVERTED = (
    _keras.CenterCrop,
    _keras.GroupNormalization,
    _keras.LayerNormalization,
    _keras.Normalization,
    _keras.RandomCrop,
    _keras.Resizing,
    _keras.UnitNormalization,
)
_ACTIVATIONS = (
    _keras.Activation,
    _keras.ELU,
    _keras.LeakyReLU,
    _keras.ReLU,
    _keras.Softmax,
    _keras.ThresholdedReLU,
)
_MERGED = (
    "activation",
    "average_pool",
    "crop",
    "global_average_pool",
    "global_max_pool",
    "max_pool",
    "pad",
    "relu",
    "reshape",
    "sign",
    "zeros",
)
ONE_OPERATION = ("elu", "relu", "relu6", "sigmoid", "softmax", "tanh")
"""The activations that become one operation each."""

_TRUSTED = ("keras.", "tf_keras.", "larq.", "larq_nas.", "tensorflow.")


def facts_of(layer: tf.keras.layers.Layer, node: Any = None) -> Facts:
    """Return what the costs of `layer` depend on.

    A TensorFlow operation takes more than tensors of `node`, its call.
    """
    if not _is_as_known(layer):
        return Facts("unknown")
    read = next((read for kind, read in _READERS.items() if isinstance(layer, kind)), None)
    if read is None:
        return facts_of_function(layer, node)
    facts = read(layer)
    if facts.kind not in _MERGED or not _is_named(getattr(layer, "activation", None)):
        return facts
    return dataclasses.replace(facts, same=_settings(layer))


def is_own(layer: tf.keras.layers.Layer) -> bool:
    """Return whether `layer` computes what someone wrote who is neither Keras, Larq nor we."""
    call = type(layer).call
    own = isinstance(layer, _keras.Lambda) or not call.__module__.startswith(_TRUSTED)
    # Subclassed models inherit nothing to compute: `call` is always their own.
    return own and not isinstance(layer, lq.quantizers.Quantizer)


def _is_as_known(layer: Any) -> bool:
    """Return whether `layer` computes what its class is known for: channels last, its own call."""
    if not type(layer).call.__module__.startswith(_TRUSTED):
        return False
    if isinstance(layer, _keras.BatchNormalization):
        axis = layer.axis if isinstance(layer.axis, int) else layer.axis[-1]
        return axis in (-1, layer.input_spec.ndim - 1)
    # Padding costs the same along any axis.
    last = getattr(layer, "data_format", None) != "channels_first"
    return last or isinstance(layer, _keras.ZeroPadding2D)


def _is_named(function: Any) -> bool:
    """Return whether a function is known by its name, as a `lambda` is not."""
    module = getattr(function, "__module__", None) or ""
    return function is None or module.startswith(_TRUSTED)


def _settings(layer: tf.keras.layers.Layer) -> str:
    config = {key: value for key, value in layer.get_config().items() if key != "name"}
    return f"{type(layer).__name__} {config}"


def _weighted_layer(kind: str, *parts: str) -> Callable[[Any], Facts]:
    """Return what reads a layer with kernels, such as `"kernel"` or `"depthwise"`."""

    def read(layer: Any) -> Facts:
        scales, widths = [], []
        for part in parts:
            quantizer = getattr(layer, f"{part}_quantizer", None)
            kernel = getattr(layer, part if part == "kernel" else f"{part}_kernel", None)
            # Of a layer that is not built, only what its quantizers say is known.
            real = quantizer is None or kernel is None
            scales.append("ones" if real else kernel_scale(quantizer, kernel))
            known = quantizer is None or getattr(quantizer, "precision", None)
            widths.append(bits(quantizer) if known else 32 if scales[-1] == "other" else 1)
        inputs, shape = getattr(layer, "input_quantizer", None), shape_read(layer)
        own = None if kind == "depthwise" else getattr(layer, "filters", None) or layer.units
        return Facts(
            kind,
            filters=own,
            taps=int(np.prod(getattr(layer, "kernel_size", ()))),
            groups=getattr(layer, "groups", 1),
            multiplier=getattr(layer, "depth_multiplier", 1),
            bias=layer.use_bias,
            stored=_weights_of_quantizers(layer) if parts == ("kernel",) else 0,
            kernel_bits=tuple(widths),
            kernel_scale=next((scale for scale in scales if scale != "ones"), "ones"),
            binary_inputs=inputs is not None and bits(inputs, shape) == 1,
            sign_of_zero=sign_of_zero(inputs, shape) or 1,
            turned=turns(inputs, shape),
            before_sign=_before_sign(inputs, shape),
        )

    return read


def _before_sign(quantizer: Any, shape: tuple[int, ...] | None) -> Opaque | None:
    """Return the operations before the sign that the converter sees in a quantizer's end.

    `None` for a sign of the inputs themselves, and where the converter sees none.
    """
    if shape is None or not gives_signs_of_another(quantizer, shape) or turns(quantizer, shape):
        return None
    spec = tf.TensorSpec((1, *shape), tf.float32)
    found = convert_alone(lambda x: [quantizer(x)], [spec], quantizer, shape)
    if found is None or found.kinds[-2:] != ("LceQuantize", "LceDequantize"):
        return None
    return Opaque(found.kinds[:-2], found.bytes)


def shape_read(layer: Any) -> tuple[int, ...] | None:
    """Return a shape that `layer` takes, without the batch, if it was called."""
    for node in layer._inbound_nodes:
        for tensor in node.keras_inputs:
            if tensor.shape.rank and None not in tuple(tensor.shape)[1:]:
                return tuple(tensor.shape)[1:]
    return None


def _weights_of_quantizers(layer: Any) -> int:
    quantizers = [getattr(layer, f"{name}_quantizer", None) for name in ("input", "kernel")]
    weights = {
        id(weight): weight
        for quantizer in quantizers
        for weight in getattr(quantizer, "weights", ())
    }
    return sum(int(np.prod(weight.shape)) for weight in weights.values())


def _prelu(layer: Any) -> Facts:
    # One slope for each channel, or as many as there are positions too.
    shared = getattr(layer, "shared_axes", None) or ()
    return Facts("prelu", vectors=1 if len(shared) == layer.input_spec.ndim - 2 else -1)


def _named(kind: str) -> Callable[[Any], Facts]:
    return lambda layer: Facts(kind, taps=int(np.prod(getattr(layer, "pool_size", ()))))


def _ranks(name: str) -> tuple[type, ...]:
    """Return the layers of Keras of that name, over rows, images and volumes."""
    return tuple(getattr(_keras, name.format(rank)) for rank in ("1D", "2D", "3D"))


def _activation(layer: Any) -> Facts:
    function = getattr(layer, "activation", None)
    if function is tf.keras.activations.linear:
        return Facts("pass")
    if isinstance(layer, _keras.ReLU):
        return _relu(layer)
    if isinstance(layer, _keras.ELU | _keras.ThresholdedReLU):
        one = isinstance(layer, _keras.ELU) and layer.alpha == 1
        return Facts("activation" if one else "converted")
    if function in (tf.keras.activations.relu, tf.nn.relu6):
        return Facts("relu")
    if function is None:
        return Facts("activation")
    zero = sign_of_zero(function, shape_read(layer))
    if zero:
        return Facts("sign", sign_of_zero=zero)
    name = getattr(function, "__name__", "")
    composite = "composite" if name in ("swish", "silu") else "converted"
    return Facts("activation" if name in ONE_OPERATION else composite)


def _relu(layer: Any) -> Facts:
    """Return what a `ReLU` layer does: its limits, slope and threshold take operations."""
    if layer.threshold or (layer.negative_slope and layer.max_value is not None):
        return Facts("converted")
    if layer.negative_slope:
        return Facts("activation")
    return Facts("relu" if layer.max_value in (None, 6.0) else "converted")


def _quantizer(layer: Any) -> Facts:
    zero = sign_of_zero(layer, shape_read(layer))
    return Facts("sign", sign_of_zero=zero) if zero else Facts("activation")


_READERS: dict[type | tuple[type, ...], Callable[[Any], Facts]] = {
    _ranks("Conv{}Transpose"): _weighted_layer("transposed", "kernel"),
    (_keras.SeparableConv1D, _keras.SeparableConv2D): _weighted_layer(
        "separable", "depthwise", "pointwise"
    ),
    (_keras.DepthwiseConv1D, _keras.DepthwiseConv2D): _weighted_layer("depthwise", "depthwise"),
    _ranks("Conv{}"): _weighted_layer("conv", "kernel"),
    _keras.Dense: _weighted_layer("dense", "kernel"),
    _keras.BatchNormalization: lambda layer: Facts(
        "norm", vectors=2, folded=bool(layer.center) + bool(layer.scale)
    ),
    Scale: lambda layer: Facts("scale", vectors=1),
    _keras.PReLU: _prelu,
    lq.quantizers.Quantizer: _quantizer,
    _ACTIVATIONS: _activation,
    _PASSING: _named("pass"),
    _CONVERTED: _named("converted"),
    _keras.InputLayer: _named("input"),
    _keras.Add: _named("add"),
    (_keras.Subtract, _keras.Multiply, _keras.Maximum, _keras.Minimum): _named("arithmetic"),
    _keras.Average: _named("average"),
    _keras.Concatenate: _named("concat"),
    (_keras.Flatten, _keras.Reshape, _keras.Permute): _named("reshape"),
    _ranks("MaxPool{}"): _named("max_pool"),
    _ranks("AveragePooling{}"): _named("average_pool"),
    _ranks("GlobalAveragePooling{}"): _named("global_average_pool"),
    _ranks("GlobalMaxPooling{}"): _named("global_max_pool"),
    _ranks("ZeroPadding{}"): _named("pad"),
    _ranks("Cropping{}"): _named("crop"),
    _ranks("UpSampling{}"): _named("resize"),
    _keras.Rescaling: _named("scale"),
    Zeros: _named("zeros"),
    Mixture: lambda layer: Facts("mixture", stored=layer.inputs * layer.operations),
}
