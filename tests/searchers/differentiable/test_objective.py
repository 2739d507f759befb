import numpy as np
import pytest
import tensorflow as tf
from conftest import quick

from larq_nas.layers import BINARY_SEARCH, building_in
from larq_nas.searchers.differentiable.model import BilevelModel, Diversity
from larq_nas.searchers.differentiable.model import mean_entropy as found_entropy
from larq_nas.spaces import Bnas
from larq_nas.supernet.relax import Relax

TAU = 7.7


@pytest.fixture
def choose() -> Relax:
    """Both kinds of cells, twice each kind at least, with alphas far from even."""
    tf.keras.utils.set_random_seed(1)
    choose = Relax()
    with building_in(BINARY_SEARCH):
        choose.model = Bnas(cells=4, channels=4, nodes=2).build(choose, (8, 8, 1), 3)
    generator = np.random.default_rng(0)
    for mixture in choose.mixtures.values():
        mixture.alpha.assign(generator.normal(size=mixture.alpha.shape))
    return choose


def mean_entropy(alphas: list[np.ndarray]) -> float:
    """The mean over the rows of all matrices, each edge counted once."""
    rows = np.concatenate(alphas).astype("float64")
    p = np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True)
    return float(-(p * np.log(p)).sum(axis=1).mean())


def slope(alphas: list[np.ndarray]) -> list[np.ndarray]:
    """Derivative of the mean entropy: -p (log p + H) for each edge, over their number."""
    edges = sum(len(alpha) for alpha in alphas)
    slopes = []
    for alpha in alphas:
        p = np.exp(alpha) / np.exp(alpha).sum(axis=1, keepdims=True)
        entropy = -(p * np.log(p)).sum(axis=1, keepdims=True)
        slopes.append(-p * (np.log(p) + entropy) / edges)
    return slopes


def values(choose: Relax) -> list[np.ndarray]:
    return [mixture.alpha.numpy() for mixture in choose.mixtures.values()]


def test_every_edge_of_both_kinds_of_cells_counts_once(choose: Relax) -> None:
    """Two nodes: 2 + 3 edges in a kind of cell, whatever the number of cells."""
    found = float(found_entropy(list(choose.mixtures.values())))
    assert sum(map(len, values(choose))) == 10
    assert found == pytest.approx(mean_entropy(values(choose)), rel=1e-5)


@pytest.mark.parametrize(("weight", "epoch"), quick([(1.0, 0), (1.0, 7), (0.25, 49)], 1))
def test_equation_2(choose: Relax, weight: float, epoch: int) -> None:
    term = Diversity(list(choose.mixtures.values()), weight, TAU)
    term.begin_epoch(epoch)
    variables = [mixture.alpha for mixture in choose.mixtures.values()]
    with tf.GradientTape() as tape:
        value = term()
    factor = weight * np.exp(-epoch / TAU)
    assert float(value) == pytest.approx(-factor * mean_entropy(values(choose)), rel=1e-5)
    for found, expected in zip(tape.gradient(value, variables), slope(values(choose)), strict=True):
        np.testing.assert_allclose(found, -factor * expected, rtol=1e-4, atol=1e-7)


def test_temperature_is_that_of_the_choice() -> None:
    choose = Relax(0.5)
    Bnas(cells=1, channels=4, nodes=1).build(choose, (8, 8, 1), 3)
    (mixture,) = choose.mixtures.values()
    mixture.alpha.assign(np.random.default_rng(0).normal(size=mixture.alpha.shape))
    found = float(found_entropy([mixture]))
    assert found == pytest.approx(mean_entropy([mixture.alpha.numpy() / 0.5]), rel=1e-5)


@pytest.mark.slow
def test_it_is_part_of_the_step_of_the_alphas_and_of_that_alone(choose: Relax) -> None:
    """With plain SGD of rate 1, the two steps differ by the gradient of the term."""
    images = tf.random.stateless_normal((8, 8, 8, 1), (0, 0))
    batch = images, tf.range(8) % 3
    start = choose.model.get_weights()
    after = {}
    for weight in (0.0, 2.0):
        choose.model.set_weights(start)
        terms = {"diversity": Diversity(list(choose.mixtures.values()), weight, TAU)}
        model = BilevelModel(choose.model, choose.mixtures, 0.0, 0.0, terms)
        model.compile(tf.keras.optimizers.SGD(0.0), tf.keras.optimizers.SGD(1.0))
        terms["diversity"].begin_epoch(3)
        model.searching.assign(True)
        logs = model.train_step((batch, batch))
        after[weight] = values(choose)
    choose.model.set_weights(start)
    assert float(logs["diversity"]) == pytest.approx(
        -2 * np.exp(-3 / TAU) * mean_entropy(values(choose)), rel=1e-4
    )
    for plain, diverse, expected in zip(*after.values(), slope(values(choose)), strict=True):
        moved = 2 * np.exp(-3 / TAU) * expected
        np.testing.assert_allclose(diverse - plain, moved, atol=1e-5)
