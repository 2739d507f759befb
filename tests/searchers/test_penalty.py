import numpy as np
import pytest
import tensorflow as tf

from larq_nas.choosers import Relax
from larq_nas.cost import Budget, Expected, Limits, SpaceCosts
from larq_nas.layers import SEARCH, building_in
from larq_nas.searchers.penalty import BudgetPenalty
from larq_nas.spaces import Bats

SPACE = Bats(cells=2, channels=8, nodes=2)


@pytest.fixture(scope="module")
def costs() -> SpaceCosts:
    return SpaceCosts(SPACE, (8, 8, 1), 10)


@pytest.fixture
def choose() -> Relax:
    tf.keras.utils.set_random_seed(0)
    choose = Relax(0.2)
    with building_in(SEARCH):
        SPACE.build(choose, (8, 8, 1), 10)
    return choose


def expected(costs: SpaceCosts, choose: Relax) -> dict[str, float]:
    found = Expected(costs)({n: m.probabilities for n, m in choose.mixtures.items()})
    return {name: float(cost) for name, cost in found.items()}


def test_is_what_the_expected_costs_exceed_the_limits_by(costs: SpaceCosts, choose: Relax) -> None:
    found = expected(costs, choose)
    budget = Budget({"max_binary_macs": int(found["binary_macs"] / 3), "max_macs": 10**9})
    penalty = BudgetPenalty(Limits(costs, budget), choose.mixtures, weight=2.0)
    by_hand = 2.0 * (found["binary_macs"] / budget.limits["max_binary_macs"] - 1)
    assert float(penalty()) == pytest.approx(by_hand, rel=1e-5)


def test_descending_it_makes_the_supernet_cheaper_until_it_fits(
    costs: SpaceCosts, choose: Relax
) -> None:
    before = expected(costs, choose)["binary_macs"]
    budget = Budget({"max_binary_macs": int(before / 2)})
    penalty = BudgetPenalty(Limits(costs, budget), choose.mixtures, weight=1.0)
    optimizer = tf.keras.optimizers.Adam(0.05)
    alphas = [mixture.alpha for mixture in choose.mixtures.values()]

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = penalty()
        optimizer.apply_gradients(zip(tape.gradient(loss, alphas), alphas, strict=True))
        return loss

    for _ in range(10):
        penalty.begin_epoch(0)
        losses = [float(step()) for _ in range(10)]
    assert losses[-1] == 0
    assert expected(costs, choose)["binary_macs"] <= before / 2
    assert np.isfinite([alpha.numpy() for alpha in alphas[:1]]).all()
