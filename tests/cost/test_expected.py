import numpy as np
import pytest
import tensorflow as tf
from conftest import PerOperation, quick, random_architecture

from larq_nas.cost import LATENCY, QUANTITIES, Expected, SpaceCosts
from larq_nas.cost.expected import kept_share
from larq_nas.errors import InputError
from larq_nas.spaces import Bats, Bnas, Darts, ResNet18, ResNet18Cifar, Space, Vgg11, VggSmall

SPACES: list[tuple[Space, tuple[int, int, int]]] = [
    (Bats(cells=3, channels=8, nodes=2), (16, 16, 3)),
    (Bats(cells=2, channels=12, groups=3, nodes=2, activation="prelu"), (8, 8, 1)),
    (Bnas(cells=3, channels=8, nodes=2), (8, 8, 3)),
    (Darts(cells=3, channels=8, nodes=2), (8, 8, 3)),
    (VggSmall(), (32, 32, 3)),
    (Vgg11(), (32, 32, 3)),
    (ResNet18(), (64, 64, 3)),
    (ResNet18Cifar(), (32, 32, 3)),
]


def one_hot(costs: SpaceCosts, values) -> dict[str, np.ndarray]:
    chosen, ratios = costs.decode(values)
    probabilities = {name: costs.choices[name].one_hot(pairs) for name, pairs in chosen.items()}
    for name, asked in costs.expansions.items():
        probabilities[name] = np.array([float(ratio == ratios[name]) for ratio in asked.ratios])
    return probabilities


def random_alphas(costs: SpaceCosts) -> dict[str, tf.Variable]:
    generator = np.random.default_rng(0)
    shapes = {name: (c.inputs, len(c.operations)) for name, c in costs.choices.items()}
    shapes |= {name: (len(asked.ratios),) for name, asked in costs.expansions.items()}
    return {
        name: tf.Variable(generator.normal(size=shape), dtype=tf.float64)
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize(("space", "shape"), quick(SPACES, 5))
def test_is_exact_where_choices_are_one_hot(space: Space, shape: tuple[int, int, int]) -> None:
    costs = SpaceCosts(space, shape, 10, PerOperation())
    expected = Expected(costs)
    for seed in range(2):
        values = random_architecture(space, seed, shape).choices
        found = expected(one_hot(costs, values))
        assert {name: float(found[name]) for name in costs.quantities} == costs.exact(values)


def test_latency_of_a_mean_width_lies_between_those_of_the_widths_next_to_it() -> None:
    space = VggSmall(ratios=(0.25, 0.5, 1.0))
    costs = SpaceCosts(space, (16, 16, 3), 10, PerOperation())
    expected = Expected(costs)
    name = next(iter(costs.expansions))
    ratios = dict.fromkeys(costs.expansions, 0.5)
    probabilities = {
        key: tf.constant(np.array(asked.ratios) == 0.5, tf.float64)
        for key, asked in costs.expansions.items()
    }
    mixed = tf.Variable([0.2, 0.6, 0.2], dtype=tf.float64)
    with tf.GradientTape() as tape:
        latency = expected({**probabilities, name: mixed})[LATENCY]
    low, high = (costs.exact({**ratios, name: ratio})[LATENCY] for ratio in (0.25, 1.0))
    assert low < float(latency) < high
    slopes = tape.gradient(latency, mixed).numpy()
    filters = np.array(costs.expansions[name].options)
    np.testing.assert_allclose(slopes, (high - low) / (filters[2] - filters[0]) * filters)


@pytest.mark.parametrize(("space", "shape"), quick(SPACES, 1))
def test_gradient_is_that_of_finite_differences(space: Space, shape: tuple[int, int, int]) -> None:
    costs = SpaceCosts(space, shape, 10)
    expected, alphas = Expected(costs), random_alphas(costs)

    def value(name: str) -> tf.Tensor:
        return expected({key: tf.nn.softmax(alpha) for key, alpha in alphas.items()})[name]

    for name in QUANTITIES:
        with tf.GradientTape() as tape:
            cost = value(name)
        gradients = tape.gradient(cost, alphas, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        for key, alpha in list(alphas.items())[:2]:
            at = (0,) * len(alpha.shape)
            step = np.zeros(alpha.shape)
            step[at] = 1e-4
            alpha.assign_add(step)
            above = float(value(name))
            alpha.assign_sub(2 * step)
            below = float(value(name))
            alpha.assign_add(step)
            slope = (above - below) / 2e-4
            scale = max(abs(float(cost)), 1.0)
            assert float(gradients[key][at]) == pytest.approx(slope, rel=1e-3, abs=1e-6 * scale)


@pytest.mark.parametrize(("space", "shape"), quick([SPACES[0], SPACES[-1]], 1))
def test_a_graph_computes_the_same(space: Space, shape: tuple[int, int, int]) -> None:
    costs = SpaceCosts(space, shape, 10)
    expected, alphas = Expected(costs), random_alphas(costs)
    probabilities = {name: tf.nn.softmax(alpha) for name, alpha in alphas.items()}
    eager = expected(probabilities)
    graph = tf.function(expected)(probabilities)
    for name in QUANTITIES:
        assert float(graph[name]) == pytest.approx(float(eager[name]), rel=1e-9)


def test_probabilities_of_another_shape_are_refused() -> None:
    costs = SpaceCosts(Vgg11(), (32, 32, 3), 10)
    with pytest.raises(InputError, match=r"of choice `conv1` .* \(6,\), but got none"):
        Expected(costs)({})


@pytest.mark.slow
def test_is_the_mean_over_sampled_networks_for_costs_that_add_up() -> None:
    """An operation for each of several tensors, drawn by its probability."""
    space, shape = Bats(cells=3, channels=8, nodes=1), (16, 16, 3)
    costs, generator = SpaceCosts(space, shape, 10), np.random.default_rng(1)
    probabilities = {}
    for name, choice in costs.choices.items():
        weights = generator.uniform(size=(choice.inputs, len(choice.operations)))
        weights[:, choice.operations.index("zero")] = 0
        probabilities[name] = weights / weights.sum(axis=1, keepdims=True)
    found = Expected(costs)(probabilities)["binary_macs"]
    drawn = []
    for _ in range(2000):
        chosen = {
            name: [
                (generator.choice(choice.operations, p=probabilities[name][i]), i)
                for i in range(choice.inputs)
            ]
            for name, choice in costs.choices.items()
        }
        drawn.append(sum(slope_of(costs, chosen).values()))
    assert float(found) == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / 2000**0.5)


def slope_of(costs: SpaceCosts, chosen, _cache: dict = {}) -> dict[str, float]:  # noqa: B006
    """The binary MACs of a network, remembered: there are only so many."""
    key = repr(chosen)
    if key not in _cache:
        _cache[key] = {"binary_macs": costs.of(chosen)["binary_macs"]}
    return _cache[key]


@pytest.mark.parametrize(
    ("strengths", "keep", "shares"),
    [
        ([0.3, 0.3, 0.3, 0.3], 2, [0.5, 0.5, 0.5, 0.5]),
        ([1.0, 1.0, 0.0, 0.0], 2, [1, 1, 0, 0]),
        ([0.9, 0.1, 0.8], 2, [1, 0, 1]),
        ([0.5, 0.2], 2, [1, 1]),
        ([0.0, 0.0, 0.0], 1, [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_kept_share(strengths: list[float], keep: int, shares: list[float]) -> None:
    found = kept_share(tf.constant(strengths, tf.float64), keep)
    np.testing.assert_allclose(found, shares, atol=1e-6)


def test_kept_share_always_sums_to_what_is_kept() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        inputs = int(generator.integers(2, 7))
        keep = int(generator.integers(1, inputs + 1))
        shares = kept_share(tf.constant(generator.uniform(size=inputs)), keep).numpy()
        assert shares.sum() == pytest.approx(keep, abs=1e-6)
        assert shares.min() >= 0
        assert shares.max() <= 1 + 1e-9
