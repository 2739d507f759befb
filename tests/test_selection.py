"""What a search chooses by, and what a run reports, share no image."""

import csv
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from conftest import quick

import larq_nas
from larq_nas import Architecture, searchers, spaces
from larq_nas.data.data import Data, read_data
from larq_nas.data.share import hash_images
from larq_nas.errors import DivergenceError, InputError
from larq_nas.finalists import best_of_ranking, best_of_seeds
from larq_nas.run_directory import RunDirectory
from larq_nas.searchers.searcher import SEARCH_SPLIT

SHAPE, CLASSES = (8, 8, 1), 3
WIDTHS = spaces.VggSmall(ratios=(0.05, 0.1))
CELLS = spaces.Bats(cells=3, channels=4, nodes=1)


def _examples(number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(seed).normal(size=(number, *SHAPE)).astype("float32")
    return images, np.arange(number, dtype="int32") % CLASSES


def _data(**options: Any) -> Data:
    pair = [tf.data.Dataset.from_tensor_slices(_examples(60, seed)).batch(10) for seed in (0, 1)]
    settings = {"augment": None, "seed": 0, **options}
    return read_data(pair[0], pair[1], None, space=CELLS, verbose=0, **settings)


def _hashes(data: tf.data.Dataset) -> list[int]:
    return [int(one) for images, *_ in data for one in hash_images(images.numpy())]


def test_images_that_compare_candidates_are_of_neither_part() -> None:
    data = _data()
    apart = data.to_search(0.2)
    trained, compared, reported = map(_hashes, (apart.train, apart.validation, data.validation))
    assert sorted(trained + compared) == sorted(_hashes(data.train))
    assert len(compared) == 12
    assert not set(trained) & set(compared)
    assert not set(reported) & {*trained, *compared}
    assert (apart.facts.train_examples, apart.facts.validation_examples) == (48, 12)
    labels = np.concatenate([labels for _, labels in apart.validation])
    assert np.bincount(labels).tolist() == [4, 4, 4]
    assert _hashes(_data().to_search(0.2).validation) == compared
    assert _hashes(_data(seed=1).to_search(0.2).validation) != compared
    subset = apart.subset(9)
    assert len(_hashes(subset.train)) == 9
    assert set(_hashes(subset.train)) < set(trained)
    assert _hashes(subset.validation) == compared


def test_few_images_are_on_both_sides_and_a_single_one_is_trained_on() -> None:
    def halves(classes: list[int]) -> list[list[int]]:
        labels = np.array(classes, "int32")
        images = np.random.default_rng(0).normal(size=(len(labels), *SHAPE)).astype("float32")
        measured = np.random.default_rng(1).normal(size=(4, *SHAPE)).astype("float32")
        data = read_data(
            (images, labels), (measured, np.arange(4) % 2), None, None, 0, CELLS, verbose=0
        )
        apart = data.to_search(0.1, told.append)
        assert apart.facts.train_examples + apart.facts.validation_examples == len(labels)
        parts = (apart.train, apart.validation)
        return [sorted(int(one) for _, y in part for one in y) for part in parts]

    told: list[str] = []
    assert halves([0, 0, 1, 1]) == [[0, 1], [0, 1]]
    assert halves([0, 0, 0, 1]) == [[0, 0, 1], [0]]
    assert ["of classes with one image, 1, none" in line for line in told] == [False, True]
    with pytest.raises(InputError, match="each class has one image: give more"):
        halves([0, 1])


def test_a_searcher_that_halves_has_nothing_to_measure_on() -> None:
    assert not _hashes(_data().to_search(0.0).validation)


def test_weights_of_classes_do_not_count_where_candidates_are_compared() -> None:
    apart = _data(class_weight={0: 1.0, 1: 2.0, 2: 3.0}).to_search(0.2)
    assert [len(part.element_spec) for part in (apart.train, apart.validation)] == [3, 2]


def test_images_of_another_shape_are_compared_as_they_are_augmented() -> None:
    images, labels = _examples(60, 0)
    large = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    train = tf.data.Dataset.from_tensor_slices((large, labels)).batch(10)
    measured = tf.data.Dataset.from_tensor_slices(_examples(30, 1)).batch(10)
    data = read_data(train, measured, None, "crop", 0, CELLS, 0)
    apart = data.to_search(0.2)
    assert apart.validation.element_spec[0].shape[1:] == SHAPE
    assert _hashes(apart.validation) == _hashes(apart.validation)


@pytest.mark.parametrize(
    ("space", "searcher", "epochs"),
    quick(
        [
            (WIDTHS, searchers.Evolution(2, 1, 1), 1),
            (WIDTHS, searchers.Evolution(2, 1, 1, subset=20), 1),
            (CELLS, searchers.Differentiable(), 2),
            (CELLS, searchers.Progressive(stage_cells=(3, 4), stage_operations=(8, 3)), 2),
            (
                spaces.ResNet18Cifar(binarization="dms"),
                searchers.Dms(initial_ratio=0.3, weight_epochs=1),
                2,
            ),
        ],
        2,
    ),
    ids=["evolution", "subset", "differentiable", "progressive", "dms"],
)
def test_no_search_reads_what_is_reported(
    tmp_path: Path, space: Any, searcher: Any, epochs: int
) -> None:
    reads: list[bool] = []
    images, labels = _examples(30, 1)

    def examples() -> Any:
        reads.append((tmp_path / "run" / "architecture.json").exists())
        yield from zip(images, labels, strict=True)

    spec = (tf.TensorSpec(SHAPE, tf.float32), tf.TensorSpec((), tf.int32))
    measured = tf.data.Dataset.from_generator(examples, output_signature=spec).batch(10)
    checked: list[int] = []

    class Begin(tf.keras.callbacks.Callback):
        """Notes how often the data was read when the first training begins."""

        def on_train_begin(self, logs: Any = None) -> None:
            checked.append(len(reads))

    larq_nas.search(
        tf.data.Dataset.from_tensor_slices(_examples(60, 0)).batch(10),
        measured,
        space,
        searcher,
        epochs=epochs,
        train_epochs=1,
        directory=tmp_path / "run",
        callbacks=[Begin()],
        verbose=0,
    )
    # From the first step of the search on, it is read once there is an architecture.
    later = reads[checked[0] :]
    assert later
    assert all(later)


@pytest.mark.slow
def test_of_several_seeds_the_best_on_images_held_out_goes_on(tmp_path: Path) -> None:
    train, measured = (
        tf.data.Dataset.from_tensor_slices(_examples(90, seed)).batch(10) for seed in (0, 1)
    )

    def run(directory: Path, **options: Any) -> None:
        settings = {"seed": 3, "seeds": 2, "pick_epochs": 1, "verbose": 0, **options}
        larq_nas.search(
            train,
            measured,
            CELLS,
            searchers.Differentiable(architecture_learning_rate=0.1),
            recipe={"stages": ("binary",)},
            epochs=2,
            train_epochs=1,
            directory=directory,
            **settings,
        )

    def architecture(directory: Path) -> str:
        return (directory / "architecture.json").read_text(encoding="utf-8")

    found = tmp_path / "run"
    run(found)
    with open(found / "seeds.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows] == ["3", "4"]
    best = max(rows, key=lambda row: float(row["accuracy"]))["seed"]
    assert architecture(found) == architecture(found / f"seed{best}")
    # Each is what a search by its seed finds, and can be derived from.
    run(tmp_path / "alone", seed=4, seeds=1, pick_epochs=None)
    assert architecture(tmp_path / "alone") == architecture(found / "seed4")
    assert larq_nas.derive(found / "seed4").to_json() == architecture(found / "seed4")
    # What a run that ended in the second search has goes on to the same.
    shutil.copytree(found, tmp_path / "ended", ignore=shutil.ignore_patterns("checkpoints"))
    for path in ("architecture.json", "model.keras", "model.tflite", "result.json", "seeds.csv"):
        (tmp_path / "ended" / path).unlink()
    shutil.rmtree(tmp_path / "ended" / "seed4")
    run(tmp_path / "ended")
    for path in ("architecture.json", "seeds.csv", "model.tflite"):
        assert (tmp_path / "ended" / path).read_bytes() == (found / path).read_bytes()


def test_no_seed_is_compared_on_the_images_that_its_search_chose_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen_by: list[int] = []
    compared_on: list[int] = []

    class Own(searchers.Differentiable):
        """Compares candidates on a tenth of the training images."""

        def held_out(self, train_examples: int) -> float:
            return SEARCH_SPLIT

        def prepare(self, space: Any, data: Data, *rest: Any) -> Any:
            chosen_by.extend(_hashes(data.validation))
            return super().prepare(space, data, *rest)

    def pick(seeds: Any, run: RunDirectory, find: Any, measure: Any, verbose: Any) -> Any:
        measure(Architecture.random(CELLS, SHAPE, CLASSES, 0), run)

    class PickedError(Exception):
        """Ends the run."""

    def trainer(architecture: Any, space: Any, data: Data, *rest: Any) -> Any:
        compared_on.extend(_hashes(data.validation))
        raise PickedError

    module = sys.modules["larq_nas.search"]
    monkeypatch.setattr(module, "best_of_seeds", pick)
    monkeypatch.setattr(module, "Trainer", trainer)
    train, measured = ((_examples(60, seed)) for seed in (0, 1))
    with pytest.raises(PickedError):
        larq_nas.search(
            train,
            measured,
            CELLS,
            Own(weights_only=0),
            epochs=1,
            seed=3,
            seeds=2,
            directory=tmp_path / "run",
            verbose=0,
        )
    assert len(chosen_by) == len(compared_on) == 6
    assert set(chosen_by) != set(compared_on)


@pytest.mark.parametrize("fails", [{3}, {5}, {3, 4, 5}])
def test_a_seed_that_diverges_is_left_out(tmp_path: Path, fails: set[int]) -> None:
    found = {seed: Architecture("bats", {}, {"seed": seed}) for seed in (3, 4, 5)}

    def find(seed: int, part: RunDirectory) -> Architecture:
        if seed in fails:
            raise DivergenceError(f"{seed} diverged")
        return found[seed]

    def measure(architecture: Architecture, part: RunDirectory) -> dict[str, float]:
        return {"accuracy": float(architecture.choices["seed"]), "loss": 1.0}

    def pick() -> Architecture:
        with RunDirectory(tmp_path, {"seeds": 3}) as run:
            return best_of_seeds(range(3, 6), run, find, measure, 0)

    if len(fails) == 3:
        with pytest.raises(DivergenceError, match="5 div"), pytest.warns(match="Seed 3 is left"):
            pick()
        return
    with pytest.warns(match="is left out"):
        assert pick() == found[max(found.keys() - fails)]
    with open(tmp_path / "seeds.csv", newline="", encoding="utf-8") as file:
        assert {int(row["seed"]) for row in csv.DictReader(file)} == found.keys() - fails


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "`seeds` must be"),
        ({"seeds": 2, "pick_epochs": 0}, "`pick_epochs` must be"),
        ({"pick_epochs": 3}, "`pick_epochs` has no effect on one search"),
        ({"seeds": 2, "seed": 2**31 - 1}, "`seed` must be a whole number from 0 to 2147483646"),
        (
            {"seeds": 2, "callbacks": [tf.keras.callbacks.ModelCheckpoint("search")]},
            "stage `search`, whose many trainings write over",
        ),
        ({"seeds": 2, "time_limit": "1h"}, "`time_limit` is for one search"),
    ],
)
def test_seeds_that_cannot_be_searched_are_refused(options: Any, message: str) -> None:
    train = tf.data.Dataset.from_tensor_slices(_examples(20, 0)).batch(10)
    with pytest.raises(InputError, match=message):
        larq_nas.search(train, train, CELLS, verbose=0, **options)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_data_that_seeds_cannot_be_compared_on_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("larq_nas.data.validation._HELD_BYTES", 0)
    train = tf.data.Dataset.from_tensor_slices(_examples(20, 0)).shuffle(20).batch(10)
    measured = tf.data.Dataset.from_tensor_slices(_examples(20, 1)).batch(10)
    run = tmp_path / "run"
    with pytest.raises(InputError, match="only if it comes in one"):
        larq_nas.search(train, measured, CELLS, epochs=1, seeds=2, directory=run, verbose=0)
    assert not run.exists()


def test_one_candidate_is_not_trained_to_be_chosen(tmp_path: Path) -> None:
    def measure(*arguments: Any) -> Any:
        raise AssertionError("there is nothing to choose")

    only = Architecture.published("bats")
    with pytest.warns(UserWarning, match="`retrain` has no effect: the search has ranked one"):
        assert best_of_ranking([only], RunDirectory(tmp_path, {}), measure, 0) == only
