"""What cannot be trained is said before anything is written."""

import warnings
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from test_train import ARCHITECTURE, PAIRS, run

import larq_nas
from larq_nas.data.data import read_data
from larq_nas.errors import InputError
from larq_nas.spaces import Bats


def architecture_of(**choices: Any) -> larq_nas.Architecture:
    return larq_nas.Architecture("bats", ARCHITECTURE.settings, choices)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "bnas_cifer"}, "Unknown published architecture `bnas_cifer`; did you me"),
        ({"architecture": "bnas"}, "`bnas` is a space, not an architecture"),
        ({"architecture": "missing.json"}, "Cannot read architecture `missing.json`: No such file"),
        ({"architecture": 3}, "`architecture` must be an Architecture, a file, a run or a p"),
        ({"architecture": architecture_of()}, "has no value for choice `reduction/2`"),
        (
            {"architecture": architecture_of(**{"reduction/2": PAIRS, "normal/2": PAIRS})},
            "holds choices that space `bats` does not ask: normal/2",
        ),
        ({"architecture": architecture_of(**{"reduction/2": [["conv", 0]] * 2})}, "`reduction/2`"),
        (
            {
                "architecture": larq_nas.Architecture(
                    "bnas",
                    {"cells": 3, "channels": 4, "nodes": 1},
                    {"normal/2": [["zero", 0], ["zero", 1]], "reduction/2": [["conv_3x3", 0]] * 2},
                )
            },
            "Every path of cell `normal` is zero: choose another operation in one of normal/2.",
        ),
        ({"space": "bnas"}, "is of space `bats`, but got `bnas`"),
        ({"recipe": "bnsa"}, "Unknown recipe `bnsa`; did you mean `bnas`?"),
        ({"epochs": -1}, "`epochs` must be 0 or more, but got -1"),
        ({"resume": "no"}, "`resume` must be True or False, but got 'no'"),
        ({"return_result": 1}, "`return_result` must be True or False, but got 1"),
        ({"seed": -1}, "`seed` must be a whole number from 0"),
        ({"classes": 5}, "Labels of `train` must be 0 to 4"),
        ({"teacher": "resnet"}, "`teacher` must be a tf.keras.Model, but got str."),
    ],
)
def test_what_cannot_be_used_is_refused_before_training(
    tmp_path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        run(tmp_path / "r", **changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "r").exists()


def test_a_space_of_other_settings_than_the_architecture_is_told() -> None:
    found = larq_nas.Architecture.random(Bats(cells=1, channels=4, nodes=1), (8, 8, 1), 10, 0)
    with pytest.warns(UserWarning, match=r"`space` has `cells` 2, but .*with_settings\(cells=2\)"):
        model = found.build((8, 8, 1), 10, Bats(cells=2, channels=4, nodes=1))
    assert len(model.layers) == len(found.build((8, 8, 1), 10).layers)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for same in ("bats", Bats(cells=1, channels=4, nodes=1)):
            found.resolve(same)


def test_a_state_of_keras_that_cannot_be_used_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tf.keras.backend, "image_data_format", lambda: "channels_first")
    with pytest.raises(InputError, match="image data format must be channels_last"):
        run(tmp_path / "r")
    monkeypatch.undo()
    tf.random.get_global_generator()  # whose state a graph cannot read
    with tf.Graph().as_default(), pytest.raises(InputError, match="must run eagerly"):
        run(tmp_path / "r")


@pytest.mark.parametrize("number", [0.0, 7.0])
def test_images_of_one_number_are_told(number: float) -> None:
    data = (np.full((40, 8, 8, 1), number), [0, 1] * 20)
    with pytest.warns(UserWarning, match=f"Every number of every image .* is {number:g}, so"):
        read_data(data, 0.25, None, None, 0, Bats(cells=1, channels=4, nodes=1), 0)
