import larq as lq
import numpy as np
import tensorflow as tf

from larq_nas.layers import BinaryConv2D
from larq_nas.training.trainer import FlipRatio


def epoch(model: tf.keras.Model, change) -> dict[str, float]:
    """Return the logs of an epoch in which `change` happened."""
    callback, logs = FlipRatio(), {"loss": 1.0}
    callback.set_model(model)
    callback.on_epoch_begin(0)
    change()
    callback.on_epoch_end(0, logs)
    return logs


def network() -> tf.keras.Model:
    """Binary and real layers in turn; 4 * 9 * 3 + 3 * 9 + 3 * 2 = 141 binary weights."""
    images = tf.keras.Input((8, 8, 3))
    x = tf.keras.layers.Conv2D(4, 1, name="real")(images)
    x = BinaryConv2D(3, 3, name="binary")(x)
    x = lq.layers.QuantSeparableConv2D(
        2,
        3,
        input_quantizer="ste_sign",
        depthwise_quantizer="ste_sign",
        pointwise_quantizer="ste_sign",
        name="separable",
    )(x)
    x = lq.layers.QuantConv2D(3, 1, kernel_quantizer="dorefa_quantizer", name="two_bits")(x)
    return tf.keras.Model(images, x)


def test_the_share_of_signs_that_changed() -> None:
    model, generator = network(), np.random.default_rng(0)
    kernels = [model.get_layer("binary").kernel]
    kernels += [
        getattr(model.get_layer("separable"), f"{k}_kernel") for k in ("depthwise", "pointwise")
    ]
    kernels = [kernel.latent_variable for kernel in kernels]
    before = [kernel.numpy() for kernel in kernels]

    def change() -> None:
        for weight in model.weights:
            weight.assign(generator.normal(size=weight.shape))

    logs = epoch(model, change)
    after = [kernel.numpy() for kernel in kernels]
    signs = [np.concatenate([np.where(k < 0, -1, 1).ravel() for k in ks]) for ks in (before, after)]
    assert len(signs[0]) == 141
    assert 0.3 < logs["flip_ratio"] < 0.7
    assert logs["flip_ratio"] == np.mean(signs[0] != signs[1])


def test_what_keeps_its_sign_has_not_flipped() -> None:
    model = network()
    kernel = model.get_layer("binary").kernel.latent_variable
    assert epoch(model, lambda: kernel.assign(kernel / 2))["flip_ratio"] == 0.0
    assert epoch(model, lambda: kernel.assign(-kernel))["flip_ratio"] == 108 / 141


def test_zero_counts_as_the_sign_it_runs_with() -> None:
    """The sign of 0 is 1: a weight that comes to rest at 0 flips from below, not from above."""
    model = network()
    kernel = model.get_layer("binary").kernel.latent_variable
    for value, ratio in ((0.5, 0.0), (-0.5, 108 / 141)):
        kernel.assign(tf.fill(kernel.shape, value))
        assert epoch(model, lambda: kernel.assign(tf.zeros(kernel.shape)))["flip_ratio"] == ratio


def test_a_network_without_binary_weights_reports_none() -> None:
    images = tf.keras.Input((8, 8, 3))
    real = BinaryConv2D(3, 3, kernel_quantizer=None)(images)
    two_bits = lq.layers.QuantConv2D(3, 1, kernel_quantizer="dorefa_quantizer")(real)
    assert epoch(tf.keras.Model(images, two_bits), lambda: None) == {"loss": 1.0}


def test_each_epoch_is_compared_with_its_own_start() -> None:
    model, callback = network(), FlipRatio()
    kernel = model.get_layer("binary").kernel.latent_variable
    callback.set_model(model)
    ratios = []
    for change in (-1.0, 1.0):
        logs: dict[str, float] = {}
        callback.on_epoch_begin(0)
        kernel.assign(kernel * change)
        callback.on_epoch_end(0, logs)
        ratios.append(logs["flip_ratio"])
    assert ratios == [108 / 141, 0.0]
