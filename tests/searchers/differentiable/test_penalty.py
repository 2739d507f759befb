import numpy as np
import pytest
import tensorflow as tf

from larq_nas.cost import Budget, Expected, Limits, SpaceCosts
from larq_nas.layers import BINARY_SEARCH, SEARCH, building_in
from larq_nas.searchers.differentiable.derivation import derive, scores_of
from larq_nas.searchers.differentiable.model import BudgetPenalty
from larq_nas.spaces import Bats, Bnas
from larq_nas.supernet.relax import Relax

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
    budget = Budget({"binary_macs": int(found["binary_macs"] / 3), "macs": 10**9})
    penalty = BudgetPenalty(Limits(costs, budget), choose.mixtures, weight=2.0)
    by_hand = 2.0 * (found["binary_macs"] / budget.limits["binary_macs"] - 1)
    assert float(penalty()) == pytest.approx(by_hand, rel=1e-5)


def test_descending_it_makes_the_supernet_cheaper_until_it_fits(
    costs: SpaceCosts, choose: Relax
) -> None:
    before = expected(costs, choose)["binary_macs"]
    budget = Budget({"binary_macs": int(before / 2)})
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


@pytest.mark.slow
def test_is_about_a_network_that_is_not_zero_on_every_path() -> None:
    """Alphas that prefer zero everywhere derive another network, and pay for that one."""
    space = Bnas(cells=3, channels=8, nodes=2, skips=False)
    costs = SpaceCosts(space, (8, 8, 1), 10)
    choose = Relax()
    with building_in(BINARY_SEARCH):
        space.build(choose, (8, 8, 1), 10)
    for mixture in choose.mixtures.values():
        mixture.alpha.assign(
            np.where(np.arange(7) == space.operations.index("zero"), 9.0, 0.0)
            + np.zeros(mixture.alpha.shape)
        )
    limits = Limits(costs, Budget({"binary_macs": 50_000}))
    penalty = BudgetPenalty(limits, choose.mixtures, weight=1.0)
    with pytest.warns(UserWarning, match="Every path of cell"):
        derived = derive(choose.choices, choose.cells, scores_of(choose))
    excess = costs.of(derived)["binary_macs"] / 50_000 - 1
    assert excess > 0
    assert float(penalty()) > 0


@pytest.mark.slow
def test_a_weakened_zero_counts_as_much_as_when_it_is_derived() -> None:
    space = Bnas(cells=3, channels=8, nodes=2)
    costs = SpaceCosts(space, (8, 8, 1), 10)
    choose = Relax()
    with building_in(BINARY_SEARCH):
        space.build(choose, (8, 8, 1), 10)
    place = [space.operations.index(name) for name in ("zero", "conv_3x3")]
    for mixture in choose.mixtures.values():
        alpha = np.full(mixture.alpha.shape, -30.0)
        alpha[:, place] = np.log([0.6, 0.4])
        mixture.alpha.assign(alpha)
    limits = Limits(costs, Budget({"binary_macs": 10_000}))
    paid = {}
    for gamma in (1.0, 1e6):
        paid[gamma] = float(BudgetPenalty(limits, choose.mixtures, 1.0, gamma)())
    derived = derive(choose.choices, choose.cells, scores_of(choose, 1e6))
    needed = costs.of(derived)["binary_macs"] / 10_000 - 1
    assert paid[1e6] == pytest.approx(needed, rel=0.02)
    assert paid[1.0] < 0.8 * needed
