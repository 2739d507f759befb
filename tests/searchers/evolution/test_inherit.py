"""What narrower networks take from the widest one, against arrays cut by hand."""

import larq_nas  # isort: skip  (it prepares TensorFlow)
import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from larq_nas.errors import InputError
from larq_nas.graph.channels import latent, weights_of
from larq_nas.searchers.evolution.candidates import Inheritance
from larq_nas.spaces import ModelWidths, Space, resolve
from larq_nas.spaces.chooser import Chooser, Fix, Widest

RATIOS = (0.25, 0.5, 1)
layers = tf.keras.layers


def inherited(space: Space, values: dict[str, float], shape: tuple[int, int, int]) -> tuple:
    choose = Widest()
    wide = space.build(choose, shape, 10)
    rng = np.random.default_rng(0)
    for weight in wide.weights:
        latent(weight).assign(rng.uniform(0.1, 1, weight.shape) * rng.choice([-1, 1], weight.shape))
    for layer in wide.layers:
        if isinstance(layer, layers_of_norms()):
            layer.moving_variance.assign(rng.uniform(0.5, 2, layer.moving_variance.shape))
    narrow = space.build(Fix(values), shape, 10)
    taken = Inheritance(wide, choose).taken(values)
    for key, weight in weights_of(narrow).items():
        weight.assign(taken[key])
    return wide, narrow


def layers_of_norms() -> type:
    return tf.keras.layers.BatchNormalization


def norm(x: np.ndarray, layer: tf.keras.layers.Layer, channels: int) -> np.ndarray:
    gamma, beta, mean, variance = (w.numpy()[:channels] for w in layer.weights)
    return gamma * (x - mean) / np.sqrt(variance + layer.epsilon) + beta


def convolve(x: np.ndarray, kernel: np.ndarray, pad: float | None = None) -> np.ndarray:
    if pad is None:
        return tf.nn.conv2d(x, kernel, 1, "SAME").numpy()
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=pad)
    return tf.nn.conv2d(padded, kernel, 1, "VALID").numpy()


def test_a_narrow_network_computes_what_the_first_channels_of_the_wide_one_do() -> None:
    space = resolve("vgg_small", {"ratios": (0.03125, 0.0625)})
    names = list(space.layers)
    values = dict(zip(names, [0.03125, 0.0625, 0.03125, 0.0625, 0.0625, 0.03125], strict=True))
    wide, narrow = inherited(space, values, (8, 8, 3))
    images = np.random.default_rng(1).normal(size=(4, 8, 8, 3)).astype("float32")
    x, before = images, 3
    for number, name in enumerate(names, 1):
        channels = round(space.layers[name] * values[name])
        kernel = latent(wide.get_layer(f"{name}_conv").kernel).numpy()[:, :, :before, :channels]
        if number == 1:
            x = convolve(x, kernel)
        else:
            x = convolve(np.where(x >= 0, 1.0, -1.0), np.where(kernel >= 0, 1.0, -1.0), pad=1.0)
        x = norm(x, wide.get_layer(f"{name}_bn"), channels)
        if number in (2, 4, 6):
            x = x.reshape(4, x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).max(axis=(2, 4))
        before = channels
    kernel, bias = (weight.numpy() for weight in wide.get_layer("dense").weights)
    # Behind the flattening, a position's channels follow those of the position before.
    kernel = kernel.reshape(1, -1, 10)[:, :before].reshape(-1, 10)
    np.testing.assert_allclose(
        narrow(images, training=False), x.reshape(4, -1) @ kernel + bias, rtol=1e-4, atol=1e-4
    )


def test_all_ratios_at_their_largest_are_the_wide_network_itself() -> None:
    space = resolve("resnet18_cifar", {"ratios": (0.25, 0.5)})
    wide, narrow = inherited(space, dict.fromkeys(space.layers, 0.5), (16, 16, 3))
    images = np.random.default_rng(1).normal(size=(2, 16, 16, 3)).astype("float32")
    np.testing.assert_array_equal(narrow(images), wide(images))


def test_the_first_channels_of_the_first_layer_are_those_of_the_wide_network() -> None:
    space = resolve("resnet18_cifar", {"ratios": (0.25, 0.5, 1)})
    values = {**dict.fromkeys(space.layers, 1), "stage1": 0.25}
    wide, narrow = inherited(space, values, (16, 16, 3))
    images = np.random.default_rng(1).normal(size=(2, 16, 16, 3)).astype("float32")
    stems = [
        tf.keras.Model(network.input, network.get_layer("stem_bn").output)(images)
        for network in (wide, narrow)
    ]
    np.testing.assert_allclose(stems[1], stems[0][..., :4], rtol=1e-5, atol=1e-6)


def joined() -> tf.keras.Model:
    """A network whose concatenation joins two widths, one of them open twice."""
    x = images = tf.keras.Input((6, 6, 1))
    quantized = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}
    first = lq.layers.QuantConv2D(8, 3, padding="same", pad_values=1.0, name="a", **quantized)(x)
    first = layers.BatchNormalization(scale=False, name="a_bn")(first)
    second = lq.layers.QuantConv2D(4, 3, padding="same", pad_values=1.0, name="b", **quantized)(x)
    x = layers.Concatenate(name="joined")([first, second])
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = lq.layers.QuantConv2D(4, 1, name="c", **quantized)(x)
    return tf.keras.Model(images, layers.Dense(10, name="d")(layers.Flatten()(x)), name="joined")


def test_behind_a_concatenation_the_first_channels_of_each_part_are_taken() -> None:
    space = ModelWidths(joined(), RATIOS)
    wide, narrow = inherited(space, {"a": 0.5, "b": 0.25, "c": 0.5}, (6, 6, 1))
    kernel = wide.get_layer("depthwise").weights[0].numpy()
    np.testing.assert_array_equal(
        narrow.get_layer("depthwise").weights[0], kernel[:, :, [0, 1, 2, 3, 8]]
    )
    kernel = latent(wide.get_layer("c").kernel).numpy()
    np.testing.assert_array_equal(
        latent(narrow.get_layer("c").kernel), kernel[:, :, [0, 1, 2, 3, 8], :2]
    )


def test_channels_that_cannot_be_followed_are_refused_by_name() -> None:
    def space(choose: Chooser, shape: tuple[int, int, int], classes: int) -> tf.keras.Model:
        x = images = tf.keras.Input(shape)
        filters = choose.filters("wide", 8, RATIOS)
        x = layers.Conv2D(filters, 3, groups=1, name="plain")(x)
        x = layers.Conv2D(filters, 3, groups=2, name="grouped")(x)
        return tf.keras.Model(images, layers.Dense(classes)(layers.Flatten()(x)))

    choose = Widest()
    wide = space(choose, (8, 8, 3), 10)
    with pytest.raises(InputError, match="layer `grouped`: its groups mix other channels"):
        Inheritance(wide, choose)


assert larq_nas
