"""The call that repeats a run."""

from pathlib import Path
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest

from larq_nas.methods import METHODS
from larq_nas.provenance import call


def search(train: Any, validation: Any, value: Any = None) -> Any:
    return value


def again(value: Any) -> Any:
    """Return what the call of a value gives where the value is known by the argument's name."""
    text = call(search, {"train": None, "validation": None, "value": value})
    names = {"larq_nas": larq_nas, "train": None, "validation": None, "value": value}
    return eval(text.replace("larq_nas.search(", "search(", 1), {**names, "search": search})


@pytest.mark.parametrize(
    "value",
    [
        *METHODS.values(),
        *map(larq_nas.spaces.resolve, larq_nas.spaces.names()),
        larq_nas.Architecture("vgg_small", {}, {"conv1": 0.5}),
        {"cells": 5, "pairs": [(1, 2), (3,)], "none": None, "text": "it's"},
        np.int64(3),
        {np.int64(0): np.float32(1.5), "limits": [np.bool_(True)]},
        {"weight_bytes": float("inf")},
        range(3),
        [object(), object()],
        {"search": [object()], "train": lambda batch: batch},
        lambda images: images,
        len,
    ],
    ids=lambda value: str(value)[:20],
)
def test_the_call_gives_the_value_again(value: Any) -> None:
    assert again(value) == value


def test_a_path_is_written_as_text() -> None:
    assert again({"table": Path("a b") / "pi's.json"}) == {"table": "a b/pi's.json"}
