"""Choices of how many blocks of a row a network has."""

import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

from larq_nas import Architecture
from larq_nas.cost import QUANTITIES, SpaceCosts, profile
from larq_nas.errors import InputError
from larq_nas.layers import binary_conv, classifier, stem
from larq_nas.spaces import Chooser, Fix, Sample, Survey
from larq_nas.supernet.fuse import Fuse
from larq_nas.supernet.relax import Relax

SHAPE = (8, 8, 3)


def rows(choose: Chooser, input_shape: tuple[int, int, int], classes: int) -> tf.keras.Model:
    """Two rows of blocks, which ask for kernels and for what is in between."""
    images = tf.keras.Input(input_shape, name="image")
    inner = choose.filters("inner", 8, (0.5, 1))

    def block(x: tf.Tensor, name: str) -> tf.Tensor:
        operations = {
            f"conv{size}": lambda x, name, size=size: binary_conv(
                binary_conv(x, inner, 1, name=f"{name}_in", identity=False),
                8,
                size,
                name=name,
                identity=False,
            )
            for size in (1, 3)
        }
        return choose.op(name, x, {**operations, "skip": lambda x, name: x})

    x = choose.depth("first", stem(images, 8), [block] * 3)
    x = choose.depth("second", x, [block] * 3, least=2)
    return tf.keras.Model(images, classifier(x, classes))


def values_of(seed: int) -> dict:
    return Architecture.random(rows, SHAPE, 4, seed).choices


def test_a_network_has_the_blocks_of_its_depth_alone() -> None:
    values = {**values_of(0), "first": 1, "second": 2}
    values |= {f"{row}_{n}": "conv3" for row in ("first", "second") for n in range(3)}
    names = [layer.name for layer in rows(Fix(values), SHAPE, 4).layers]
    convolutions = [name for name in names if name.endswith("conv3_conv")]
    assert convolutions == [f"{n}_in0_conv3_conv" for n in ("first_0", "second_0", "second_1")]
    deeper = rows(Fix({**values, "first": 3}), SHAPE, 4)
    assert {one.name for one in deeper.layers} > set(names)


@pytest.mark.parametrize("chooser", [Relax, Fuse])
def test_a_supernet_at_one_depth_is_the_fixed_network(chooser) -> None:
    def row(choose: Chooser) -> tf.keras.Model:
        x = images = tf.keras.Input((4,))
        blocks = [
            lambda x, name, n=n: tf.keras.layers.Rescaling(n, name=name)(x) for n in (2, 3, 5)
        ]
        return tf.keras.Model(images, choose.depth("row", x, blocks))

    choose = chooser()
    supernet, x = row(choose), np.arange(4.0, dtype="float32")[None]
    for number, factor in enumerate((2, 6, 30)):
        choose.mixtures["row"].alpha.assign(1e4 * np.eye(3)[[number]])
        np.testing.assert_allclose(supernet(x), factor * x)
        np.testing.assert_allclose(row(Fix({"row": number + 1}))(x), factor * x)


def test_every_depth_is_drawn_and_costs_what_it_costs_built() -> None:
    costs = SpaceCosts(rows, SHAPE, 4)
    drawn = [values_of(seed) for seed in range(8)]
    assert {values["first"] for values in drawn} == {1, 2, 3}
    assert {values["second"] for values in drawn} == {2, 3}
    together = costs.exact_many(drawn)
    for number, values in enumerate(drawn):
        built = profile(rows(Fix(values), SHAPE, 4)).summary()
        assert costs.exact(values) == {name: built[name] for name in QUANTITIES}
        assert {name: cost[number] for name, cost in together.items()} == costs.exact(values)


def test_depth_is_one_parameter_of_keras_tuner() -> None:
    parameters = keras_tuner.HyperParameters()
    parameters.Fixed("first", 2)
    choose = Sample(parameters)
    rows(choose, SHAPE, 4)
    assert choose.values["first"] == 2
    assert parameters.values["second"] == choose.values["second"] == 2
    assert set(parameters.values) == set(choose.values)


def test_networks_that_are_the_same_have_one_identity() -> None:
    costs = SpaceCosts(rows, SHAPE, 4)
    values = dict.fromkeys(costs.choices, "conv3") | {"first": 2, "second": 2, "inner": 1}
    one = costs.identity(values)
    alike = [
        {"first_2": "conv1"},  # a block that is not there
        {"second_2": "skip"},
        {"first": 3, "first_2": "skip"},  # a block that does nothing
        {"inner": 1.01},  # as many filters
    ]
    for change in alike:
        assert costs.identity({**values, **change}) == one
        model, other = (rows(Fix(v), SHAPE, 4) for v in (values, {**values, **change}))
        assert [w.name for w in model.weights] == [w.name for w in other.weights]
    different = [{"first": 3}, {"first_1": "conv1"}, {"inner": 0.5}, {"second_0": "skip"}]
    found = {costs.identity({**values, **change}) for change in different}
    assert len(found | {one}) == 5
    # A width within blocks of which none is there.
    skips = {**values, **{name: "skip" for name in costs.choices if "_" in name}}
    assert costs.identity(skips) == costs.identity({**skips, "inner": 0.5})
    assert SpaceCosts(rows, SHAPE, 4).identity(values) == one


def asked(**arguments) -> tf.keras.Model:
    x = tf.keras.Input((4,))
    return Survey().depth("row", x, **arguments)


def dense(x: tf.Tensor, name: str) -> tf.Tensor:
    return tf.keras.layers.Dense(x.shape[-1], name=name)(x)


def wider(x: tf.Tensor, name: str) -> tf.Tensor:
    return tf.keras.layers.Dense(2 * x.shape[-1], name=name)(x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blocks": [dense], "least": 0}, "`least of choice row` must be positive, but got 0"),
        ({"blocks": [dense], "least": 1.5}, "`least of choice row` must be a whole number"),
        ({"blocks": [dense], "least": 2}, "at most the number of its blocks, 1, but got 2"),
        ({"blocks": []}, "`blocks` of choice `row` must be a list of functions"),
        ({"blocks": dense}, "must be a list of functions of a tensor and a name"),
        ({"blocks": [dense, "dense"]}, "must be a list of functions"),
        ({"blocks": [lambda x, name: 3]}, "Block 0 of choice `row` must return a tensor, .* 3"),
        ({"blocks": [dense, wider]}, r"`row` must give one shape, but 1 give .*4\) and 2 give"),
    ],
)
def test_rows_that_are_none_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        asked(**arguments)


def test_what_changes_the_shape_stands_before_the_least() -> None:
    assert asked(blocks=[wider, dense, dense]).shape == (None, 8)
    for choose in (Survey(), Relax()):
        x = tf.keras.Input((4,))
        with pytest.raises(InputError, match="raise `least`"):
            choose.depth("row", x, [dense, wider])
        choose.depth("other", x, [dense, wider], least=2)


def test_a_name_that_is_asked_otherwise_is_refused() -> None:
    choose, x = Survey(), tf.keras.Input((4,))
    x = choose.depth("row", x, [dense] * 3)
    x = choose.depth("row", x, [dense] * 3)
    for ask in (
        lambda: choose.depth("row", x, [dense] * 2),
        lambda: choose.depth("row", x, [dense] * 3, least=2),
        lambda: choose.op("row", x, {"1": dense, "2": dense, "3": dense}),
        lambda: choose.filters("row", 4, (1, 2)),
    ):
        with pytest.raises(InputError, match="Choice `row` was asked before with other"):
            ask()


def test_a_question_within_an_operation_is_refused() -> None:
    """Blocks of a row may ask, since all of them are built; operations may use what was asked."""

    def choose_within(choose: Chooser, ask) -> None:
        x = tf.keras.Input((4,))
        choose.filters("known", 4, (1, 2))
        choose.op("outer", x, {"plain": dense, "asks": lambda x, name: ask(choose, x)})

    asking = (
        lambda choose, x: tf.keras.layers.Dense(choose.filters("width", 4, (1, 2)))(x),
        lambda choose, x: choose.op("inner", x, {"a": dense}),
        lambda choose, x: choose.depth("row", x, [dense]),
    )
    for ask in asking:
        for choose in (Relax(), Fix({"outer": "asks", "known": 1})):
            with pytest.raises(
                InputError, match="within an operation of choice `outer`, which not"
            ):
                choose_within(choose, ask)
    choose_within(Relax(), lambda choose, x: dense(x, f"d{choose.filters('known', 4, (1, 2))}"))
