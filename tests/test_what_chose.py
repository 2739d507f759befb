"""Images that hold their number: those that chose and those that are reported never meet."""

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest
import tensorflow as tf
from conftest import quick

from larq_nas import Architecture, searchers, spaces
from larq_nas.errors import InputError
from larq_nas.training import Recipe

CLASSES = 3
WIDTHS = spaces.VggSmall(ratios=(0.03125, 0.0625))
CELLS = spaces.Bats(cells=3, channels=4, nodes=1)
NARROW = spaces.ResNet18Cifar(binarization="dms")
EVOLUTION = searchers.Evolution(
    population=2, candidate_epochs=1, widest_epochs=1, recipe=Recipe(stages=("binary",))
)
TRAIN, VALIDATION, TEST = range(60), range(100, 130), range(200, 221)
SETTINGS: dict[str, Any] = {"recipe": {"stages": ("binary",)}, "train_epochs": 1, "verbose": 0}


def numbered(numbers: range) -> tuple[np.ndarray, np.ndarray]:
    """Return images of noise whose first pixel is their number."""
    images = np.random.default_rng(0).normal(size=(len(numbers), 8, 8, 1)).astype("float32")
    images[:, 0, 0, 0] = numbers
    return images, np.arange(len(numbers), dtype="int32") % CLASSES


class Reads:
    """Counts which images Keras trains or measures on, before there is an architecture and after.

    Every step and every measurement of a search and a training is Keras's `fit` or `evaluate`.
    """

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found = directory / "architecture.json"
        self.chose: Counter[int] = Counter()
        self.later: Counter[int] = Counter()
        fit, evaluate = tf.keras.Model.fit, tf.keras.Model.evaluate

        def fit_noting(model: Any, x: Any, **options: Any) -> Any:
            measured = options.pop("validation_data", None)
            return fit(
                model, self.noting(x), validation_data=measured and self.noting(measured), **options
            )

        def evaluate_noting(model: Any, x: Any, **options: Any) -> Any:
            return evaluate(model, self.noting(x) if hasattr(x, "map") else x, **options)

        monkeypatch.setattr(tf.keras.Model, "fit", fit_noting)
        monkeypatch.setattr(tf.keras.Model, "evaluate", evaluate_noting)

    def noting(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Return the batches, each noted as it is read."""

        def note(images: np.ndarray) -> None:
            read = self.later if self.found.exists() else self.chose
            read.update(images[:, 0, 0, 0].astype(int).tolist())

        def noted(*parts: Any) -> Any:
            for part in tf.nest.flatten(parts):
                if part.shape.rank == 4:
                    with tf.control_dependencies([tf.numpy_function(note, [part], [])]):
                        parts = tf.nest.map_structure(tf.identity, parts)
            return parts

        return batches.map(noted)


CASES = [
    (WIDTHS, EVOLUTION, {"retrain": 2}),
    (CELLS, searchers.Differentiable(derived_epoch="best"), {}),
    (WIDTHS, EVOLUTION, {}),
    (WIDTHS, EVOLUTION, {"seeds": 2, "pick_epochs": 1}),
    (CELLS, searchers.Differentiable(), {"seeds": 2, "pick_epochs": 1}),
    (NARROW, searchers.Dms(initial_ratio=0.3, weight_epochs=1), {}),
    (NARROW, searchers.Dms(initial_ratio=0.3, weight_epochs=1), {"seeds": 2, "pick_epochs": 1}),
]


@pytest.mark.parametrize(("space", "searcher", "options"), quick(CASES, 0))
def test_no_image_that_chose_is_reported(
    space: Any, searcher: Any, options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Reads(tmp_path / "run", monkeypatch)
    larq_nas.search(
        *map(numbered, (TRAIN, VALIDATION)),
        space,
        searcher,
        test=numbered(TEST),
        epochs=2,
        directory=tmp_path / "run",
        **SETTINGS,
        **options,
    )
    # An epoch leaves out what does not fill a batch.
    assert len(set(reads.chose)) > len(TRAIN) / 2
    assert set(reads.chose) <= set(TRAIN)
    assert {*VALIDATION, *TEST} <= set(reads.later) <= {*TRAIN, *VALIDATION, *TEST}
    assert {reads.later[number] for number in TEST} == {1}


def rows(directory: Path) -> list[dict[str, str]]:
    with open(directory / "retrained.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_of_the_best_candidates_the_best_trained_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = [numbered(part) for part in (TRAIN, VALIDATION)]
    settings = {**SETTINGS, "epochs": 2, "retrain": 3}
    larq_nas.search(*data, WIDTHS, EVOLUTION, directory=tmp_path / "whole", **settings)
    told = rows(tmp_path / "whole")
    assert [row["rank"] for row in told] == ["1", "2", "3"]
    best = max(told, key=lambda row: float(row["accuracy"]))
    found = Architecture.load(tmp_path / "whole" / "architecture.json")
    assert {name: float(best[name]) for name in found.choices} == found.choices
    assert len({tuple(row[name] for name in found.choices) for row in told}) == 3

    class EndedError(Exception):
        """Ends a run within the second of the trainings."""

    class End(tf.keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            if (tmp_path / "cut" / "retrain" / "2").exists():
                raise EndedError

    fit = tf.keras.Model.fit

    def ending(model: Any, *args: Any, callbacks: Any = (), **options: Any) -> Any:
        return fit(model, *args, callbacks=[*callbacks, End()], **options)

    monkeypatch.setattr(tf.keras.Model, "fit", ending)
    with pytest.raises(EndedError):
        larq_nas.search(*data, WIDTHS, EVOLUTION, directory=tmp_path / "cut", **settings)
    monkeypatch.undo()
    assert len(rows(tmp_path / "cut")) == 1
    larq_nas.search(*data, WIDTHS, EVOLUTION, directory=tmp_path / "cut", **settings)
    for name in ("architecture.json", "retrained.csv", "model.tflite", "ranking.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("searcher", "options", "message"),
    [
        (searchers.Differentiable(), {}, "searcher `differentiable` finds one network"),
        (EVOLUTION, {"seeds": 2}, "`retrain` and `seeds` both choose"),
        (EVOLUTION, {"train_epochs": 0}, "`retrain` needs `train_epochs` above 0"),
        (EVOLUTION, {"retrain": 0}, "`retrain` must be positive"),
    ],
)
def test_what_cannot_be_retrained_is_refused_before_anything_is_written(
    searcher: Any, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    space = WIDTHS if searcher is EVOLUTION else CELLS
    settings = {**SETTINGS, "epochs": 2, "retrain": 2, "directory": tmp_path / "run", **options}
    with pytest.raises(InputError, match=message):
        larq_nas.search(*map(numbered, (TRAIN, VALIDATION)), space, searcher, **settings)
    assert not (tmp_path / "run").exists()
