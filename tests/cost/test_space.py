"""Costs of candidates, without building them, against the networks when built."""

import random

import numpy as np
import pytest
import tensorflow as tf
from conftest import quick, random_architecture

import larq_nas
from larq_nas.cost import QUANTITIES, Expected, SpaceCosts, profile
from larq_nas.errors import InputError
from larq_nas.layers import BinaryConv2D, batch_norm, binary_conv, classifier, stem
from larq_nas.spaces import Bats, Bnas, Darts, ResNet18, ResNet18Cifar, Space, Vgg11, VggSmall

CELLS: list[tuple[Space, tuple[int, int, int]]] = [
    (Bats(cells=3, channels=8, nodes=2), (16, 16, 3)),
    (Bats(cells=3, channels=12, groups=3, activation="prelu"), (8, 8, 1)),
    (Bnas(cells=3, channels=8, nodes=3), (8, 8, 3)),
    (Darts(cells=3, channels=8, nodes=2), (8, 8, 3)),
    (Bats(cells=3, channels=8, nodes=3, shared_norms=True, positive_scales=True), (8, 8, 3)),
]


def built_costs(space: Space, values, shape: tuple[int, int, int]) -> dict[str, int]:
    architecture = larq_nas.Architecture(space.name, space.settings(), values)
    costs = profile(architecture.build(shape, 10, space)).summary()
    return {name: costs[name] for name in QUANTITIES}


def random_widths(costs: SpaceCosts, number: int) -> list[dict[str, float]]:
    draw = random.Random(0)
    return [
        {name: draw.choice(asked.ratios) for name, asked in costs.expansions.items()}
        for _ in range(number)
    ]


@pytest.mark.parametrize(
    ("space", "shape", "built"),
    quick(
        [
            (ResNet18(), (64, 64, 3), 4),
            (ResNet18Cifar(downsample="real"), (32, 32, 3), 5),
            (VggSmall(), (32, 32, 3), 5),
            (Vgg11(ratios=(0.3, 1, 1.7)), (32, 32, 3), 5),
        ],
        2,
        3,
    ),
)
def test_widths_cost_what_the_built_network_costs(
    space: Space, shape: tuple[int, int, int], built: int
) -> None:
    """Of built networks a few; 1,000 candidates at once are those one by one."""
    costs = SpaceCosts(space, shape, 10)
    candidates = random_widths(costs, 1000)
    together = costs.exact_many(candidates)
    for number in range(built):
        expected = built_costs(space, candidates[number], shape)
        assert costs.exact(candidates[number]) == expected
        assert {name: cost[number] for name, cost in together.items()} == expected
    assert np.unique(together["binary_macs"]).size > 300


@pytest.mark.parametrize(("space", "shape"), quick(CELLS, 0))
def test_cells_cost_what_the_built_network_costs(space: Space, shape: tuple[int, int, int]) -> None:
    costs = SpaceCosts(space, shape, 10)
    for seed in range(2):
        values = random_architecture(space, seed, shape).choices
        assert costs.exact(values) == built_costs(space, values, shape)


@pytest.mark.parametrize("second", [[["max_pool_3x3", 1], ["conv_3x3", 2]], [["zero", 0]] * 2])
def test_a_node_of_zeros_that_is_read(second: list) -> None:
    """What the zeros would have read is not built, and not costed."""
    space, shape = Bnas(cells=1, channels=8, nodes=2), (16, 16, 3)
    values = {"reduction/2": [["zero", 0], ["zero", 1]], "reduction/3": second}
    assert SpaceCosts(space, shape, 10).exact(values) == built_costs(space, values, shape)


def test_a_pair_that_occurs_twice() -> None:
    space = Bats(cells=2, channels=8, nodes=1)
    costs = SpaceCosts(space, (8, 8, 1), 10)
    twice = [["group_conv_3x3", 0], ["group_conv_3x3", 0]]
    values = {"normal/2": twice, "reduction/2": twice}
    names = {"normal/2", "reduction/2"} & set(costs.choices)
    values = {name: values[name] for name in names}
    assert costs.exact(values) == built_costs(space, values, (8, 8, 1))


def mixed(choose, input_shape, classes) -> tf.keras.Model:
    """Chooses widths and operations."""
    images = tf.keras.Input(input_shape)
    filters = choose.filters("width", 16, (0.5, 1, 2))
    x = stem(images, 3 * filters)
    for block in range(2):
        operations = {
            f"conv{size}": lambda x, name, size=size: binary_conv(
                x, filters + 4, size, name=name, identity=False
            )
            for size in (1, 3)
        }
        x = choose.op(f"block{block}", x, operations)
    return tf.keras.Model(images, classifier(x, classes))


def rounding(choose, input_shape, classes) -> tf.keras.Model:
    """Turns a width into a plain number, and builds a layer for some widths alone."""
    images = x = tf.keras.Input(input_shape)
    for block in range(2):
        filters = int(choose.filters(f"width{block}", 16, (0.5, 1, 2)))
        x = batch_norm(BinaryConv2D(filters, 3)(x), f"bn{block}")
        if filters > 16:
            x = tf.keras.layers.ReLU()(x)
    return tf.keras.Model(images, classifier(x, classes))


def test_widths_and_operations_together() -> None:
    costs = SpaceCosts(mixed, (8, 8, 3), 10)
    candidates = [
        {"width": ratio, "block0": one, "block1": other}
        for ratio in (0.5, 2)
        for one in ("conv1", "conv3")
        for other in ("conv1", "conv3")
    ]
    together = costs.exact_many(candidates)
    for number, values in enumerate(candidates):
        expected = built_costs(costs.space, values, (8, 8, 3))
        assert {name: cost[number] for name, cost in together.items()} == expected


def wider_alone(choose, input_shape, classes) -> tf.keras.Model:
    """Builds another layer for the widest alone."""
    images = tf.keras.Input(input_shape)
    width = choose.filters("width0", 16, (0.25, 0.5, 1, 2, 3, 4))
    x = tf.keras.layers.Conv2D(width, 3, padding="same")(images)
    if width > 60:
        x = tf.keras.layers.Conv2D(width, 3, padding="same")(x)
    return tf.keras.Model(images, classifier(x, classes))


def at_least(choose, input_shape, classes) -> tf.keras.Model:
    """Computes a width by what is not remembered, in an operation that is not the first."""
    images = tf.keras.Input(input_shape)
    width = choose.filters("width0", 16, (0.5, 1, 2))
    operations = {
        "plain": lambda x, name: tf.keras.layers.Conv2D(16, 3, name=name)(x),
        "odd": lambda x, name: tf.keras.layers.Conv2D(16, 1, name=f"{name}_b")(
            tf.keras.layers.Conv2D(max(12, int(width)), 3, name=name)(x)
        ),
    }
    x = choose.op("operation", images, operations)
    return tf.keras.Model(images, classifier(x, classes))


@pytest.mark.parametrize("space", [rounding, wider_alone, at_least])
def test_a_space_whose_costs_do_not_follow_is_built_and_told(space) -> None:
    costs = SpaceCosts(space, (8, 8, 3), 10)
    values = {name: asked.ratios[-1] for name, asked in costs.expansions.items()}
    values |= {name: choice.operations[-1] for name, choice in costs.choices.items()}
    with pytest.warns(UserWarning, match="do not follow from one build"):
        found = costs.exact(values)
    assert found == built_costs(costs.space, values, (8, 8, 3))
    assert costs.of(*costs.decode(values)) == found
    with pytest.raises(InputError, match="compute widths by"):
        Expected(costs)


def fixed_and_asked(choose, input_shape, classes) -> tf.keras.Model:
    """A width that is asked for beside one that is not, in layers that share constants."""
    images = tf.keras.Input(input_shape)
    width = choose.filters("width", 16, (0.5, 1, 2, 3))
    x = tf.keras.layers.Conv2D(width, 3, use_bias=False)(images)
    x = tf.keras.layers.Conv2D(8, 3, use_bias=False)(tf.keras.layers.ReLU()(x))
    return tf.keras.Model(images, classifier(x, classes))


def test_a_fixed_width_beside_one_that_is_asked_for() -> None:
    costs = SpaceCosts(fixed_and_asked, (16, 16, 3), 10)
    candidates = [{"width": ratio} for ratio in (0.5, 1, 2, 3)]
    together = costs.exact_many(candidates)
    for number, values in enumerate(candidates):
        expected = built_costs(costs.space, values, (16, 16, 3))
        assert {name: cost[number] for name, cost in together.items()} == expected


def test_a_model_that_is_cloned_in_a_space_keeps_its_widths() -> None:
    def cloned(choose, input_shape, classes) -> tf.keras.Model:
        model = fixed_and_asked(choose, input_shape, classes)
        return tf.keras.Model.from_config(model.get_config())

    found = SpaceCosts(cloned, (16, 16, 3), 10).exact({"width": 2})
    assert found == SpaceCosts(fixed_and_asked, (16, 16, 3), 10).exact({"width": 2})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "asks for 6 choices, but these are missing: conv1, conv2, conv3, conv4, conv5, conv6"),
        (dict.fromkeys([f"conv{n}" for n in range(1, 8)], 1), "are not among them: conv7"),
    ],
)
def test_values_that_do_not_answer_are_refused(values, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SpaceCosts(VggSmall(), (32, 32, 3), 10).exact(values)


def joined_with_zeros(choose, input_shape, classes) -> tf.keras.Model:
    """A node that may be zero, of a width that is chosen, in cells and in a plain concatenation."""
    images = tf.keras.Input(input_shape)
    width = choose.filters("width", 8, (0.5, 1, 2))
    x = stem(images, 8)

    def conv(x: tf.Tensor, name: str) -> tf.Tensor:
        return binary_conv(x, width, 3, name=name, identity=False)

    operations = {"conv": conv, "zero": None}
    y = choose.node("node", [x, x], [operations, operations], keep_zero=True)
    y = tf.keras.layers.Concatenate()([y, x])
    y = choose.cell("cell", [x, y], lambda _: operations, nodes=2, keep_zero=True)
    return tf.keras.Model(images, classifier(y, classes))


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("ratio", quick([0.5, 2], 0))
@pytest.mark.parametrize("zero", quick(["node", "cell/2", "cell/3", ""], 1))
def test_zeros_of_a_chosen_width_cost_what_they_do_when_built(ratio: float, zero: str) -> None:
    costs = SpaceCosts(joined_with_zeros, (8, 8, 3), 10)
    values = {
        name: choice.encode([("zero" if name == zero else "conv", i) for _, i in choice.any()])
        for name, choice in costs.choices.items()
    }
    exact = costs.exact({**values, "width": ratio})
    assert exact == built_costs(costs.space, {**values, "width": ratio}, (8, 8, 3))
    probabilities = {
        name: choice.one_hot(choice.decode(values[name])) for name, choice in costs.choices.items()
    }
    probabilities["width"] = np.equal(costs.expansions["width"].ratios, ratio).astype(float)
    expected = Expected(costs)(probabilities)
    assert {name: int(expected[name]) for name in QUANTITIES} == exact


def deep_rounding(choose, input_shape, classes) -> tf.keras.Model:
    """Turns a width into a plain number in a block that few networks have, by one operation."""
    images = tf.keras.Input(input_shape)
    width = choose.filters("width", 16, (0.5, 1, 2))

    def block(x: tf.Tensor, name: str) -> tf.Tensor:
        inner = int(width) if name == "row_2" else width
        operations = {
            "plain": lambda x, name: x,
            "odd": lambda x, name: binary_conv(
                binary_conv(x, inner, 1, name=f"{name}_in", identity=False),
                width,
                3,
                name=name,
                identity=False,
            ),
        }
        return choose.op(f"{name}_op", x, operations)

    x = choose.depth("row", stem(images, width), [block] * 3)
    return tf.keras.Model(images, classifier(x, classes))


def test_a_width_that_is_lost_in_the_last_block_is_told() -> None:
    costs = SpaceCosts(deep_rounding, (8, 8, 3), 10)
    values = {f"row_{n}_op": "odd" for n in range(3)} | {"row": 3, "width": 2}
    with pytest.warns(UserWarning, match="do not follow from one build"):
        assert costs.exact(values) == built_costs(costs.space, values, (8, 8, 3))
    # Networks are then told apart by all values, of which some may have no effect.
    assert costs.identity(values) == costs.identity({**values, "width": 2.01})
    assert costs.identity(values) != costs.identity({**values, "row": 2})
