"""Networks with a planted fault, to try the gate on: each fault in each family.

A fault is a piece of network that leaves the size of a map as it is, so that it fits anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from gate_networks import FAMILIES, Draw, Network, draw_images, draw_weights  # isort: skip

__all__ = ["FAULTS", "PLANTED", "Fault", "planted"]

layers = tf.keras.layers
PLANTED = "planted"


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong without a word, unless somebody looks.

    # Arguments
        piece: puts it into a network.
        outcomes: what may become of the network.
        told: words of the warning, if the network is handed out with one.
        finish: sets weights that the fault needs, when all have been set.
        settings: arguments of `larq_nas.convert`.
        head: whether it is to stand beside the outputs, rather than within.
    """

    piece: Callable[[Draw, tf.Tensor], tf.Tensor]
    outcomes: tuple[str, ...] = ("refused", "right")
    told: str = ""
    finish: Callable[[tf.keras.Model], None] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    head: bool = False


def faulty(filters: int, kernel: int = 3, name: str = PLANTED, **settings: Any) -> Any:
    given = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "pad_values": 1.0}
    given |= {"padding": "same", "use_bias": False}
    return lq.layers.QuantConv2D(filters, kernel, name=name, **{**given, **settings})


def shared_dilation(draw: Draw, x: tf.Tensor) -> tf.Tensor:
    twins = [faulty(x.shape[-1], name=name, dilation_rate=2)(x) for name in (PLANTED, "twin")]
    return layers.BatchNormalization()(layers.Add()(twins))


def small_image(draw: Draw, x: tf.Tensor) -> tf.Tensor:
    """Pad with zeros a map that is smaller than the kernel."""
    steps = (x.shape[1] + 1) // 2
    y = faulty(x.shape[-1], 3, dilation_rate=steps, pad_values=0.0)(x)
    return layers.BatchNormalization()(y)


def padded_stride(draw: Draw, x: tf.Tensor) -> tf.Tensor:
    """Pad on both sides before a convolution with stride 2, as PyTorch does."""
    kernel, sides = draw.one((3, 1), (3, 1), (5, 2), (7, 3))
    y = layers.ZeroPadding2D(sides)(x)
    y = layers.Conv2D(x.shape[-1], kernel, strides=2, name=PLANTED)(y)
    return layers.UpSampling2D(2)(layers.BatchNormalization()(y))


def padded_binary_stride(draw: Draw, x: tf.Tensor) -> tf.Tensor:
    signs = lq.quantizers.SteSign()(x)
    y = tf.pad(signs, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=1.0)
    settings = {"input_quantizer": None, "strides": 2, "padding": "valid", "pad_values": 0.0}
    y = faulty(x.shape[-1], **settings)(y)
    return layers.UpSampling2D(2)(layers.BatchNormalization()(y))


def ternary(draw: Draw, x: tf.Tensor) -> tf.Tensor:
    y = faulty(x.shape[-1], input_quantizer=lq.quantizers.SteTern(threshold_value=0.3))(x)
    return layers.BatchNormalization()(y)


@tf.custom_gradient
def almost_sign(x: tf.Tensor) -> Any:
    """Return the sign, but 0 for what is almost 0."""
    near = tf.cast(tf.abs(x) < 0.02, x.dtype)
    return lq.math.sign(x) * (1 - near), lambda dy: dy


def third_value(draw: Draw, x: tf.Tensor) -> tf.Tensor:
    x = layers.BatchNormalization()(x)
    y = faulty(x.shape[-1], input_quantizer=almost_sign)(x)
    return layers.BatchNormalization()(y)


def weak_scale(draw: Draw, x: tf.Tensor) -> tf.Tensor:
    y = faulty(x.shape[-1], kernel_quantizer="magnitude_aware_sign")(x)
    return layers.BatchNormalization()(y)


def zero_kernel(draw: Draw, x: tf.Tensor) -> tf.Tensor:
    return layers.BatchNormalization()(faulty(x.shape[-1], kernel_quantizer=tf.sign)(x))


def set_first(value: float, where: Any) -> Callable[[tf.keras.Model], None]:
    def finish(model: tf.keras.Model) -> None:
        layer = next(one for one in model._flatten_layers() if one.name == PLANTED)
        kernel, *others = layer.get_weights()
        kernel[where] = value
        layer.set_weights([kernel, *others])

    return finish


def grouped(groups: Callable[[int], int]) -> Callable[[Draw, tf.Tensor], tf.Tensor]:
    def piece(draw: Draw, x: tf.Tensor) -> tf.Tensor:
        filters, channels = x.shape[-1], x.shape[-1] // 64 * 64 or 64
        y = x if filters == channels else layers.Conv2D(channels, 1)(x)
        y = layers.BatchNormalization()(faulty(channels, groups=groups(channels))(y))
        return y if filters == channels else layers.Conv2D(filters, 1)(y)

    return piece


def masked_before_sign(draw: Draw, x: tf.Tensor) -> tf.Tensor:
    kept = (np.arange(x.shape[-1]) < x.shape[-1] // 2).astype("float32")
    y = faulty(x.shape[-1])(layers.BatchNormalization()(x) * tf.constant(kept))
    return layers.BatchNormalization()(y)


def lstm(draw: Draw, x: tf.Tensor) -> tf.Tensor:
    size = x.shape[1:]
    y = layers.Reshape((size[0], size[1] * size[2]))(x)
    layer = draw.one(layers.LSTM, layers.LSTM, layers.Bidirectional)
    if layer is layers.Bidirectional:
        inner = layers.LSTM(8, return_sequences=True)
        y = layers.Bidirectional(inner, name=PLANTED)(y)
    else:
        y = layers.LSTM(8, return_sequences=True, name=PLANTED)(y)
    y = layers.Dense(size[1] * size[2])(y)
    return layers.BatchNormalization()(layers.Reshape(size)(y))


def small_variance(draw: Draw, x: tf.Tensor) -> tf.Tensor:
    """A variance near 0, and a padded stride: what jitters the variance must not excuse it."""
    x = layers.BatchNormalization(epsilon=1e-7, name="narrow")(x)
    return padded_stride(draw, x)


def narrow(model: tf.keras.Model) -> None:
    """Make a channel nearly constant, as one behind a dead ReLU is."""
    layer = next(one for one in model._flatten_layers() if one.name == "narrow")
    gamma, beta, mean, variance = layer.get_weights()
    variance[:2], gamma[:2] = 0.0, 1e-4 * gamma[:2]
    layer.set_weights([gamma, beta, mean, variance])


def small_output(draw: Draw, x: tf.Tensor) -> tf.Tensor:
    y = padded_stride(draw, x)
    return layers.Conv2D(1, 1, activation="sigmoid")(y) * 0.01


def negative_zero(before: Callable[[Draw, tf.Tensor], tf.Tensor]) -> Any:
    """Return a piece that takes the sign of a map that holds -0.0."""

    def piece(draw: Draw, x: tf.Tensor) -> tf.Tensor:
        y = before(draw, layers.BatchNormalization()(x) * 3.0)
        return layers.BatchNormalization()(faulty(x.shape[-1])(y))

    return piece


def hard_swish(draw: Draw, x: tf.Tensor) -> tf.Tensor:
    return x * tf.nn.relu6(x + 3.0) * (1 / 6)


def hard_gate(draw: Draw, x: tf.Tensor) -> tf.Tensor:
    gate = layers.Conv2D(1, 3, padding="same", activation="hard_sigmoid")(x)
    return layers.Multiply()([x, gate])


def flat_slope(draw: Draw, x: tf.Tensor) -> tf.Tensor:
    return layers.PReLU(shared_axes=[1, 2], name="flat")(x)


def flatten_slopes(model: tf.keras.Model) -> None:
    """Set every other slope to 0: with all of them, every sign would be +1 for every image."""
    layer = next(one for one in model._flatten_layers() if one.name == "flat")
    (slopes,) = layer.get_weights()
    slopes[..., ::2] = 0.0
    layer.set_weights([slopes])


def masked_map(draw: Draw, x: tf.Tensor) -> tf.Tensor:
    kept = (draw.generator.uniform(size=x.shape[1:]) < 0.7).astype("float32")
    return x * tf.constant(kept)


def turned_relu(draw: Draw, x: tf.Tensor) -> tf.Tensor:
    return layers.ReLU()(x) * -1.0


def zero_one(draw: Draw, x: tf.Tensor) -> tf.Tensor:
    """Activations of 0 and 1 behind a ReLU, as DoReFa-Net has them."""
    x = layers.ReLU()(layers.BatchNormalization()(x))
    quantizer = draw.one(lambda: lq.quantizers.DoReFa(1), lambda: lq.quantizers.SteHeaviside())()
    y = faulty(x.shape[-1], input_quantizer=quantizer, pad_values=0.0)(x)
    return layers.BatchNormalization()(y)


def plain(draw: Draw, x: tf.Tensor) -> tf.Tensor:
    return layers.BatchNormalization()(faulty(x.shape[-1])(x))


# Without the rewriting that mends them, the judgement alone has to find them.
AS_IT_STANDS = {"rewrite": False}

FAULTS: dict[str, Fault] = {
    "1 shared dilation": Fault(shared_dilation),
    "2 small image": Fault(small_image),
    "3 padded stride": Fault(padded_stride),
    "3 padded stride, binary": Fault(padded_binary_stride),
    "4 ternary": Fault(ternary, ("refused",)),
    "5 vanishing scale": Fault(weak_scale, finish=set_first(1e-8, np.s_[..., 0])),
    "5 zero in a kernel": Fault(zero_kernel, finish=set_first(0.0, np.s_[0, 0, 0, 0])),
    "6 small groups": Fault(grouped(lambda channels: channels // 8)),
    "7 groups of 32": Fault(grouped(lambda channels: channels // 32)),
    "8 slow kernel": Fault(plain, ("warned",), "slowest"),
    "9 mask before a sign": Fault(masked_before_sign, ("warned",), "always 0"),
    "10 int8 that is none": Fault(plain, settings={"int8": "ends"}),
    "10 int8 inputs that are none": Fault(
        plain, settings={"input_type": "int8", "output_type": "int8"}
    ),
    "11 LSTM": Fault(lstm, ("refused",)),
    "A1 small variance": Fault(small_variance, ("refused",), finish=narrow, settings=AS_IT_STANDS),
    "A2 padded stride as it stands": Fault(padded_stride, ("refused",), settings=AS_IT_STANDS),
    "A3 small output": Fault(small_output, ("refused",), settings=AS_IT_STANDS, head=True),
    "A4 third value": Fault(third_value, ("refused",)),
    "A6 hard swish": Fault(negative_zero(hard_swish), ("right", "warned"), "-0.0"),
    "A6 hard gate": Fault(negative_zero(hard_gate), ("right", "warned"), "-0.0"),
    "A6 flat slope": Fault(
        negative_zero(flat_slope), ("right", "warned"), "-0.0", finish=flatten_slopes
    ),
    "A6 mask": Fault(negative_zero(masked_map), ("right", "warned"), "-0.0"),
    "A6 turned ReLU": Fault(negative_zero(turned_relu), ("right", "warned"), "-0.0"),
    "A6 zero and one": Fault(zero_one, ("right", "warned"), "-0.0"),
}


def planted(number: int) -> Network:
    """Return planted network `number`: faults in turn, and families in turn."""
    name = list(FAULTS)[number % len(FAULTS)]
    fault = FAULTS[name]
    # Each fault meets each family: the families move on by one with each round of faults.
    family = list(FAMILIES)[(number + number // len(FAULTS)) % len(FAMILIES)]
    draw = Draw([2, number], "random", "trained")
    if fault.head:
        model = _beside(draw, FAMILIES[family](draw, _mark), fault)
    else:
        model = FAMILIES[family](draw, lambda x: fault.piece(draw, x))
    images = draw_images(draw, model)
    draw_weights(draw, model, images)
    if fault.finish:
        fault.finish(model)
    return Network(
        f"planted {number}",
        family,
        name,
        draw.weights,
        model,
        images,
        fault.settings,
        fault.outcomes,
        fault.told,
    )


def _mark(x: tf.Tensor) -> tf.Tensor:
    return layers.Activation("linear", name=PLANTED + "_beside")(x)


def _beside(draw: Draw, model: tf.keras.Model, fault: Fault) -> tf.keras.Model:
    """Return `model` with the fault in a small output, in one tensor with large ones."""
    first, *others = model.outputs
    small = fault.piece(draw, model.get_layer(PLANTED + "_beside").output)
    large = first * 1000.0
    if len(large.shape) == 2:
        small = layers.GlobalAveragePooling2D()(small)
    elif small.shape[1] != large.shape[1]:
        small = layers.UpSampling2D(large.shape[1] // small.shape[1])(small)
    return tf.keras.Model(model.inputs, [layers.Concatenate()([large, small]), *others])
