import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from larq_nas.quantizers import LearnedStep, StandardizedSign, XnorSign, quantized_scope

SHAPE = (3, 3, 4, 5)


@pytest.fixture
def kernel() -> np.ndarray:
    """Weights on both sides of the clipping threshold."""
    return np.random.default_rng(0).normal(0, 0.8, SHAPE).astype("float32")


def test_weights_are_signs_times_the_mean_magnitude_of_the_filter(kernel: np.ndarray) -> None:
    binary = XnorSign()(tf.constant(kernel)).numpy()
    for filter_ in range(SHAPE[-1]):
        alpha = np.abs(kernel[..., filter_]).mean()
        expected = np.where(kernel[..., filter_] >= 0, alpha, -alpha)
        np.testing.assert_allclose(binary[..., filter_], expected, rtol=1e-6)


@pytest.mark.parametrize("amplified", [False, True])
def test_gradient_is_that_of_xnor_net(kernel: np.ndarray, amplified: bool) -> None:
    upstream = np.random.default_rng(1).normal(size=SHAPE).astype("float32")
    variable = tf.Variable(kernel)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(XnorSign(amplified)(variable) * upstream)
    found = tape.gradient(loss, variable).numpy()
    count, inputs = 3 * 3 * 4, 4
    for filter_ in range(SHAPE[-1]):
        weights, slope = kernel[..., filter_], upstream[..., filter_]
        through_sign = np.abs(weights).mean() * (np.abs(weights) <= 1) * slope
        through_scale = np.sign(weights) / count * np.sum(np.sign(weights) * slope)
        factor = count * (1 - 1 / inputs) if amplified else 1
        expected = factor * (through_sign + through_scale)
        np.testing.assert_allclose(found[..., filter_], expected, rtol=1e-4, atol=1e-5)


def test_the_scale_alone_is_differentiated_exactly(kernel: np.ndarray) -> None:
    """Weights beyond the threshold pass the scale's gradient only: compared with differences."""
    kernel = 2 * np.sign(kernel) + kernel
    upstream = np.random.default_rng(1).normal(size=SHAPE).astype("float32")

    def loss(weights: np.ndarray) -> float:
        return float(tf.reduce_sum(XnorSign()(tf.constant(weights)) * upstream))

    variable = tf.Variable(kernel)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(XnorSign()(variable) * upstream)
    found = tape.gradient(value, variable).numpy()
    for index in ((0, 0, 0, 0), (1, 2, 3, 4), (2, 1, 0, 2)):
        step = np.zeros(SHAPE, "float32")
        step[index] = 0.25
        slope = (loss(kernel + step) - loss(kernel - step)) / 0.5
        assert found[index] == pytest.approx(slope, rel=1e-2, abs=1e-3)


def test_amplified_sgd_flips_more_signs() -> None:
    """The reason there is one: the gradient shrinks with the weights' own size."""
    kernel = np.random.default_rng(0).normal(0, 0.05, (3, 3, 32, 8)).astype("float32")
    images = np.random.default_rng(1).normal(size=(16, 8, 8, 32)).astype("float32")
    flipped = {}
    for amplified in (False, True):
        layer = lq.layers.QuantConv2D(8, 3, kernel_quantizer=XnorSign(amplified))
        layer.build(images.shape)
        layer.kernel.assign(kernel)
        optimizer = tf.keras.optimizers.SGD(0.025, momentum=0.9)
        for _ in range(10):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((layer(images) - 1) ** 2)
            optimizer.minimize(loss, layer.trainable_weights, tape=tape)
        flipped[amplified] = np.mean((layer.kernel.numpy() >= 0) != (kernel >= 0))
    assert flipped[True] > 3 * flipped[False]


def test_settings_are_kept() -> None:
    again = XnorSign.from_config(XnorSign(amplified=True).get_config())
    assert again.amplified
    assert again.name == "xnor_sign"


@pytest.mark.parametrize("name", ["model.h5", "model.keras", "saved"])
@pytest.mark.parametrize("quantizer", [XnorSign(amplified=True), StandardizedSign(), LearnedStep()])
def test_files_of_all_formats_can_be_read_back(tmp_path, quantizer, name: str) -> None:
    x = tf.keras.Input((4, 4, 3))
    inputs = quantizer if isinstance(quantizer, LearnedStep) else "ste_sign"
    kernel = "ste_sign" if isinstance(quantizer, LearnedStep) else quantizer
    layer = lq.layers.QuantConv2D(2, 3, input_quantizer=inputs, kernel_quantizer=kernel)
    model = tf.keras.Model(x, layer(x))
    model.save(tmp_path / name)
    again = tf.keras.models.load_model(tmp_path / name)
    images = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32")
    np.testing.assert_array_equal(again(images), model(images))


def test_the_learned_step_rounds_and_learns_by_equation_2() -> None:
    """Its gradient is LSQ's: rounding passes it, and it is divided by the root of the features."""
    quantizer = LearnedStep(0.7)
    inputs = np.random.default_rng(0).normal(0.4, 0.8, (5, 3, 4, 6)).astype("float32")
    upstream = np.random.default_rng(1).normal(size=inputs.shape).astype("float32")
    x = tf.Variable(inputs)
    with tf.GradientTape() as tape:
        y = quantizer(x)
        total = tf.reduce_sum(y * upstream)
    by_x, by_step = tape.gradient(total, [x, quantizer.step])
    share = np.clip(inputs / 0.7, 0, 1)
    np.testing.assert_allclose(y, 0.7 * np.round(share), rtol=1e-6)
    inside = (inputs > 0) & (inputs < 0.7)
    np.testing.assert_allclose(by_x, upstream * inside, atol=1e-6)
    slopes = np.where(inside, np.round(share) - share, np.round(share))
    expected = (upstream * slopes).sum() / np.sqrt(3 * 4 * 6)
    np.testing.assert_allclose(by_step, expected, rtol=1e-4)


def test_an_error_leaves_no_scope_switched_on() -> None:
    """Larq's own scope stays on, in a layer that fails too, and what is trained then are signs."""
    layer = lq.layers.QuantConv2D(4, 3, kernel_quantizer="ste_sign")
    layer.build((None, 8, 8, 3))
    with pytest.raises(tf.errors.InvalidArgumentError), quantized_scope(None):
        layer(tf.zeros((1, 2, 2, 3)))
    assert not lq.context.should_quantize()
    with quantized_scope():
        assert lq.context.should_quantize()
    assert not lq.context.should_quantize()
