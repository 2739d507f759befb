"""Networks to try the gate on: sound ones in ten families, and faults planted in each.

Everything about a network follows from its number: family, sizes, layers, weights, images.
A fault is a piece of network that leaves the size of a map as it is, so that it fits anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_nas.choosers import Sample
from larq_nas.layers import BinaryConv2D
from larq_nas.spaces import Bats, Bnas, Darts

from trained import calibrate  # isort: skip  (beside this file)

__all__ = ["FAMILIES", "FAULTS", "Fault", "Network", "planted", "sound"]

layers = tf.keras.layers
IMAGES = 96
PLANTED = "planted"
WEIGHTS = ("fresh", "random", "random", "trained", "trained")


@dataclass(frozen=True)
class Network:
    """A network to convert, and what must become of it.

    # Arguments
        name: says how to build it again.
        family: what it looks like.
        fault: the fault planted in it; empty if it is sound.
        weights: how its weights were drawn.
        model: the model.
        images: arrays for its inputs, in their order; the second half is for the judge.
        settings: arguments of `larq_nas.convert`.
        outcomes: what may become of it: `"right"`, `"refused"`, or `"warned"`.
        told: words of the warning that has to be there if the outcome is `"warned"`.
    """

    name: str
    family: str
    fault: str
    weights: str
    model: tf.keras.Model
    images: list[np.ndarray]
    settings: dict[str, Any] = field(default_factory=dict)
    outcomes: tuple[str, ...] = ("right",)
    told: str = ""


class Draw:
    """Draws what a network is made of, from a seed.

    # Arguments
        seed: the seed.
        weights: how the weights are drawn; by default one of `WEIGHTS`.
    """

    def __init__(self, seed: int | list[int], *weights: str) -> None:
        self.generator = np.random.default_rng(seed)
        self.weights = self.one(*(weights or WEIGHTS))

    def one(self, *options: Any) -> Any:
        return options[int(self.generator.integers(len(options)))]

    def chance(self, probability: float) -> bool:
        return bool(self.generator.uniform() < probability)

    def normal(self, *shape: int) -> np.ndarray:
        return self.generator.standard_normal(shape).astype("float32")


Piece = Callable[[tf.Tensor], tf.Tensor]
"""What is put somewhere into a network, and leaves the size of a map as it is."""


# Pieces that families share.


def binary(draw: Draw, x: tf.Tensor, filters: int, kernel: int = 3, **settings: Any) -> tf.Tensor:
    """Apply a binary convolution as people write them, with what is sound around it."""
    given = {
        "input_quantizer": draw.one("ste_sign", "approx_sign", "swish_sign"),
        "kernel_quantizer": draw.one("ste_sign", "ste_sign", "magnitude_aware_sign"),
        "kernel_constraint": "weight_clip",
        "padding": "same",
        "pad_values": 1.0,
        "use_bias": False,
    }
    if min(x.shape[1:3]) >= 4 and x.shape[-1] % 2 == 0 and draw.chance(0.15):
        given["pad_values"] = 0.0
    if draw.weights == "fresh":
        # Whole sums tie there, and with scales what rounding leaves of them would decide.
        given |= {"kernel_quantizer": "ste_sign", "pad_values": 1.0}
    layer = draw.one(lq.layers.QuantConv2D, BinaryConv2D)
    return layer(filters, kernel, **{**given, **settings})(x)


def norm(draw: Draw, x: tf.Tensor) -> tf.Tensor:
    return layers.BatchNormalization(scale=draw.chance(0.7), epsilon=draw.one(1e-3, 1e-5))(x)


def block(draw: Draw, x: tf.Tensor, filters: int, **settings: Any) -> tf.Tensor:
    """Apply a binary convolution with its norm and activation, in one of the usual orders."""
    order = draw.one(
        "conv norm", "conv relu norm", "norm conv", "conv norm activation", "conv prelu norm"
    )
    if order == "norm conv":
        # With scales in the kernel, sums that are 0 come out as what rounding leaves of them: a
        # sign behind them would be nobody's to decide.
        settings = {"kernel_quantizer": "ste_sign", **settings}
        return binary(draw, norm(draw, x), filters, **settings)
    x = binary(draw, x, filters, **settings)
    if order == "conv relu norm":
        x = layers.ReLU()(x)
    elif order == "conv prelu norm":
        x = layers.PReLU(alpha_initializer="he_normal", shared_axes=[1, 2])(x)
    x = norm(draw, x)
    if order == "conv norm activation":
        # Behind a ReLU, a sign is the same for all images: it happens, but not to every network.
        x = layers.ReLU()(x) if draw.chance(0.1) else layers.PReLU(shared_axes=[1, 2])(x)
    return x


def stem(draw: Draw, x: tf.Tensor, filters: int) -> tf.Tensor:
    x = layers.Conv2D(filters, 3, padding="same", use_bias=draw.chance(0.5))(x)
    return norm(draw, x)


def classes(draw: Draw, x: tf.Tensor, units: int = 10, name: str | None = None) -> tf.Tensor:
    pool = draw.one(layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D, layers.Flatten)
    x = pool()(x)
    activation = draw.one(None, "softmax")
    return layers.Dense(units, activation=activation, name=name)(x)


def within(draw: Draw, pieces: list[Piece], piece: Piece | None, x: tf.Tensor) -> tf.Tensor:
    """Apply `pieces` in order, with `piece` somewhere between or behind them."""
    place = int(draw.generator.integers(len(pieces) + 1))
    for number, one in enumerate(pieces):
        if piece and number == place:
            x = piece(x)
        x = one(x)
    return piece(x) if piece and place == len(pieces) else x


# Families: each takes what it draws from, and a piece to put in; and returns a model.


def residual(draw: Draw, piece: Piece | None) -> tf.keras.Model:
    """Blocks like QuickNet's: sign, convolution with ReLU, batch norm, sum."""
    size, filters = draw.one((16, 64), (16, 32), (8, 64), (12, 48))
    inputs = layers.Input((size, size, 3))
    x = stem(draw, inputs, filters)
    offset, shortcut = draw.chance(0.6), draw.one("identity", "scaled")

    def one(x: tf.Tensor) -> tf.Tensor:
        y = x + tf.constant(0.3 * draw.normal(filters)) if offset else x
        activation = draw.one("relu", "relu", None)
        y = binary(draw, y, filters, activation=activation, kernel_quantizer="ste_sign")
        y = norm(draw, y)
        if shortcut == "scaled":
            x = norm(draw, x)
        return layers.Add()([x, y])

    x = within(draw, int(draw.generator.integers(6, 13)) * [one], piece, x)
    return tf.keras.Model(inputs, classes(draw, x))


def dense(draw: Draw, piece: Piece | None) -> tf.keras.Model:
    """Blocks like BinaryDenseNet's, that append their outputs to what they read."""
    size, growth = draw.one(8, 16), draw.one(16, 32)
    inputs = layers.Input((size, size, 3))
    x = stem(draw, inputs, draw.one(32, 64))

    def one(x: tf.Tensor) -> tf.Tensor:
        y = norm(draw, x) if draw.chance(0.5) else x
        y = binary(draw, y, growth, dilation_rate=1)
        return layers.Concatenate()([x, norm(draw, y)])

    def transition(x: tf.Tensor) -> tf.Tensor:
        x = draw.one(layers.MaxPooling2D, layers.AveragePooling2D)(2)(norm(draw, x))
        x = layers.ReLU()(x) if draw.chance(0.5) else x
        return layers.Conv2D(32 * (x.shape[-1] // 64 + 1), 1, use_bias=False)(x)

    x = within(draw, [*int(draw.generator.integers(2, 5)) * [one], transition, one, one], piece, x)
    return tf.keras.Model(inputs, classes(draw, norm(draw, x)))


def cells(draw: Draw, piece: Piece | None) -> tf.keras.Model:
    """Networks of BATS's, BNAS's and DARTS's spaces, with random cells."""
    channels, nodes, number = draw.one(8, 16), draw.one(1, 2, 3), draw.one(2, 3)
    space = draw.one(
        lambda: Bats(cells=number, channels=channels, nodes=nodes),
        lambda: Bats(cells=number, channels=2 * channels, nodes=nodes, groups=draw.one(2, 4)),
        lambda: Bnas(cells=number, channels=channels, nodes=nodes),
        lambda: Darts(cells=number, channels=channels, nodes=nodes, precision="binary"),
    )()
    depth = 64 if piece else draw.one(1, 3)
    seed = int(draw.generator.integers(2**31))
    network = space.build(Sample.seeded(seed), (8, 8, depth), 10)
    if piece is None:
        return network
    inputs = layers.Input((8, 8, 3))
    return tf.keras.Model(inputs, network(piece(stem(draw, inputs, depth))))


def u_net(draw: Draw, piece: Piece | None) -> tf.keras.Model:
    """Down and up again, with what was read on the way down; a mask of the size of the image."""
    filters = draw.one(32, 64)
    inputs = layers.Input((16, 16, 3))
    first = block(draw, stem(draw, inputs, filters), filters)
    pool = draw.one(layers.MaxPooling2D, layers.AveragePooling2D)
    below = int(draw.generator.integers(1, 4)) * [lambda x: block(draw, x, filters)]
    x = within(draw, below, piece, pool(2)(first))
    up = draw.one("nearest", "bilinear", "transposed")
    if up == "transposed":
        x = layers.Conv2DTranspose(filters, 2, strides=2, padding="same")(x)
    else:
        x = layers.UpSampling2D(2, interpolation=up)(x)
    x = layers.Concatenate()([first, x]) if draw.chance(0.6) else layers.Add()([first, x])
    return tf.keras.Model(inputs, mask(draw, block(draw, norm(draw, x), filters)))


def mask(draw: Draw, x: tf.Tensor, name: str | None = None) -> tf.Tensor:
    """Return a mask: a probability for each pixel, or one for each class."""
    units, activation = draw.one((1, "sigmoid"), (4, "softmax"), (3, None))
    return layers.Conv2D(units, draw.one(1, 3), padding="same", activation=activation, name=name)(x)


def gates(draw: Draw, piece: Piece | None) -> tf.keras.Model:
    """Blocks of which channels or positions are weighed by what they hold."""
    filters = draw.one(32, 64)
    inputs = layers.Input((8, 8, 3))

    def channels(x: tf.Tensor) -> tf.Tensor:
        y = layers.GlobalAveragePooling2D()(x)
        y = layers.Dense(filters // 4, activation="relu")(y)
        y = layers.Dense(filters, activation="sigmoid")(y)
        return layers.Multiply()([x, layers.Reshape((1, 1, filters))(y)])

    def positions(x: tf.Tensor) -> tf.Tensor:
        y = layers.Conv2D(1, 3, padding="same", activation="sigmoid")(x)
        return layers.Multiply()([x, y])

    def one(x: tf.Tensor) -> tf.Tensor:
        y = draw.one(channels, positions)(block(draw, x, filters))
        return layers.Add()([x, y]) if draw.chance(0.7) else y

    x = within(draw, int(draw.generator.integers(2, 5)) * [one], piece, stem(draw, inputs, filters))
    return tf.keras.Model(inputs, classes(draw, x))


def recurrent(draw: Draw, piece: Piece | None) -> tf.keras.Model:
    """Binary convolutions, and a recurrent layer over the rows of what they give."""
    filters = draw.one(32, 64)
    inputs = layers.Input((8, 8, 2))
    pieces = int(draw.generator.integers(1, 4)) * [lambda x: block(draw, x, filters)]
    x = within(draw, pieces, piece, stem(draw, inputs, filters))
    x = layers.MaxPooling2D(2)(x)
    x = layers.Reshape((x.shape[1], -1))(x)
    units, sequences = draw.one(8, 16), draw.chance(0.3)
    layer = draw.one(
        lambda: layers.LSTM(units, unroll=True, return_sequences=sequences),
        lambda: layers.GRU(units, unroll=True, return_sequences=sequences),
        lambda: layers.GRU(units, return_sequences=sequences),
        lambda: layers.SimpleRNN(units, return_sequences=sequences),
        lambda: layers.Bidirectional(layers.GRU(units, return_sequences=sequences)),
        lambda: layers.Bidirectional(layers.LSTM(units, unroll=True)),
    )()
    x = layer(x)
    x = layers.Flatten()(x) if len(x.shape) > 2 else x
    return tf.keras.Model(inputs, layers.Dense(5, activation=draw.one(None, "softmax"))(x))


def masks(draw: Draw, piece: Piece | None) -> tf.keras.Model:
    """Maps of the size of the image: a class or a probability for each pixel, or numbers."""
    filters, size = draw.one(32, 64), draw.one(8, 16)
    inputs = layers.Input((size, size, 3))

    def one(x: tf.Tensor) -> tf.Tensor:
        y = block(draw, x, filters)
        return layers.Add()([x, y]) if draw.chance(0.6) else y

    x = within(draw, int(draw.generator.integers(2, 6)) * [one], piece, stem(draw, inputs, filters))
    # Pixels of trained masks are sure of themselves: they saturate.
    outputs = mask(draw, norm(draw, x) * draw.one(1.0, 8.0))
    return tf.keras.Model(inputs, outputs)


def regression(draw: Draw, piece: Piece | None) -> tf.keras.Model:
    """Numbers, some of them a thousand times as large as others."""
    filters = draw.one(32, 64)
    inputs = layers.Input((8, 8, 3))
    pieces = int(draw.generator.integers(2, 6)) * [lambda x: block(draw, x, filters)]
    x = within(draw, pieces, piece, stem(draw, inputs, filters))
    units = draw.one(1, 2, 4)
    x = layers.Dense(units)(draw.one(layers.GlobalAveragePooling2D, layers.Flatten)()(x))
    sizes = 10.0 ** draw.generator.uniform(-2, 2, units).astype("float32")
    return tf.keras.Model(inputs, layers.Rescaling(sizes.tolist())(x))


def outputs(draw: Draw, piece: Piece | None) -> tf.keras.Model:
    """Classes, numbers and a mask of one body."""
    filters = draw.one(32, 64)
    inputs = layers.Input((8, 8, 3))
    pieces = int(draw.generator.integers(1, 4)) * [lambda x: block(draw, x, filters)]
    x = within(draw, pieces, piece, stem(draw, inputs, filters))
    heads = [classes(draw, x, name="classes"), mask(draw, block(draw, x, filters), name="mask")]
    if draw.chance(0.5):
        numbers = layers.Dense(2, name="numbers")(layers.Flatten()(block(draw, x, 8)))
        heads.append(numbers * 100.0)
    return tf.keras.Model(inputs, heads)


def inputs(draw: Draw, piece: Piece | None) -> tf.keras.Model:
    """Two images, or an image and numbers."""
    filters = draw.one(32, 64)
    image = layers.Input((8, 8, 3), name="image")
    pieces = int(draw.generator.integers(1, 4)) * [lambda x: block(draw, x, filters)]
    x = within(draw, pieces, piece, stem(draw, image, filters))
    if draw.chance(0.5):
        other = layers.Input((8, 8, 1), name="depth")
        y = block(draw, stem(draw, other, filters), filters)
        x = classes(draw, draw.one(layers.Add, layers.Concatenate)()([x, y]))
    else:
        other = layers.Input((6,), name="numbers")
        y = layers.Dense(8, activation="relu")(other)
        x = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), y])
        x = layers.Dense(4)(x)
    return tf.keras.Model([image, other], x)


FAMILIES: dict[str, Callable[[Draw, Piece | None], tf.keras.Model]] = {
    "residual": residual,
    "dense": dense,
    "cells": cells,
    "u_net": u_net,
    "gates": gates,
    "recurrent": recurrent,
    "masks": masks,
    "regression": regression,
    "outputs": outputs,
    "inputs": inputs,
}


# Faults.


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


def sound(number: int) -> Network:
    """Return sound network `number`: families in turn."""
    family = list(FAMILIES)[number % len(FAMILIES)]
    draw = Draw([1, number])
    model = FAMILIES[family](draw, None)
    images = _images(draw, model)
    _set_weights(draw, model, images)
    return Network(f"sound {number}", family, "", draw.weights, model, images)


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
    images = _images(draw, model)
    _set_weights(draw, model, images)
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


def _images(draw: Draw, model: tf.keras.Model) -> list[np.ndarray]:
    """Return smooth random images, of 0 to 1 or around 0, as many as are compared twice."""
    arrays = []
    for one in model.inputs:
        values = draw.normal(2 * IMAGES, *one.shape[1:])
        if values.ndim == 4:
            rough, smooth = values, tf.nn.avg_pool2d(values, 3, 1, "SAME").numpy()
            values = rough + 2 * smooth
        arrays.append(values)
    return arrays


def _set_weights(draw: Draw, model: tf.keras.Model, images: list[np.ndarray]) -> None:
    """Set the weights as a network has them that is fresh, random, or trained."""
    generator, weights = draw.generator, draw.weights
    if weights == "fresh":
        # Keras draws from a state of its own: from ours, the network can be built again.
        for weight in model.weights:
            name = _short(weight)
            if "kernel" in name:
                limit = np.sqrt(6 / max(1, np.prod(weight.shape[:-1]) + weight.shape[-1]))
                weight.assign(generator.uniform(-limit, limit, weight.shape))
        return
    for weight in model.weights:
        name, shape = _short(weight), weight.shape
        values = generator.normal(size=shape)
        if "kernel" in name:
            values /= np.sqrt(np.prod(shape[:-1]))
            if weights == "trained":
                # Filters of trained networks are of many sizes, and have decayed.
                values *= np.exp(0.5 * generator.normal(size=shape[-1]))
        elif name == "gamma":
            spread = 0.3 if weights == "trained" else 0.6
            values = np.exp(spread * values) * generator.choice([-1, 1, 1, 1, 1], shape)
        elif name in ("beta", "bias"):
            values *= 0.3
        elif name == "alpha":
            values = 0.25 + 0.1 * values
        elif name == "scale":
            values = generator.uniform(0.05, 0.15, shape)
        elif name == "moving_variance":
            values = np.ones(shape)
        weight.assign(values)
    half = [array[:IMAGES] for array in images]
    calibrate(model, half[0] if len(half) == 1 else half)


def _short(weight: tf.Variable) -> str:
    return weight.name.rsplit("/", maxsplit=1)[-1].partition(":")[0]
