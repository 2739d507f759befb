import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import larq_nas
from larq_nas.layers import BinaryConv2D
from larq_nas.quantizers import XnorSign
from larq_nas.supernet.resizable import resizable_optimizer
from larq_nas.training.recipe import descend, learning_rate, optimizer, xnor_quantizers

PEAK, STEPS = 0.05, 1000


def falling(share: float) -> float:
    """A cosine from 1 to 0."""
    return (1 + math.cos(math.pi * share)) / 2


@pytest.mark.parametrize("step", [0, 250, 500, 1000])
def test_cosine_falls_from_the_peak_to_the_last(step: int) -> None:
    rate = learning_rate("cosine", PEAK, STEPS, last=0.001)
    expected = 0.001 + (PEAK - 0.001) * falling(step / STEPS)
    assert float(rate(step)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("step", "rate", "momentum"),
    [
        (0, 0.0025, 0.95),
        (225, 0.02625, 0.9),
        (450, 0.05, 0.85),
        (675, 0.02625, 0.9),
        (900, 0.0025, 0.95),
        (950, 0.0025 - (0.0025 - 2.5e-5) / 2, 0.95),
        (1000, 2.5e-5, 0.95),
    ],
)
def test_one_cycle_is_that_of_bnas_as_released(step: int, rate: float, momentum: float) -> None:
    """Linear over 45 %, 45 % and the last 10 % of the steps, the momentum against it."""
    cycle: Any = learning_rate("one_cycle", PEAK, STEPS)
    assert float(cycle(step)) == pytest.approx(rate, rel=1e-5)
    assert float(cycle.momentum(step)) == pytest.approx(momentum, rel=1e-6)


@pytest.mark.parametrize("make", [optimizer, resizable_optimizer])
def test_sgd_of_one_cycle_steps_with_its_momentum(make: Any) -> None:
    """Each step has its own rate and momentum, by numbers of NumPy."""
    steps, slopes = 20, np.random.default_rng(0).normal(size=(20, 3))
    variable = tf.Variable(tf.zeros(3))
    sgd = make("sgd", learning_rate("one_cycle", PEAK, steps))
    sgd.build([variable])
    take = tf.function(lambda slope: sgd.apply_gradients([(slope, variable)]))
    places = (0, 9, 18, 20)
    value, velocity = np.zeros(3), np.zeros(3)
    for step, slope in enumerate(slopes):
        rate = np.interp(step, places, (0.0025, 0.05, 0.0025, 2.5e-5))
        velocity = np.interp(step, places, (0.95, 0.85, 0.95, 0.95)) * velocity - rate * slope
        value = value + velocity
        take(tf.constant(slope, tf.float32))
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("step", [0, 100, 199, 200, 300, 399, 400, 999])
def test_warm_restarts_begin_anew_after_each_period(step: int) -> None:
    rate = learning_rate("warm_restarts", PEAK, STEPS, period=200)
    expected = PEAK * falling(step % 200 / 200)
    assert float(rate(step)) == pytest.approx(expected, rel=1e-3, abs=1e-7)


def test_a_period_longer_than_the_training_ends_with_it() -> None:
    """Otherwise a short training would never see a low learning rate."""
    rate = learning_rate("warm_restarts", PEAK, 100, period=5000)
    assert float(rate(0)) == pytest.approx(PEAK)
    assert float(rate(99)) == pytest.approx(PEAK * falling(0.99), rel=1e-3)


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", "warm_restarts"])
def test_a_single_step_has_a_rate(schedule) -> None:
    assert 0 < float(learning_rate(schedule, PEAK, 1, period=1)(0)) <= PEAK * 1.00001


def test_optimizers_by_name() -> None:
    adam, sgd = optimizer("adam", 0.1), optimizer("sgd", 0.1)
    assert isinstance(adam, tf.keras.optimizers.Adam)
    assert isinstance(sgd, tf.keras.optimizers.SGD)
    assert sgd.momentum == 0.9


def through_xnor(kernel: np.ndarray, upstream: np.ndarray) -> np.ndarray:
    """Return the gradient of a kernel, of that of its binary weights, by XNOR-Net's own code."""
    count, channels = np.prod(kernel.shape[:-1]), kernel.shape[-2]
    signs, scale = np.where(kernel < 0, -1.0, 1.0), np.abs(kernel).mean(axis=(0, 1, 2))
    both = scale * upstream + signs * (signs * upstream).mean(axis=(0, 1, 2))
    return np.asarray(count * (1 - 1 / channels) * both)


@pytest.mark.parametrize("clip_norm", [0.0, 1.0, 100.0])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_descent_clips_then_decays(clip_norm: float, decay: float) -> None:
    """Two steps by SGD with momentum: the second holds the norm of all gradients together.

    The part of a binary kernel in it is the gradient by its binary weights, as BNAS clips.
    """
    generator = np.random.default_rng(0)
    values = [generator.uniform(-0.1, 0.1, size=(2, 3, 3, 4)), generator.normal(size=4)]
    variables = [tf.Variable(value, dtype=tf.float32) for value in values]
    sgd, quantizers = optimizer("sgd", 0.01), [XnorSign(amplified=True), None]
    velocities = [np.zeros_like(value) for value in values]
    for _ in range(2):
        upstream = [generator.normal(size=value.shape) for value in values]
        slopes = [through_xnor(values[0], upstream[0]), upstream[1]]
        gradients = [tf.constant(slope, tf.float32) for slope in slopes]
        descend(sgd, gradients, variables, decay=decay, clip_norm=clip_norm, quantizers=quantizers)
        norm = math.sqrt(sum((one**2).sum() for one in upstream))
        factor = min(1.0, clip_norm / norm) if clip_norm else 1.0
        for i, slope in enumerate(slopes):
            slope = factor * slope + decay * values[i]
            velocities[i] = 0.9 * velocities[i] - 0.01 * slope
            values[i] = values[i] + velocities[i]
    for variable, value in zip(variables, values, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-4)


@pytest.mark.parametrize(("steps", "period", "fitting"), [(600, 500, 600), (900, 500, 450)])
def test_restarts_are_moved_so_that_training_ends_low(steps, period, fitting) -> None:
    rate = learning_rate("warm_restarts", PEAK, steps, period=period)
    assert float(rate(steps - 1)) < 1e-4 * PEAK
    for step in (0, 100, 440):
        expected = PEAK * 0.5 * (1 + np.cos(np.pi * (step % fitting) / fitting))
        assert float(rate(step)) == pytest.approx(expected, rel=1e-4)


def test_kernels_whose_gradient_is_amplified_are_those_of_binary_layers() -> None:
    architecture = larq_nas.Architecture.published("bnas_cifar").with_settings(cells=3, channels=4)
    model = architecture.build((8, 8, 3), 10)
    variables = model.trainable_variables
    found = dict(zip((v.name for v in variables), xnor_quantizers(model, variables), strict=True))
    for layer in model.layers:
        for weight in layer.trainable_weights:
            assert (found[weight.name] is not None) == isinstance(layer, BinaryConv2D)


def test_the_gradient_by_binary_weights_is_found_from_that_by_the_weights() -> None:
    """Beside TensorFlow's own, of a loss of the binary weights."""
    generator = np.random.default_rng(1)
    kernel = tf.Variable(generator.uniform(-1, 1, (3, 3, 4, 5)), dtype=tf.float32)
    weights = tf.constant(generator.normal(size=kernel.shape), tf.float32)
    for quantizer in (XnorSign(), XnorSign(amplified=True)):
        with tf.GradientTape(persistent=True) as tape:
            binary = quantizer(kernel)
            loss = tf.reduce_sum(weights * binary**3)
        expected, gradient = (tape.gradient(loss, one) for one in (binary, kernel))
        found = quantizer.upstream(kernel, gradient)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
