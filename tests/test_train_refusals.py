"""What cannot be trained is said before anything is written."""

from typing import Any

import pytest
from test_train import ARCHITECTURE, PAIRS, run

import larq_nas
from larq_nas.errors import InputError


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
