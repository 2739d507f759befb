import dataclasses
import re
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from conftest import PerOperation, quick

from larq_nas.architecture import Architecture
from larq_nas.choices import all_alive
from larq_nas.cost import COSTS, Budget, SpaceCosts, require_feasible, strongest_within
from larq_nas.cost.budget import require_light, required
from larq_nas.errors import InputError
from larq_nas.spaces import Bats, Bnas, Darts, Vgg11


@pytest.mark.parametrize(
    ("name", "text", "number"),
    [
        ("weight_bytes", "64KB", 64_000),
        ("weight_bytes", "64 kb", 64_000),
        ("weight_bytes", "64KiB", 65_536),
        ("flatbuffer_bytes", "1.5MB", 1_500_000),
        ("flatbuffer_bytes", 1e3, 1000),
        ("activation_bytes", "300", 300),
        ("activation_bytes", np.int64(300), 300),
        ("macs", "1.5M", 1_500_000),
        ("parameters", "20K", 20_000),
        ("binary_macs", "2e9", 2_000_000_000),
        ("latency", "5ms", 5000),
        ("latency", "0.8 ms", 800),
        ("latency", "800us", 800),
        ("latency", "2s", 2_000_000),
        ("latency", 5000, 5000),
        ("latency", "800 µs", 800),
        ("latency", "1,500us", 1500),
        ("weight_bytes", "1,000KB", 1_000_000),
        ("weight_bytes", "1,234,567", 1_234_567),
        ("weight_bytes", ".5MB", 500_000),
    ],
)
def test_units(name: str, text: float | str, number: int) -> None:
    assert Budget.parse({name: text}).limits == {name: number}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("weight_bytes", "64 potatoes"),
        ("weight_bytes", "-3KB"),
        ("weight_bytes", "1.2.3KB"),
        ("weight_bytes", "0"),
        ("weight_bytes", "KB"),
        ("weight_bytes", ""),
        ("weight_bytes", float("nan")),
        ("weight_bytes", float("inf")),
        ("weight_bytes", True),
        ("weight_bytes", [3]),
        ("weight_bytes", "64KB/s"),
        ("macs", "1.5m"),
        ("weight_bytes", 10**400),
        ("weight_bytes", "1iB"),
        ("macs", "5MB"),
        ("latency", "5"),
        ("latency", "5 minutes"),
        ("latency", "5MS"),
        ("latency", "1.2.3ms"),
        ("latency", "0ms"),
        ("latency", True),
    ],
)
def test_malformed_limits_are_refused(name: str, text: object) -> None:
    with pytest.raises(InputError, match=f"`{name}` must be .*a number of"):
        Budget.parse({name: text})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("6KB,activation_bytes=300KB", "give each limit on its own"),
        ("64KB,macs=1M", "give each limit on its own"),
        ("x=5KB", "give each limit on its own"),
        ("64KB = 3MB", "give each limit on its own"),
        ("6,4KB", "decimals follow a point"),
        ("0,5MB", "decimals follow a point"),
        ("1,5 MB", "decimals follow a point"),
        ("64.000,0", "decimals follow a point"),
        ("1,0000KB", "decimals follow a point"),
        ("64KB 3MB", ""),
        ("about 64KB", ""),
        ("$64K", ""),
    ],
)
def test_no_text_is_read_as_another_limit(text: str, hint: str) -> None:
    with pytest.raises(InputError, match=f"must be text like .*{hint}"):
        Budget.parse({"flatbuffer_bytes": text})
    with pytest.raises(InputError, match=f"must be text like .*{hint}"):
        Budget.parse({"latency": text.replace("KB", "ms").replace("MB", "s")})


@pytest.mark.parametrize("budget", ["64KB", 3, ["macs"]])
def test_a_budget_is_limits_by_name(budget: Any) -> None:
    with pytest.raises(InputError, match="`budget` must be limits by name, such as"):
        Budget.parse(budget)
    assert not Budget.parse(None)
    assert Budget.parse(Budget({"macs": 3})) == Budget({"macs": 3})


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="1 or more"):
        Budget({"weight_bytes": 0})


def test_unknown_limits_are_refused() -> None:
    with pytest.raises(
        InputError, match="Unknown budget `weight_byts`; did you mean `weight_bytes`"
    ):
        Budget.parse({"weight_byts": 3})
    for said, meant in {
        "Flash": "flatbuffer_bytes",
        "ram": "activation_bytes",
        "ms": "latency",
    }.items():
        with pytest.raises(InputError, match=f"Unknown budget `{said}`; did you mean `{meant}`"):
            Budget.parse({said: 3})


LAYERS = tf.keras.layers
SPACE = Bats(
    cells=3, channels=8, nodes=1, operations=("group_conv_3x3", "identity", "max_pool_3x3", "zero")
)
SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def costs() -> SpaceCosts:
    return SpaceCosts(SPACE, SHAPE, 10, PerOperation())


def every_network(costs: SpaceCosts) -> list[dict]:
    """All networks of a space, by brute force."""
    answers = []
    for choice in costs.choices.values():
        kept = combinations(range(choice.inputs), min(choice.keep, choice.inputs))
        answers.append(
            [
                list(zip(operations, inputs, strict=True))
                for inputs in kept
                for operations in product(choice.eligible, repeat=len(inputs))
            ]
        )
    return [dict(zip(costs.choices, answer, strict=True)) for answer in product(*answers)]


def random_scores(costs: SpaceCosts, seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        name: generator.dirichlet(np.ones(len(choice.operations)), choice.inputs)
        for name, choice in costs.choices.items()
    }


def score(costs: SpaceCosts, scores: dict[str, np.ndarray], chosen) -> float:
    return sum(
        float(scores[name][index, costs.choices[name].operations.index(operation)])
        for name, pairs in chosen.items()
        for operation, index in pairs
    )


@pytest.mark.parametrize("name", quick(COSTS, 0, 6))
def test_the_best_within_is_that_of_brute_force(costs: SpaceCosts, name: str) -> None:
    networks = every_network(costs)
    found = [(chosen, costs.of(chosen)) for chosen in networks]
    reached = 0
    for seed in range(4):
        scores = random_scores(costs, seed)
        needs = sorted({Budget({name: 10**9}).use(cost)[name] for _, cost in found})
        limit = int(needs[len(needs) // 2] * 10**9) + 1
        budget = Budget({name: limit})
        best = max(score(costs, scores, n) for n, cost in found if not budget.excess(cost))
        within = strongest_within(costs, scores, budget)
        assert not budget.excess(costs.of(within))
        reached += score(costs, scores, within) >= 0.95 * best
    assert reached >= 3


@pytest.mark.slow
def test_the_best_within_is_that_of_brute_force_where_zero_is_kept() -> None:
    """Of the networks whose cells are not zero on every path; tight limits leave few of them."""
    space = Bnas(cells=2, channels=8, nodes=2, operations=("zero", "max_pool_3x3", "conv_3x3"))
    costs = SpaceCosts(space, (8, 8, 3), 10)
    networks = [n for n in every_network(costs) if all_alive(costs.cells, costs.choices, n)]
    found = [(chosen, costs.of(chosen)["binary_macs"]) for chosen in networks]
    reached = 0
    for seed in range(8):
        scores = random_scores(costs, seed)
        limit = int(np.quantile([cost for _, cost in found], 0.01 + 0.1 * seed))
        within = strongest_within(costs, scores, Budget({"binary_macs": limit}))
        assert all_alive(costs.cells, costs.choices, within)
        assert costs.of(within)["binary_macs"] <= limit
        best = max(score(costs, scores, chosen) for chosen, cost in found if cost <= limit)
        reached += score(costs, scores, within) >= best - 1e-9
    assert reached >= 7


@pytest.mark.parametrize("name", quick(COSTS, 0, 2))
def test_what_nothing_can_meet_is_refused_with_the_smallest(costs: SpaceCosts, name: str) -> None:
    used = [Budget({name: 10**9}).use(costs.of(chosen))[name] for chosen in every_network(costs)]
    smallest = int(np.ceil(min(used) * 10**9 - 1e-3))
    budget = Budget({name: smallest})
    assert not budget.excess(costs.of(require_feasible(costs, budget)))
    with pytest.raises(InputError, match=f"`{name}` must be at least {smallest:,}"):
        require_feasible(costs, Budget({name: smallest - 1}))


def held_by_two(choose, input_shape, classes) -> tf.keras.Model:
    """Two operations that each hold the peak: changing one alone saves nothing."""
    x = images = tf.keras.Input(input_shape)
    operations = {
        "wide": lambda x, name: LAYERS.Conv2D(8, 1, name=f"{name}_b")(
            LAYERS.Conv2D(64, 1, name=f"{name}_a")(x)
        ),
        "thin": lambda x, name: LAYERS.Conv2D(8, 1, name=name)(x),
    }
    for block in ("one", "other"):
        x = choose.op(block, x, operations)
    return tf.keras.Model(images, LAYERS.Dense(classes)(LAYERS.GlobalAveragePooling2D()(x)))


def test_memory_that_two_operations_hold_is_found_to_be_avoidable() -> None:
    costs = SpaceCosts(held_by_two, (8, 8, 8), 3)
    budget = Budget({"activation_bytes": 8000})
    thin = {"one": [("thin", 0)], "other": [("thin", 0)]}
    assert require_feasible(costs, budget) == thin
    even = {name: np.full((1, 2), 0.5) for name in costs.choices}
    assert strongest_within(costs, even, budget) == thin


def test_the_best_within_is_of_operations_alone() -> None:
    costs = SpaceCosts(Vgg11(), (32, 32, 3), 10)
    with pytest.raises(InputError, match="chooses widths too"):
        strongest_within(costs, {}, Budget({"macs": 10**9}))


def test_all_limits_that_cannot_be_met_are_named(costs: SpaceCosts) -> None:
    with pytest.raises(InputError, match=r"`weight_bytes` must be .*; `macs` must be at least"):
        require_feasible(costs, Budget({"weight_bytes": 1, "macs": 1, "parameters": 10**9}))


def test_limits_that_exclude_each_other_are_refused() -> None:
    costs = SpaceCosts(Bats(cells=2, channels=8, nodes=1), SHAPE, 10)
    light = Budget.parse({"weight_bytes": 1, "macs": "1G"})
    with pytest.raises(InputError, match="`weight_bytes` must be at least"):
        require_feasible(costs, light)


def test_the_lightest_of_a_space_of_widths_is_the_narrowest() -> None:
    costs = SpaceCosts(Vgg11(), (32, 32, 3), 10)
    narrow = costs.exact(dict.fromkeys(costs.expansions, 0.25))["parameters"]
    require_feasible(costs, Budget({"parameters": narrow}))
    with pytest.raises(InputError, match=f"at least {narrow:,}"):
        require_feasible(costs, Budget({"parameters": narrow - 1}))


@pytest.mark.parametrize("space", quick([Bnas(), Bats(), Darts(precision="binary")]))
def test_no_network_is_lighter_than_those_without_weights(space: Any) -> None:
    """What lets a limit be refused before all of the space is built."""
    small = dataclasses.replace(space, cells=3, channels=4, nodes=1)
    light = SpaceCosts(small, (16, 16, 3), 10, light=True)
    full = SpaceCosts(small, (16, 16, 3), 10)
    drawn = [Architecture.random(small, (16, 16, 3), 10, seed) for seed in range(10)]
    found = full.exact_many([one.choices for one in drawn])
    for name in ("binary_macs", "flatbuffer_bytes"):
        lightest = light.of(require_feasible(light, Budget({name: 10**9})))
        with pytest.raises(InputError) as refusal:
            require_light(small, (16, 16, 3), 10, Budget({name: 1}))
        least = int(re.search(r"at least ([\d,]+)", str(refusal.value))[1].replace(",", ""))
        assert least <= required(name, lightest)
        assert least <= min(required(name, {name: cost}) for cost in found[name])
        # What such a network keeps to is not refused.
        require_light(small, (16, 16, 3), 10, Budget({name: least}))
