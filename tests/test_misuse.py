"""What is given in place of what is asked for: named, with what to give."""

import json
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest
import tensorflow as tf

from larq_nas.data.labels import Labels, class_weights
from larq_nas.errors import InputError
from larq_nas.searchers import Differentiable, Evolution, Progressive
from larq_nas.searchers.evolution import Aging
from larq_nas.spaces import Bats, VggSmall
from larq_nas.training import Recipe

LAYERS = tf.keras.layers


def real_model() -> tf.keras.Model:
    images = tf.keras.Input((8, 8, 1))
    x = LAYERS.Conv2D(4, 3, name="conv")(images)
    x = LAYERS.GlobalAveragePooling2D(name="pool")(x)
    return tf.keras.Model(images, LAYERS.Dense(10, name="logits")(x))


def search(**settings: Any) -> tf.keras.Model:
    train, validation = larq_nas.datasets.load("digits", batch_size=20)
    given = {"epochs": 1, "train_epochs": 0, "verbose": 0, **settings}
    return larq_nas.search(train.take(2), validation.take(1), **given)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": Bats}, r"`space` must be an instance, such as Bats\(\)"),
        ({"space": real_model()}, r"larq_nas.spaces.ModelWidths\(model\)"),
        ({"searcher": Differentiable}, r"`searcher` must be an instance, .* Differentiable\(\)"),
        ({"recipe": Recipe}, r"`recipe` must be an instance, such as Recipe\(...\)"),
        ({"budget": {"latency": 1}, "latency_table": dict}, "`latency_table` must be a Latency"),
        ({"verbose": "x"}, "`verbose` must be \"auto\", 0, 1 or 2, but got 'x'"),
        ({"verbose": None}, "`verbose` must be .* but got None"),
        ({"epochs": 2**70}, r"`epochs` must be a whole number below 2\*\*31"),
        ({"space": {"channels": 2**70}}, r"`channels` must be a whole number below 2\*\*31"),
        ({"space": {"channels": 10**6}}, "`channels` must be at most 4,096, but got 1,000,000"),
        ({"space": {"search_channels": 5000}}, "`search_channels` must be at most 4,096"),
        ({"space": {"cells": 10**6}}, "`cells` must be at most 256, but got 1,000,000"),
        ({"space": {"cells": np.float32(3)}}, "`cells` must be a whole number, but got 3.0"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_mend(settings: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        search(**settings)


def test_a_class_of_a_strategy_is_refused_with_the_mend() -> None:
    with pytest.raises(InputError, match=r"`strategy` must be an instance, such as Aging\(\)"):
        Evolution(strategy=Aging)  # type: ignore[arg-type]


@pytest.mark.parametrize("ratio", [2.0**70, 1e308, float("inf"), float("nan")])
def test_an_architecture_of_absurd_widths_is_refused_by_the_choice(ratio: float) -> None:
    drawn = larq_nas.Architecture.random(VggSmall(ratios=(0.0625,)), (8, 8, 1), 10, seed=0)
    found = larq_nas.Architecture("vgg_small", drawn.settings, {**drawn.choices, "conv1": ratio})
    with pytest.raises(InputError, match=r"Choice `conv1` expects a ratio .* up to 65,536"):
        found.build((8, 8, 1), 10)


@pytest.mark.parametrize("number", [10**400, 1e39, -(2**200)])
def test_a_number_that_no_weight_could_be_is_refused_by_the_setting(number: float) -> None:
    for make in (
        lambda: Recipe(learning_rate=number),
        lambda: Recipe(weight_decay=number),
        lambda: Differentiable(learning_rate=number),
        lambda: class_weights({0: number, 1: 1.0}, Labels(2), np.array([1, 1])),
    ):
        with pytest.raises(InputError, match=r"must be a number up to 3.4e\+38, but got a larger"):
            make()


def test_numbers_of_numpy_are_numbers() -> None:
    parts = [
        Bats(cells=np.int64(3), channels=np.int8(4), search_channels=np.uint16(4)),
        VggSmall(ratios=(np.float32(0.5), 1)),
        Evolution(population=np.int64(4), trade_off=np.float32(2), subset=np.int32(9)),
        Differentiable(temperature=np.float32(0.5), learning_rate=np.float64(0.1)),
        Progressive(stage_cells=(np.int64(3), 4), stage_operations=(8, np.int32(3))),
        Recipe(learning_rate=np.float32(0.1)),
    ]
    assert all(json.dumps(part.settings()) for part in parts)
    assert type(parts[0].cells) is int


def real_space(choose: Any, input_shape: Any, classes: int) -> tf.keras.Model:
    def convolution(size: int) -> Any:
        return lambda x, name: LAYERS.Conv2D(4, size, padding="same", name=name)(x)

    images = tf.keras.Input(input_shape)
    x = choose.op("a", images, {"conv_1": convolution(1), "conv_3": convolution(3)})
    x = LAYERS.GlobalAveragePooling2D(name="mean")(x)
    return tf.keras.Model(images, LAYERS.Dense(classes, name="logits")(x))


def test_a_search_without_a_binary_layer_is_told() -> None:
    with pytest.warns(UserWarning, match="Space `real_space` has no binary layer"):
        search(space=real_space)


def test_a_training_without_a_binary_layer_is_told() -> None:
    train, validation = larq_nas.datasets.load("digits", batch_size=20)
    found = larq_nas.Architecture("real_space", {}, {"a": "conv_1"})
    with pytest.warns(UserWarning, match="Space `real_space` has no binary layer"):
        larq_nas.train(
            found, train.take(2), validation.take(1), space=real_space, epochs=0, verbose=0
        )
