"""Each published method by its name, from a search to a `.tflite`, at toy size."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import larq_nas
from larq_nas.methods import METHODS, Method, resolve
from larq_nas.searchers import Dms, Evolution, Progressive
from larq_nas.spaces.cell_space import CellSpace
from larq_nas.spaces.width_space import WidthSpace


def _toy(method: Method) -> dict[str, Any]:
    """Return the changes that make a method small: how much there is, and not how it is done."""
    searcher: dict[str, Any] = {}
    epochs, space = 2, {}
    if isinstance(method.space, CellSpace):
        space = {"cells": 3, "channels": 4, "nodes": 1}
        space |= {"groups": 2} if hasattr(method.space, "groups") else {}
        space |= {
            name: None
            for name in ("search_cells", "search_channels", "search_groups")
            if getattr(method.space, name, None) is not None
        }
    if isinstance(method.searcher, Progressive):
        searcher = {"stage_cells": (3, 4, 5)}
    if isinstance(method.searcher, Evolution):
        searcher = {"population": 2, "candidate_epochs": 1, "widest_epochs": 1, "subset": 20}
        space, epochs = {"ratios": (0.05, 0.1)}, 1
    if isinstance(method.searcher, Dms):
        searcher = {"weight_epochs": 1, "initial_ratio": 0.4}
    return {"space": space, "searcher": searcher, "epochs": epochs, "train_epochs": 2}


def _data(method: Method, number: int, seed: int) -> tf.data.Dataset:
    side = 64 if getattr(method.space, "stem", "") == "imagenet" else 32
    if isinstance(method.space, WidthSpace) and "imagenet" in method.space.name:
        side = 64
    images = np.random.default_rng(seed).normal(size=(number, side, side, 3)).astype("float32")
    labels = np.arange(number, dtype="int32") % 4
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)


_NETWORKS = [
    pytest.param(name, number, id=f"{name}-{method.space.name}", marks=pytest.mark.slow)
    for name, methods in METHODS.items()
    if name != "default"
    for number, method in enumerate(methods)
]


@pytest.mark.parametrize(("name", "number"), _NETWORKS)
@pytest.mark.filterwarnings("ignore")
def test_it_goes_the_whole_way(tmp_path: Path, name: str, number: int) -> None:
    published = METHODS[name][number]
    toy = _toy(published)
    result = larq_nas.search(
        _data(published, 32, 0),
        _data(published, 12, 1),
        method=published,
        directory=tmp_path / "run",
        return_result=True,
        verbose=0,
        **toy,
    )
    assert (tmp_path / "run" / "model.tflite").exists()
    assert result.conversion is not None
    kept = json.loads((tmp_path / "run" / "settings.json").read_text(encoding="utf-8"))["settings"]
    for part in ("space", "searcher", "recipe"):
        settings = getattr(published, part).settings()
        for key, value in json.loads(json.dumps(settings)).items():
            if key not in toy.get(part, {}):
                assert kept[part][key] == value, (part, key)


@pytest.mark.parametrize("name", METHODS)
def test_a_name_has_the_settings_of_its_first_network(name: str) -> None:
    assert dataclasses.asdict(resolve(name)) == dataclasses.asdict(METHODS[name][0])
