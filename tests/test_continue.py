"""Searches that go on to more epochs than they were first asked for."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import pytest
import tensorflow as tf

from larq_nas.errors import InputError
from larq_nas.run_directory import RunDirectory
from larq_nas.searchers import Evolution
from larq_nas.spaces import Bats, VggSmall
from larq_nas.training import Recipe
from larq_nas.training.loop import read_history

SPACE = VggSmall(ratios=(0.03125, 0.0625, 0.125))
SEARCHER = Evolution(
    population=2,
    candidate_epochs=1,
    widest_epochs=1,
    subset=60,
    recipe=Recipe(stages=("binary",)),
    confirm=0,
)
SETTINGS: dict[str, Any] = {"space": SPACE, "searcher": SEARCHER, "train_epochs": 1, "verbose": 0}


@pytest.fixture(scope="module")
def data() -> tuple[tf.data.Dataset, tf.data.Dataset]:
    train, validation = larq_nas.datasets.load("digits", batch_size=20)
    return train.take(10), validation.take(2)


def found(directory: Path) -> dict[str, Any]:
    model = tf.keras.models.load_model(directory / "model.keras")
    front = {path.name: path.read_bytes() for path in (directory / "pareto").iterdir()}
    names = ("candidates.csv", "architecture.json", "model.tflite", "history.csv", "result.json")
    kept = {name: (directory / name).read_bytes() for name in names}
    for name in ("ranking.json", "confirmed.csv"):
        kept[name] = (directory / name).read_bytes() if (directory / name).exists() else b""
    return {**kept, **front, "weights": [weight.tobytes() for weight in model.get_weights()]}


@pytest.mark.slow
@pytest.mark.parametrize("confirm", [0, 2])
def test_a_search_that_goes_on_equals_one_of_as_many_generations(
    confirm: int, data: Any, tmp_path: Path
) -> None:
    searcher = dataclasses.replace(SEARCHER, confirm=confirm, confirm_epochs=1)
    settings = {**SETTINGS, "searcher": searcher}
    larq_nas.search(*data, directory=tmp_path / "whole", epochs=4, **settings)
    larq_nas.search(*data, directory=tmp_path / "longer", epochs=2, **settings)
    first = found(tmp_path / "longer")
    larq_nas.search(*data, directory=tmp_path / "longer", epochs=4, **settings)
    assert found(tmp_path / "longer") == found(tmp_path / "whole")
    assert first["candidates.csv"] != found(tmp_path / "longer")["candidates.csv"]
    told = [
        json.loads((tmp_path / one / "settings.json").read_text()) for one in ("longer", "whole")
    ]
    assert told[0] == told[1]


def finished(directory: Path, epochs: int = 2, continues: bool = True) -> RunDirectory:
    """Return a run as a search and a training have left it."""
    run = RunDirectory(
        directory, {"searcher": {"name": "x"}, "epochs": epochs}, continues=continues
    )
    with run:
        for path in (run.result, run.model, run.architecture, run.ranking, run.widest):
            path.write_text("{}")
        for stage in ("widest", "train_binary"):
            run.checkpoints(stage).mkdir(parents=True)
            (run.checkpoints(stage) / "finished").touch()
        (run.directory / "retrain" / "1").mkdir(parents=True)
        run.history.write_text("stage,epoch,loss\nwidest,1,2\ntrain_binary,1,1\n")
    return run


def test_what_follows_the_search_is_removed_wherever_that_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed = 0

    def end(self: RunDirectory, *paths: Path) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        remove(self, *paths)

    remove = RunDirectory._remove
    for kills in range(20):
        directory = tmp_path / str(kills)
        finished(directory)
        longer = RunDirectory(directory, {"searcher": {"name": "x"}, "epochs": 4}, continues=True)
        left = kills
        with monkeypatch.context() as patch:
            patch.setattr(RunDirectory, "_remove", end)
            try:
                with longer:
                    removed = kills
            except KeyboardInterrupt:
                longer.__exit__()
                assert longer.goes_on
        with longer:
            pass
        assert not longer.goes_on
        names = {path.name for path in directory.iterdir()}
        assert names == {
            ".lock",
            "settings.json",
            "widest.weights.h5",
            "checkpoints",
            "history.csv",
            "times.json",
        }
        assert [path.name for path in longer.checkpoints("").iterdir()] == ["widest"]
        assert [row["stage"] for row in read_history(longer.history)] == ["widest"]
        if removed:
            break
    assert removed > 3


def test_fewer_epochs_and_searchers_that_do_not_go_on_are_refused(tmp_path: Path) -> None:
    finished(tmp_path / "evolution", epochs=4)
    settings = {"searcher": {"name": "x"}, "epochs": 3}
    fewer = RunDirectory(tmp_path / "evolution", settings, continues=True)
    with pytest.raises(InputError, match=r"epochs was 4, now 3\): a search goes on to more epochs"):
        fewer.check()
    assert fewer.model.exists()
    finished(tmp_path / "dms", continues=False)
    other = RunDirectory(tmp_path / "dms", settings)
    with pytest.raises(InputError, match=r"epochs was 2, now 3\): searcher `x` cannot go on to"):
        other.check()
    more = {**settings, "epochs": 8, "seed": 1}
    with pytest.raises(InputError, match=r"other settings \(seed was None, now 1\)"):
        RunDirectory(tmp_path / "evolution", more, continues=True).check()


def test_another_length_of_the_training_is_refused_with_its_reason(
    data: Any, tmp_path: Path
) -> None:
    space = Bats(cells=1, channels=4, nodes=1)
    settings: dict[str, Any] = {"space": space, "verbose": 0, "directory": tmp_path, "epochs": 1}
    larq_nas.search(*data, train_epochs=0, **settings)
    with pytest.raises(InputError, match=r"train_epochs was 0, now 2\): learning rates run along"):
        larq_nas.search(*data, train_epochs=2, **settings)
    with pytest.raises(InputError, match="searcher `differentiable` cannot go on to other"):
        larq_nas.search(*data, train_epochs=0, **{**settings, "epochs": 2})
