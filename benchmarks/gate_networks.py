"""Sound networks to try the gate on, in ten families.

Everything about a network follows from its number: family, sizes, layers, weights, images.
`gate_faults.py` plants faults in networks of the same families.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_nas.layers import BinaryConv2D
from larq_nas.spaces import Bats, Bnas, Darts
from larq_nas.spaces.chooser import Sample

from trained import calibrate  # isort: skip  (beside this file)

__all__ = [
    "FAMILIES",
    "IMAGES",
    "Draw",
    "Network",
    "Piece",
    "draw_images",
    "draw_weights",
    "sound",
]

layers = tf.keras.layers
IMAGES = 96
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


def sound(number: int) -> Network:
    """Return sound network `number`: families in turn."""
    family = list(FAMILIES)[number % len(FAMILIES)]
    draw = Draw([1, number])
    # Keras draws the slopes of a PReLU itself, and those of fresh networks stay as they are.
    tf.keras.utils.set_random_seed(number)
    model = FAMILIES[family](draw, None)
    images = draw_images(draw, model)
    draw_weights(draw, model, images)
    return Network(f"sound {number}", family, "", draw.weights, model, images)


def draw_images(draw: Draw, model: tf.keras.Model) -> list[np.ndarray]:
    """Return smooth random images, of 0 to 1 or around 0, as many as are compared twice."""
    arrays = []
    for one in model.inputs:
        values = draw.normal(2 * IMAGES, *one.shape[1:])
        if values.ndim == 4:
            rough, smooth = values, tf.nn.avg_pool2d(values, 3, 1, "SAME").numpy()
            values = rough + 2 * smooth
        arrays.append(values)
    return arrays


def draw_weights(draw: Draw, model: tf.keras.Model, images: list[np.ndarray]) -> None:
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
