import numpy as np
import pytest
import tensorflow as tf

from larq_nas.layers import SEARCH, building_in
from larq_nas.searchers.differentiable.model import BilevelModel, mean_entropy, mean_max_probability
from larq_nas.spaces import Bats
from larq_nas.supernet.relax import Relax

RATE, ARCHITECTURE_RATE = 1e-2, 2e-2
DECAY, ARCHITECTURE_DECAY = 0.3, 0.5


@pytest.fixture
def model() -> BilevelModel:
    tf.keras.utils.set_random_seed(1)
    choose = Relax(0.2)
    with building_in(SEARCH):
        supernet = Bats(cells=1, channels=4, nodes=2).build(choose, (8, 8, 1), 3)
    model = BilevelModel(supernet, choose.mixtures, DECAY, ARCHITECTURE_DECAY)
    model.compile(
        tf.keras.optimizers.Adam(RATE), tf.keras.optimizers.Adam(ARCHITECTURE_RATE, beta_1=0.5)
    )
    return model


def batch(seed: int) -> tuple[tf.Tensor, tf.Tensor]:
    generator = np.random.default_rng(seed)
    images = generator.normal(size=(16, 8, 8, 1)).astype("float32")
    return tf.constant(images), tf.constant(generator.integers(0, 3, 16))


def gradients(model, images, labels, variables) -> list[np.ndarray]:
    """Gradient of the cross-entropy, written out."""
    with tf.GradientTape() as tape:
        log_probabilities = tf.nn.log_softmax(model(images, training=True))
        picked = tf.gather(log_probabilities, labels, batch_dims=1)
        loss = -tf.reduce_mean(picked)
    return [gradient.numpy() for gradient in tape.gradient(loss, variables)]


def first_adam_step(value: np.ndarray, gradient: np.ndarray, rate: float) -> np.ndarray:
    """Adam's first step: the moments, corrected, are the gradient and its square.

    Keras adds epsilon before it corrects the second moment by 1 - 0.999.
    """
    return value - rate * gradient / (np.abs(gradient) + 1e-7 / np.sqrt(1 - 0.999))


def values(variables) -> list[np.ndarray]:
    return [variable.numpy() for variable in variables]


def test_a_step_is_first_order_bilevel_with_l2(model: BilevelModel) -> None:
    """Alphas move on the second batch first, then weights on the first at the new alphas."""
    weight_batch, architecture_batch = batch(0), batch(1)
    before = model.get_weights()
    alphas = values(model.alphas)
    slopes = gradients(model, *architecture_batch, model.alphas)
    new_alphas = [
        first_adam_step(a, g + ARCHITECTURE_DECAY * a, ARCHITECTURE_RATE)
        for a, g in zip(alphas, slopes, strict=True)
    ]
    for alpha, value in zip(model.alphas, new_alphas, strict=True):
        alpha.assign(value)
    weights = values(model.ordinary_weights)
    slopes = gradients(model, *weight_batch, model.ordinary_weights)
    new_weights = [
        first_adam_step(w, g + DECAY * w, RATE) for w, g in zip(weights, slopes, strict=True)
    ]
    model.set_weights(before)
    model.searching.assign(True)
    model.train_step((weight_batch, architecture_batch))
    for got, expected in zip(values(model.alphas), new_alphas, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)
    for got, expected, weight in zip(
        values(model.ordinary_weights), new_weights, model.ordinary_weights, strict=True
    ):
        np.testing.assert_allclose(got, expected, atol=2e-4, err_msg=weight.name)


def test_weights_alone_leave_alphas(model: BilevelModel) -> None:
    alphas, weights = values(model.alphas), values(model.ordinary_weights)
    logs = model.train_step((batch(0), batch(1)))
    np.testing.assert_array_equal(values(model.alphas)[0], alphas[0])
    assert not np.allclose(values(model.ordinary_weights)[0], weights[0])
    assert float(logs["search_loss"]) == 0.0


def test_entropy_and_max_probability_written_out(model: BilevelModel) -> None:
    generator = np.random.default_rng(0)
    edges = []
    for alpha in model.alphas:
        alpha.assign(generator.normal(size=alpha.shape))
        p = np.exp(alpha.numpy() / 0.2)
        edges.append(p / p.sum(axis=1, keepdims=True))
    p = np.concatenate(edges)
    np.testing.assert_allclose(
        mean_entropy(model.mixtures), np.mean(-np.sum(p * np.log(p), axis=1)), rtol=1e-4
    )
    largest = mean_max_probability(model.mixtures)
    np.testing.assert_allclose(largest, np.mean(p.max(axis=1)), rtol=1e-5)


def test_gradients_of_both_levels_are_held_at_their_norms(model: BilevelModel) -> None:
    """Clipped first and decayed then, as P-DARTS has it; SGD shows the gradient itself."""
    weight_batch, architecture_batch = batch(0), batch(1)
    model.compile(tf.keras.optimizers.SGD(1.0), tf.keras.optimizers.SGD(1.0))
    model.clip_norm, model.architecture_clip_norm = 0.01, 1e-5
    before = model.get_weights()

    def descended(variables, batch, decay: float, norm: float) -> list[np.ndarray]:
        slopes = gradients(model, *batch, variables)
        length = np.sqrt(sum(float((g**2).sum()) for g in slopes))
        assert length > norm
        now = values(variables)
        return [w - g * norm / length - decay * w for w, g in zip(now, slopes, strict=True)]

    alphas = descended(model.alphas, architecture_batch, ARCHITECTURE_DECAY, 1e-5)
    for alpha, value in zip(model.alphas, alphas, strict=True):
        alpha.assign(value)
    weights = descended(model.ordinary_weights, weight_batch, DECAY, 0.01)
    model.set_weights(before)
    model.searching.assign(True)
    model.train_step((weight_batch, architecture_batch))
    for got, expected in zip(values(model.alphas), alphas, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-7)
    for got, expected in zip(values(model.ordinary_weights), weights, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)
