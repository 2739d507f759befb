"""Spaces that ask every kind of question: what their networks cost, and which keep to a budget."""

import gc
import itertools
import math
import random
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest
import tensorflow as tf
from conftest import PerOperation, randomize
from test_examples import example

from larq_nas.choices import Choice, Expansion
from larq_nas.cost import QUANTITIES, Budget, Expected, Limits, SpaceCosts, profile
from larq_nas.cost.budget import required
from larq_nas.cost.profile import read_structure
from larq_nas.errors import InputError
from larq_nas.latency.signature import predicted
from larq_nas.latency.table import operations_of, plan
from larq_nas.layers import classifier, sign_conv, stem
from larq_nas.spaces import Chooser
from larq_nas.training.loop import forgetting_graphs

SHAPE, CLASSES = (8, 8, 1), 10
joint_space = example("joint_space").joint_space


@pytest.fixture(scope="module")
def joint() -> SpaceCosts:
    return SpaceCosts(joint_space, SHAPE, CLASSES)


def random_values(space: Any, number: int) -> list[dict[str, Any]]:
    return [
        larq_nas.Architecture.random(space, SHAPE, CLASSES, seed).choices for seed in range(number)
    ]


def network(space: Any, values: dict[str, Any]) -> tf.keras.Model:
    return larq_nas.Architecture(space.__name__, {}, values).build(SHAPE, CLASSES, space)


def test_the_space_of_the_docs_has_millions_of_networks(joint: SpaceCosts) -> None:
    widths = math.prod(len(one.parameters()[name]) for name, one in joint.expansions.items())
    rows = [sum(2**depth for depth in (1, 2, 3, 4))] * 3
    transitions = [2, 2]
    assert widths * math.prod(rows) * math.prod(transitions) == 6_912_000


def require_binary(model: tf.keras.Model, images: np.ndarray, predicted: int) -> None:
    """Convert a network, and find all of its quantized layers in binary and the size as said."""
    conversion = larq_nas.convert(model, images)
    quantized = [one for one in model.layers if getattr(one, "input_quantizer", None)]
    assert conversion.audit.fallbacks == []
    assert conversion.audit.operations["LceBconv2d"] == len(quantized) > 0
    assert abs(len(conversion.flatbuffer) - predicted) <= max(512, 0.01 * predicted)


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize(
    ("number", "converted"), [(10, 2), pytest.param(200, 200, marks=pytest.mark.slow)]
)
def test_members_cost_what_they_cost_built_and_convert_in_binary(
    joint: SpaceCosts, number: int, converted: int
) -> None:
    """Every quantity is that of the built network, and the file is as large as the docs promise."""
    members = random_values(joint_space, number)
    together = joint.exact_many(members)
    images = np.random.default_rng(0).normal(size=(8, *SHAPE)).astype("float32")
    identities: dict[str, list[Any]] = {}
    for place, values in enumerate(members):
        model = randomize(network(joint_space, values))
        built = profile(model).summary()
        expected = {name: built[name] for name in QUANTITIES}
        assert joint.exact(values) == expected
        assert {name: cost[place] for name, cost in together.items()} == expected
        if place < converted:
            # Of 200 networks, the gradients of quantizers would keep gigabytes.
            with forgetting_graphs():
                require_binary(model, images, expected["flatbuffer_bytes"])
        weights = [(weight.name, tuple(weight.shape)) for weight in model.weights]
        assert identities.setdefault(joint.identity(values), weights) == weights
        tf.keras.backend.clear_session()
        gc.collect()
    assert len(identities) == len({repr(weights) for weights in identities.values()})


def test_a_member_is_printed_saved_and_loaded(joint: SpaceCosts, tmp_path: Any) -> None:
    member = larq_nas.Architecture.random(joint_space, SHAPE, CLASSES, 0)
    text = str(member)
    for name in joint.choices | joint.expansions:
        assert f"  {name} = {member.choices[name]}" in text
    member.save(tmp_path / "member.json")
    assert larq_nas.Architecture.load(tmp_path / "member.json") == member


def every_kind(choose: Chooser, input_shape: tuple[int, int, int], classes: int) -> tf.keras.Model:
    """A width, a cell, an operation and a row of blocks, which ask for widths of their own."""
    images = tf.keras.Input(input_shape, name="image")
    width = choose.filters("width", 8, (0.5, 1, 2), multiple_of=4)

    def conv(x: tf.Tensor, name: str) -> tf.Tensor:
        return sign_conv(x, width, 3, name=name)

    def pool(x: tf.Tensor, name: str) -> tf.Tensor:
        return tf.keras.layers.MaxPool2D(3, 1, padding="same", name=name)(x)

    def block(x: tf.Tensor, name: str) -> tf.Tensor:
        inner = choose.filters(f"{name}_inner", 6, (0.5, 1))
        # One has fewer real multiplications, the other fewer binary ones.
        operations = {
            "binary": lambda x, name: sign_conv(x, inner, 3, name=name),
            "real": lambda x, name: tf.keras.layers.Conv2D(inner, 1, name=name)(x),
        }
        x = choose.op(f"{name}_op", sign_conv(x, inner, 1, name=f"{name}_in"), operations)
        return sign_conv(x, width, 1, name=f"{name}_out")

    x = stem(images, width)
    x = choose.cell("cell", [x, x], lambda _: {"conv": conv, "pool": pool, "zero": None}, nodes=2)
    x = sign_conv(x, width, 1, name="joined")
    x = choose.depth("row", x, [block] * 2)
    return tf.keras.Model(images, classifier(x, classes), name="every_kind")


@pytest.fixture(scope="module")
def mixed() -> SpaceCosts:
    return SpaceCosts(every_kind, SHAPE, CLASSES)


@pytest.fixture(scope="module")
def costs_of_all(mixed: SpaceCosts) -> dict[str, np.ndarray]:
    return mixed.exact_many(all_values(mixed))


def all_values(costs: SpaceCosts) -> list[dict[str, Any]]:
    asked: list[Choice | Expansion] = [*costs.choices.values(), *costs.expansions.values()]
    options = {name: some for one in asked for name, some in one.parameters().items()}
    return [
        {one.name: one.value(dict(zip(options, drawn, strict=True))) for one in asked}
        for drawn in itertools.product(*options.values())
    ]


@pytest.mark.filterwarnings("error::UserWarning")
def test_cells_widths_and_depths_together(
    mixed: SpaceCosts, costs_of_all: dict[str, np.ndarray]
) -> None:
    """Costs of all networks at once; some are built. An identity is that of all its networks."""
    values = all_values(mixed)
    for place in random.Random(0).sample(range(len(values)), 12):
        built = profile(network(every_kind, values[place])).summary()
        expected = {name: built[name] for name in QUANTITIES}
        assert {name: cost[place] for name, cost in costs_of_all.items()} == expected
        assert mixed.exact(values[place]) == expected
    of_identity: dict[str, set[Any]] = {}
    for place, one in enumerate(values):
        costs = tuple(cost[place] for cost in costs_of_all.values())
        of_identity.setdefault(mixed.identity(one), set()).add(costs)
    assert all(len(costs) == 1 for costs in of_identity.values())
    # Of one block, what the second asks for does not count.
    assert len(of_identity) == len(values) // 2 + len(values) // 2 // 4


def test_expected_costs_are_exact_where_all_is_decided(mixed: SpaceCosts) -> None:
    """A choice of every kind is a vector or a matrix of probabilities."""
    expected = Expected(mixed)
    for values in random.Random(1).sample(all_values(mixed), 3):
        one_hot = {
            name: choice.one_hot(choice.decode(values[name]))
            for name, choice in mixed.choices.items()
        }
        one_hot |= {
            name: np.equal(asked.ratios, values[name]).astype(float)
            for name, asked in mixed.expansions.items()
        }
        exact = mixed.exact(values)
        assert {name: float(cost) for name, cost in expected(one_hot).items()} == exact


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_the_lightest_shrinks_everything_together(
    mixed: SpaceCosts, costs_of_all: dict[str, np.ndarray], quantity: str
) -> None:
    """The limit that a refusal names is that of the lightest of all networks, and is allowed."""
    least = min(required(quantity, {quantity: cost}) for cost in costs_of_all[quantity])
    assert "that fits" in Limits(mixed, Budget({quantity: least})).require_feasible()
    with pytest.raises(InputError, match=f"`{quantity}` must be at least {least:,}, but got"):
        Limits(mixed, Budget({quantity: least - 1})).require_feasible()


def test_two_limits_are_refused_only_where_no_network_keeps_to_both(
    mixed: SpaceCosts, costs_of_all: dict[str, np.ndarray]
) -> None:
    draw, refused = random.Random(0), 0
    for _ in range(40):
        names = draw.sample(QUANTITIES, 2)
        # Near what the lightest ones need.
        limits = {}
        for name in names:
            costs = np.sort([required(name, {name: cost}) for cost in set(costs_of_all[name])])
            limits[name] = int(costs[draw.randrange(min(6, len(costs)))])
        budget = Budget(limits)
        fits = np.all([share <= 1 for share in budget.use(costs_of_all).values()], axis=0).any()
        if fits:
            assert Limits(mixed, budget).require_feasible()
        else:
            refused += 1
            with pytest.raises(InputError, match=r"must be at least|all limits at once"):
                Limits(mixed, budget).require_feasible()
    assert 0 < refused < 40


def test_latencies_are_those_of_the_built_networks() -> None:
    """By a table that knows each operation. Networks to measure are no network twice."""
    costs = SpaceCosts(joint_space, SHAPE, CLASSES, latency=PerOperation())
    planned = plan(costs, networks=3, checks=3, seed=0)
    assert len({costs.identity(v) for v in (*planned.networks, *planned.checks)}) == 6
    together = costs.exact_many(planned.checks)["latency"]
    for values, cost in zip(planned.checks, together, strict=True):
        structure = read_structure(network(joint_space, values))
        assert (
            costs.exact(values)["latency"] == cost == PerOperation().predict(structure).microseconds
        )
        built = {str(signature) for signature in predicted(structure)}
        assert operations_of(costs, values) == built


def test_a_budget_below_the_lightest_names_what_holds_it_up(joint: SpaceCosts) -> None:
    with pytest.raises(InputError, match=r"must be at least .* `multiple_of` lets them"):
        Limits(joint, Budget({"flatbuffer_bytes": "8KB"})).require_feasible()


def narrow_ones_fail(
    choose: Chooser, input_shape: tuple[int, int, int], classes: int
) -> tf.keras.Model:
    """Is built to be costed, and cannot be built at its smallest width."""
    images = tf.keras.Input(input_shape)
    width = int(choose.filters("width", 8, (0.5, 1, 2)))
    if width < 8:
        raise ValueError("too narrow")
    kernels = {
        f"conv{size}": lambda x, name, size=size: sign_conv(x, width, size, name=name)
        for size in (1, 3)
    }
    x = choose.op("kernel", stem(images, width), kernels)
    return tf.keras.Model(images, classifier(x, classes))


@pytest.mark.filterwarnings("ignore:The costs of space")
def test_a_budget_is_not_refused_where_the_narrowest_cannot_be_built() -> None:
    limits = Limits(SpaceCosts(narrow_ones_fail, SHAPE, CLASSES), Budget({"parameters": 500}))
    assert "cannot be built to tell" in limits.require_feasible()
    assert limits.allow({"width": 1, "kernel": "conv1"})
    assert not limits.allow({"width": 1, "kernel": "conv3"})


def few_filters(choose: Chooser, input_shape: tuple[int, int, int], classes: int) -> tf.keras.Model:
    images = tf.keras.Input(input_shape)
    width = choose.filters("width", 4, (0.5, 1))
    x = sign_conv(stem(images, width), width, 3, name="conv")
    return tf.keras.Model(images, classifier(x, classes))


def test_ratios_that_are_proposed_leave_a_channel() -> None:
    costs = SpaceCosts(few_filters, SHAPE, CLASSES)
    parameters = {ratio: costs.exact({"width": ratio})["parameters"] for ratio in (0.25, 0.5)}
    assert parameters[0.25] < parameters[0.5]
    with pytest.raises(InputError, match=r"give the space `ratios=0\.\d+,0\.5,1`") as error:
        Limits(costs, Budget({"parameters": parameters[0.25]})).require_feasible()
    proposed = float(str(error.value).partition("ratios=")[2].partition(",")[0])
    assert 4 * proposed >= 1
    with pytest.raises(InputError, match="narrower widths do not help"):
        Limits(costs, Budget({"parameters": parameters[0.25] - 1})).require_feasible()


def one_node_read(
    choose: Chooser, input_shape: tuple[int, int, int], classes: int
) -> tf.keras.Model:
    """A cell that gives its last node alone: the first counts only where that reads it."""
    images = tf.keras.Input(input_shape)
    x = stem(images, 8)
    operations = {
        "conv": lambda x, name: sign_conv(x, 8, 3, name=name),
        "pool": lambda x, name: tf.keras.layers.MaxPool2D(3, 1, padding="same", name=name)(x),
        "zero": None,
    }
    x = choose.cell("cell", [x, x], lambda _: operations, nodes=2, concat=[3], keep_zero=True)
    return tf.keras.Model(images, classifier(x, classes))


def test_nodes_that_nothing_reads_do_not_count() -> None:
    costs = SpaceCosts(one_node_read, SHAPE, CLASSES)
    last, first = [["conv", 0], ["pool", 1]], [["conv", 0], ["conv", 1]]
    one = costs.identity({"cell/2": first, "cell/3": last})
    assert costs.identity({"cell/2": [["pool", 0], ["pool", 1]], "cell/3": last}) == one
    assert costs.identity({"cell/2": first, "cell/3": last[::-1]}) == one
    assert costs.identity({"cell/2": first, "cell/3": [["conv", 0], ["zero", 2]]}) == (
        costs.identity({"cell/2": last, "cell/3": [["conv", 0], ["zero", 1]]})
    )
    read = [["conv", 0], ["pool", 2]]
    assert costs.identity({"cell/2": first, "cell/3": read}) != one
    assert costs.identity({"cell/2": first, "cell/3": read}) != (
        costs.identity({"cell/2": last, "cell/3": read})
    )
    # One pair twice is two layers, each with weights of its own.
    twice = [["conv", 0], ["conv", 0]]
    assert costs.identity({"cell/2": first, "cell/3": twice}) != one
