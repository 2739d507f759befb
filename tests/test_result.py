"""The result of a run: returned, loaded, and shown in a notebook."""

import gc
import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from conftest import quick

import larq_nas
from larq_nas import errors, run_directory
from larq_nas.cost import profile
from larq_nas.deploy.conversion import digest
from larq_nas.errors import InputError, warn
from larq_nas.run_directory import RunDirectory
from larq_nas.spaces import Bats
from larq_nas.train import of_classes
from larq_nas.training import Recipe

SPACE = Bats(cells=1, channels=4, nodes=1)
ARCHITECTURE = larq_nas.Architecture.random(SPACE, (8, 8, 1), 10, 0)


def data() -> tuple[tf.data.Dataset, tf.data.Dataset]:
    train, validation = larq_nas.datasets.load("digits", batch_size=32)
    return train.take(3), validation.take(2)


def train(directory: Path | None, verbose: int = 0, **changes: object) -> larq_nas.Result:
    return larq_nas.train(
        ARCHITECTURE,
        *data(),
        recipe=Recipe(stages=("binary",)),
        epochs=2,
        directory=directory,
        return_result=True,
        verbose=verbose,
        **changes,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("result") / "run"
    result = train(directory)
    assert result.directory == directory
    return directory


def test_a_run_is_loaded_as_it_was_returned(run: Path) -> None:
    """The same call on a finished run returns what `load` reads."""
    loaded, returned = larq_nas.load(run), train(run)
    assert str(loaded) == str(returned)
    assert loaded.history == returned.history
    assert [row["epoch"] for row in loaded.history] == [1, 2]
    assert loaded.accuracy == pytest.approx(loaded.history[-1]["val_accuracy"], abs=1e-5)
    assert loaded.architecture == ARCHITECTURE
    assert loaded.conversion.summary() == returned.conversion.summary()
    assert loaded.conversion.flatbuffer == (run / "model.tflite").read_bytes()
    assert loaded.conversion.weights == digest(loaded.model)
    assert loaded.model.evaluate(data()[1], verbose=0) == [loaded.loss, loaded.accuracy]


def test_a_finished_run_says_so_and_how_each_class_does(run: Path, capsys: Any) -> None:
    train(run, verbose=2)
    told = capsys.readouterr().out
    assert f"The run in `{run}` was finished before" in told
    line = next(line for line in told.splitlines() if line.startswith("accuracy of each class"))
    shares = [float(share) for share in re.findall(r" ([\d.]+)%", line)]
    assert shares == sorted(shares)
    assert len(shares) == 10


def test_the_lowest_of_many_classes_are_told() -> None:
    told = of_classes({f"c{number}": number / 100 for number in range(100)})
    assert told.startswith("accuracy of the 12 lowest of 100 classes: c0 0.00%, c1 1.00%")
    assert told.endswith("c11 11.00%")


def test_a_run_in_the_home_folder_is_found(run: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HOME", str(run.parent))
    assert larq_nas.load("~/run").directory == run
    assert larq_nas.load("~/run/model.keras").output_shape == (None, 10)
    assert larq_nas.Architecture.read("~/run") == ARCHITECTURE
    assert RunDirectory("~/another", {}).directory == run.parent / "another"


def test_accuracies_of_classes_are_those_of_their_images(run: Path) -> None:
    result = larq_nas.load(run)
    labels = np.concatenate([labels for _, labels in data()[1]])
    found = np.concatenate([result.model.predict(x, verbose=0) for x, _ in data()[1]]).argmax(-1)
    assert result.class_accuracy == {
        str(label): pytest.approx((found[labels == label] == label).mean())
        for label in np.unique(labels)
    }


def test_top_5_is_the_share_of_images_whose_class_is_among_five(run: Path) -> None:
    result = larq_nas.load(run)
    labels = np.concatenate([labels for _, labels in data()[1]])
    logits = np.concatenate([result.model.predict(x, verbose=0) for x, _ in data()[1]])
    five = np.argsort(logits, axis=-1)[:, -5:]
    assert result.top5_accuracy == pytest.approx(np.mean((five == labels[:, None]).any(axis=-1)))
    assert result.accuracy < result.top5_accuracy
    assert "top-5 accuracy" in str(result)


def test_times_of_all_calls_are_added_up(run: Path, tmp_path, monkeypatch) -> None:
    """A killed part goes on from what it had; `result.json` has no times, and stays the same."""
    assert larq_nas.load(run).seconds.keys() == {"train"}
    part = RunDirectory(tmp_path, {})
    (tmp_path / "times.json").write_text('{"search": 3600.0, "train": 60.0}')
    with pytest.raises(KeyboardInterrupt), part.timed("train"):
        raise KeyboardInterrupt
    assert part.read_times()["search"] == 3600
    assert 60 <= part.read_times()["train"] < 3600
    monkeypatch.setattr(run_directory, "_KEEP_SECONDS", 0.01)
    part.times.unlink()
    with part.timed("search"):
        # It is kept while it runs, for those who are killed.
        while not part.times.exists():
            pass
    (tmp_path / "times.json").write_text("[]")
    assert part.read_times() == {}


def test_without_a_directory_it_holds_everything(tmp_path, capsys) -> None:
    result = train(None, verbose=2)
    printed = capsys.readouterr().out
    assert "no file is kept: give `directory`" in printed
    assert "/tmp" not in printed
    assert result.directory is None
    result.conversion.save(tmp_path / "model.tflite")
    assert (tmp_path / "model.tflite").read_bytes() == result.conversion.flatbuffer
    assert result.model.optimizer
    assert "not kept" in str(result)


def test_a_notebook_shows_tables(run: Path) -> None:
    result = larq_nas.load(run)
    costs = profile(result.model)
    for shown in (result, result.conversion, costs, result.architecture):
        html = shown._repr_html_()
        assert html.startswith(("<table>", "<pre>"))
        assert "(" + "layers=" not in html
    assert "accuracy" in result._repr_html_()
    assert repr(result).startswith("Result(space='bats', accuracy=")
    assert "flatbuffer" in str(result)


def test_what_is_no_result_is_refused(run: Path, tmp_path) -> None:
    assert larq_nas.load(run / "model.keras").optimizer
    with pytest.raises(InputError, match="is converted: load the Keras model"):
        larq_nas.load(run / "model.tflite")
    with pytest.raises(InputError, match=r"Cannot load a Keras model from .*nothing.keras"):
        larq_nas.load(tmp_path / "nothing.keras")
    with pytest.raises(InputError, match="holds no run"):
        larq_nas.load(tmp_path)
    (tmp_path / "settings.json").write_text((run / "settings.json").read_text())
    with pytest.raises(InputError, match=r"has no whole result .*: finish it with the same call"):
        larq_nas.load(tmp_path)
    with pytest.raises(InputError, match=r"Architecture\.load"):
        larq_nas.load(run / "architecture.json")
    for path in ("nothing.keras", "nothing"):
        with pytest.raises(InputError, match=r"there is no such file\.$"):
            larq_nas.load(tmp_path / path)
    (tmp_path / "cut.keras").write_bytes((run / "model.keras").read_bytes()[:999])
    with pytest.raises(InputError, match=r"cut.keras`: .*\w\)\.$"):
        larq_nas.load(tmp_path / "cut.keras")
    larq_nas.load(run).model.save_weights(tmp_path / "weights.h5")
    with pytest.raises(InputError, match="it holds weights alone; build the network"):
        larq_nas.load(tmp_path / "weights.h5")
    with pytest.raises(InputError, match="`path` must be that of a run or a model, but got 3"):
        larq_nas.load(3)


def result_with(**changes: Any) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        path = directory / "result.json"
        told = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({k: v for k, v in told.items() if v is not KeyError}))

    return change


def file_with(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda directory: (directory / name).write_bytes(content) and None


WHOLE = "has no whole result .*: finish it with the same call"


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        *(
            (result_with(**changes), WHOLE)
            for changes in (
                {"accuracy": "x"},
                {"loss": None},
                {"costs": {}},
                {"costs": KeyError},
                {"budget": KeyError},
                {"class_accuracy": [1]},
                {"metrics": [1]},
                {"parity": [1]},
                {"audit": [1]},
                {"bytes": 3},
            )
        ),
        (file_with("model.tflite", b""), WHOLE),
        (file_with("result.json", b"[]"), WHOLE),
        (file_with("history.csv", b"stage,epoch,loss\ntrain,x,y\n"), "not the history of a run"),
        (file_with("history.csv", b"stage,epoch,loss\ntrain,1,1,1\n"), "not the history of a run"),
        (file_with("history.csv", b"\xff\xfe\0"), "not the history of a run"),
        (file_with("time_limit.json", b"{"), "is damaged: delete it"),
        (
            file_with("settings.json", b'{"schema": "3", "settings": {}}'),
            "not the settings of a run",
        ),
        (
            file_with("settings.json", b'{"schema": 3, "settings": [1]}'),
            "not the settings of a run",
        ),
        (
            file_with("settings.json", b'{"schema": 3, "settings": null}'),
            "not the settings of a run",
        ),
    ],
)
def test_what_is_damaged_is_named_in_one_line(
    run: Path, tmp_path: Path, damage: Callable[[Path], None], told: str
) -> None:
    shutil.copytree(run, tmp_path / "run")
    damage(tmp_path / "run")
    with pytest.raises(InputError, match=f"^[^\n]*{told}[^\n]*$"):
        larq_nas.load(tmp_path / "run")


@pytest.mark.parametrize("changes", [{"accuracy": "x"}, {"costs": {}}, {"bytes": 3}])
def test_the_same_call_mends_a_damaged_result(run: Path, tmp_path: Path, changes: Any) -> None:
    shutil.copytree(run, tmp_path / "run")
    result_with(**changes)(tmp_path / "run")
    assert train(tmp_path / "run").accuracy == larq_nas.load(run).accuracy
    assert (tmp_path / "run" / "result.json").read_bytes() == (run / "result.json").read_bytes()


def test_what_is_not_kept_goes_without_a_warning() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        result = train(None)
        gc.collect()
    assert not [one for one in told if issubclass(one.category, ResourceWarning)]
    assert result.directory is None


def relabelled(change: Callable[[tf.Tensor], tf.Tensor], batches: int) -> tf.data.Dataset:
    train, _ = larq_nas.datasets.load("digits", batch_size=32)
    return train.map(lambda images, labels: (images, change(labels))).take(batches)


@pytest.mark.parametrize(
    ("change", "told"),
    quick(
        [
            (lambda labels: labels, ""),
            (lambda labels: tf.one_hot(labels, 10), ""),
            (lambda labels: 0.9 * tf.one_hot(labels, 10) + 0.01, ""),
            (lambda labels: labels[:, None], ""),
            (lambda labels: labels + 1, "takes class numbers, 0 to 9 for 1, 2, 3"),
            (tf.strings.as_string, "takes class numbers, 0 to 9 for 0, 1, 2"),
        ],
        1,
        5,
    ),
)
def test_the_model_is_compiled_for_the_labels_that_were_given(
    change: Callable[[tf.Tensor], tf.Tensor], told: str, tmp_path: Path, capsys: Any
) -> None:
    train, validation = relabelled(change, 8), relabelled(change, 3)
    result = larq_nas.train(
        ARCHITECTURE,
        train,
        validation,
        recipe=Recipe(stages=("binary",)),
        epochs=0,
        directory=tmp_path / "run",
        return_result=True,
        verbose=2,
    )
    shown = capsys.readouterr().out
    assert told in shown
    assert ("takes class numbers" in shown) == bool(told)
    known = relabelled(lambda labels: labels, 3) if told else validation
    for model in (result.model, larq_nas.load(tmp_path / "run").model):
        loss, accuracy = model.evaluate(known, verbose=0)
        assert loss == pytest.approx(result.loss, rel=1e-5)
        assert accuracy == pytest.approx(result.accuracy)


class Interrupts(tf.keras.callbacks.Callback):
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        warn("told before the end")
        raise KeyboardInterrupt


def test_what_a_run_has_warned_of_is_kept(tmp_path: Path) -> None:
    train = relabelled(lambda labels: labels, 8)

    def run(directory: Path, **changes: Any) -> larq_nas.Result:
        recipe = Recipe(stages=("binary",))
        settings = {"recipe": recipe, "epochs": 1, "directory": directory, "verbose": 0, **changes}
        return larq_nas.train(ARCHITECTURE, train, train.take(2), return_result=True, **settings)

    overlap, early = "images of `validation` are in `train` too", "told before the end"
    with pytest.warns(UserWarning, match=overlap), pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", callbacks=Interrupts())
    with pytest.warns(UserWarning, match=overlap):
        result = run(tmp_path / "run")
    for one in (result, larq_nas.load(tmp_path / "run"), run(tmp_path / "run")):
        assert [overlap in one.warnings[0], one.warnings[1]] == [True, early]
        assert len(set(one.warnings)) == len(one.warnings)
    told = json.loads((tmp_path / "run" / "result.json").read_text())
    assert told["run_warnings"] == list(result.warnings[:2])
    assert early not in result.conversion.warnings
    # Those of one run are not those of the next.
    assert early not in run(tmp_path / "other").warnings
    assert not errors._TOLD
