"""Keras callbacks: by stage, refused where they would fail or mislead, and resumed."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from conftest import Interrupt, run_files

import larq_nas
from larq_nas.errors import InputError
from larq_nas.searchers import Differentiable, Dms, Evolution, Progressive
from larq_nas.spaces import Bats
from larq_nas.training import Recipe
from larq_nas.training import callbacks as ours
from larq_nas.training.callbacks import (
    CallbackStates,
    TimeLeft,
    TimeLimit,
    digests,
    read_ended,
    read_seconds,
    resolve_callbacks,
)
from larq_nas.training.metrics import Metrics
from larq_nas.training.trainer import epochs_of_stages, training_stages

K = tf.keras.callbacks
RECIPE = Recipe(learning_rate=0.02)
STAGES = ("train_real", "train_binary")


def resolved(given: Any, searcher: Any = None, train_epochs: int = 4) -> Any:
    groups = {
        "search": (searcher or Differentiable()).stages,
        "train": training_stages(RECIPE, Metrics()),
    }
    return resolve_callbacks(given, groups, epochs_of_stages(RECIPE, train_epochs))


def test_one_a_list_or_a_mapping_of_stages_to_either() -> None:
    one, other = K.EarlyStopping("loss"), K.TerminateOnNaN()
    assert resolved(one).of("search") == resolved([one]).of("train_binary") == (one,)
    assert not list(resolved(None))
    mixed = resolved({"search": other, "train": [other, one], "train_binary": one})
    assert mixed.of("search") == (other,)
    assert mixed.of("train_real") == mixed.of("train_binary") == (other, one)
    assert list(mixed) == [other, one]
    evolution = resolved({"search": one}, Evolution())
    assert evolution.of("widest") == evolution.of("candidates") == (one,)
    assert resolved({"search": one}, Progressive()).of("search_3") == (one,)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (lambda: K.EarlyStopping, "must hold objects of tf.keras.callbacks.Callback, but got <cla"),
        (lambda: ["EarlyStopping"], "must hold objects of tf.keras.callbacks.Callback, but got 'E"),
        (lambda: {"training": []}, "Unknown stage of `callbacks` `training`; did you mean `train`"),
        (lambda: K.ReduceLROnPlateau(), "cannot set the learning rate, but got ReduceLROnPlateau"),
        (lambda: K.BackupAndRestore("b"), "cannot resume a run, but got Backup.*give `directory`"),
        (
            lambda: [K.EarlyStopping("val_accuracy")],
            r"EarlyStopping monitors `val_accuracy`, which stage `search` does not have \(it has "
            r'accuracy, .*\): give callbacks=\{"train": \[EarlyStopping\(...\)\]\}',
        ),
        (lambda: {"train": K.EarlyStopping("val_acc")}, "`val_acc`.*: use another metric, or"),
        (
            lambda: K.ModelCheckpoint("best.keras", "val_accuracy", save_best_only=True),
            r'`val_accuracy`, which stage `search`.*callbacks=\{"train_binary": \[ModelCheckpoint',
        ),
        (
            lambda: {"train": K.ModelCheckpoint("b.keras", "val_loss", save_best_only=True)},
            r"keeps the best of stages `train_real`, `train_binary`, which need not be of the last "
            r'.*give callbacks=\{"train_binary": \[ModelCheckpoint',
        ),
        (
            lambda: K.ModelCheckpoint("{val_accuracy:.2f}.keras"),
            r"names files by `val_accuracy`, which stage `search` does not have after each epoch",
        ),
        (
            lambda: {"search": K.ModelCheckpoint("{search_loss:.2f}.keras")},
            "`search_loss`, which stage `search` does not have after each epoch",
        ),
        (
            lambda: {"train": K.ModelCheckpoint("{epoch:02d}.keras")},
            "names files by the epoch, which each of stages `train_real`, `train_binary` counts",
        ),
        (
            lambda: K.CSVLogger("log.csv"),
            "starts its file anew in each training of stages .*: give each stage one, or",
        ),
        (
            lambda: {"train": K.EarlyStopping("flip_ratio")},
            r'`flip_ratio`, which stage `train_real` .*callbacks=\{"train_binary": \[EarlyStopping',
        ),
        (
            lambda: {"train_binary": K.ModelCheckpoint("{val_loss}.keras", save_freq=9)},
            "saves after batches, by its `save_freq`, but `val_loss` is measured after epochs",
        ),
        (
            lambda: {
                "train_binary": K.ModelCheckpoint(
                    "b.keras", "val_accuracy", save_best_only=True, save_freq=9
                )
            },
            "saves after batches, by its `save_freq`, but `val_accuracy` is measured after epochs",
        ),
    ],
)
def test_what_would_fail_or_mislead_is_refused_with_the_mend(given, told: str) -> None:
    with pytest.raises(InputError, match=told):
        resolved(given())


@pytest.mark.parametrize("name", ["{epoch", "{}.keras", "{val_loss:d}", "{loss.x}", "{loss[x]}"])
def test_a_file_name_that_keras_cannot_fill_in_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"cannot fill in its file name .* such as \{val_loss:.2f"):
        resolved({"train_binary": K.ModelCheckpoint(name)})


def test_a_file_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    inside = str(tmp_path / "file" / "of" / "x.keras")
    for one in (K.ModelCheckpoint(inside), K.TensorBoard(inside), K.CSVLogger(inside)):
        with pytest.raises(InputError, match=r"cannot write .*x.keras`, as `.*file` is a file"):
            resolved({"train_binary": one})
    with pytest.raises(InputError, match=r"CSVLogger cannot write .*there is no folder `.*new`"):
        resolved({"train_binary": K.CSVLogger(tmp_path / "new" / "log.csv")})
    resolved({"train_binary": K.CSVLogger(str(tmp_path / "log.csv"))})
    # Keras makes the folders of these.
    resolved({"train_binary": K.ModelCheckpoint(str(tmp_path / "a" / "{epoch}" / "b.keras"))})
    resolved({"train_binary": K.TensorBoard(str(tmp_path / "a" / "b"))})
    resolved({"train_binary": K.TensorBoard("gs://bucket/logs")})


def test_figures_that_one_table_of_several_stages_leaves_out_are_told(recwarn: Any) -> None:
    table = K.CSVLogger("log.csv", append=True)
    resolved({"train_binary": table, "search": [K.CSVLogger("other.csv")]})
    assert not recwarn.list
    with pytest.warns(
        UserWarning, match="columns of stage `train_real` alone: `flip_ratio` is left out"
    ):
        resolved({"train": table})


@pytest.mark.parametrize("searcher", [Differentiable(), Progressive(), Evolution(), Dms()])
@pytest.mark.parametrize("only_best", [True, False])
@pytest.mark.parametrize("name", ["best.keras", "{epoch}.keras", "{val_loss:.2f}-{epoch}.keras"])
@pytest.mark.parametrize("metric", ["val_loss", "loss", "search_loss"])
def test_what_a_refusal_says_to_write_is_taken(searcher, only_best, name, metric) -> None:
    callback = K.ModelCheckpoint(name, metric, save_best_only=only_best)
    with contextlib.suppress(InputError):
        resolved(callback, searcher)
        return
    with pytest.raises(InputError) as refused:
        resolved(callback, searcher)
    found = re.search(r'give callbacks=\{"(\w+)"', str(refused.value))
    if found:
        resolved({found[1]: callback}, searcher)
    else:
        assert (metric == "search_loss" and only_best) or "leave it out" not in str(refused.value)


def test_what_trains_candidates_cannot_save_to_one_file() -> None:
    for one in (K.ModelCheckpoint("c.keras"), K.CSVLogger("c.csv")):
        with pytest.raises(InputError, match=r"training.*`candidates`|`candidates`.* trainings"):
            resolved({"candidates": one}, Evolution())
    with pytest.raises(InputError, match=r"`val_loss`, which stage `widest` .*accuracy, loss\)"):
        resolved({"search": K.EarlyStopping()}, Evolution())


def test_weights_of_other_widths_cannot_be_kept() -> None:
    with pytest.raises(InputError, match="`search`, whose widths change: leave it out"):
        resolved({"search": K.ModelCheckpoint("w.keras")}, Dms())
    with pytest.raises(InputError, match=r"changes the widths .* leave `restore_best_weights` out"):
        resolved({"search": K.EarlyStopping("loss", restore_best_weights=True)}, Dms())
    resolved({"search": K.EarlyStopping("loss")}, Dms())


def test_what_is_sound_is_not_refused() -> None:
    resolved(K.EarlyStopping("loss", patience=3))
    resolved(K.ModelCheckpoint("last.keras"))
    resolved({"train_binary": K.CSVLogger("log.csv", append=True)})
    resolved({"train_binary": K.ModelCheckpoint("{epoch}-{val_loss:.2f}.keras")})
    resolved({"search": K.EarlyStopping("search_accuracy")})
    # A training of one stage has no other to mix up, nor one whose first has no epochs.
    resolved({"train": K.ModelCheckpoint("b.keras", save_best_only=True)}, train_epochs=1)
    with pytest.warns(UserWarning, match="`callbacks` of `train` have no effect: it has no epochs"):
        resolved({"train": K.CSVLogger("log.csv")}, train_epochs=0)


class Mine(K.Callback):
    """A callback with values of each kind."""

    def __init__(self, patience: int = 3) -> None:
        super().__init__()
        self.patience, self.values, self.losses = patience, np.arange(4.0), [0.5]
        self.best: Any = None
        self.file: Any = None


def through_a_checkpoint(before: Mine, after: Mine, **changes: Any) -> Mine:
    saved = CallbackStates([before], [digests(before)])
    for name, value in changes.items():
        setattr(before, name, value)
    read = CallbackStates([after], [digests(after)])
    read.deserialize(saved.serialize())
    read.apply()
    return after


def test_states_go_on_and_settings_are_those_given() -> None:
    weights = [np.ones((2, 3), np.float32), np.zeros(())]
    changes = {"best": (np.float32(0.25), np.inf), "losses": [1, {"a": None}], "weights": weights}
    after = through_a_checkpoint(Mine(), Mine(patience=5), **changes)
    assert after.patience == 5
    assert after.best == (np.float32(0.25), np.inf)
    assert isinstance(after.best[0], np.float32)
    assert after.losses == [1, {"a": None}]
    for mine, theirs in zip(after.weights, weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert mine.dtype == theirs.dtype
        assert mine.shape == theirs.shape


def test_what_of_a_state_is_lost_is_told() -> None:
    with pytest.warns(UserWarning, match=r"Callback Mine has lost `file`: numbers, text, arrays"):
        through_a_checkpoint(Mine(), Mine(), file=object(), losses=[2])


def test_a_metric_that_some_epochs_lack_is_warned_of_once(caplog) -> None:
    stop = K.EarlyStopping("search_loss", patience=9)
    model = tf.keras.Sequential([tf.keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with ours.warning_once():
        model.fit(np.ones((4, 2)), np.ones(4), epochs=3, callbacks=[stop], verbose=0)
    assert [r.getMessage()[:14] for r in caplog.records].count("Early stopping") == 1


def test_time_left_is_told_once_and_again_where_epochs_become_longer(monkeypatch, capsys) -> None:
    now = [100.0]
    monkeypatch.setattr(ours.time, "monotonic", lambda: now[0])
    left = TimeLeft("search", 5, {"train_real": 3, "train_binary": 7})
    for epoch, seconds in enumerate((9, 10, 30, 31, 29)):
        left.on_epoch_begin(epoch)
        for step in range(10):
            now[0] += seconds
            left.on_train_batch_end(step)
        left.on_epoch_end(epoch)
    assert capsys.readouterr().out == (
        "Stage `search`: about 6 min left, for 4 of 5 epochs; then `train_real`, 3 epochs; then "
        "`train_binary`, 7 epochs\n"
        "Stage `search`: about 10 min left, for 2 of 5 epochs; then `train_real`, 3 epochs; then "
        "`train_binary`, 7 epochs\n"
    )


SPACE = Bats(cells=1, channels=4, nodes=1)
ARCHITECTURE = larq_nas.Architecture.random(SPACE, (8, 8, 1), 10, 0)
EPOCHS = 12


def stopping() -> Any:
    """Stop each stage soon, and go on with the best weights; the first stage stops at epoch 4."""
    return K.EarlyStopping(
        "val_loss", min_delta=10.0, patience=3, restore_best_weights=True, start_from_epoch=0
    )


def train(directory: Path | None, callbacks: Any, **changes: Any) -> tf.keras.Model:
    data, validation = larq_nas.datasets.load("digits", batch_size=32)
    settings = {"recipe": RECIPE, "epochs": EPOCHS, "verbose": 0, **changes}
    return larq_nas.train(
        ARCHITECTURE,
        data.take(3),
        validation.take(2),
        directory=directory,
        callbacks=callbacks,
        **settings,
    )


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("stopped") / "run"
    train(directory, stopping())
    return directory


def rows(directory: Path) -> list[tuple[str, str]]:
    lines = (directory / "history.csv").read_text().splitlines()[1:]
    return [tuple(line.split(",")[:2]) for line in lines]  # type: ignore[misc]


def test_it_stops_each_stage(stopped: Path) -> None:
    assert rows(stopped) == [(stage, str(epoch)) for stage in STAGES for epoch in (1, 2, 3, 4)]


_PROGRAM = """
import os, signal, sys
sys.path[:0] = {paths!r}
import test_callbacks, larq_nas
from larq_nas.testing.conformance import Kill
from larq_nas.training import loop
fit, epoch, where = {case!r}
if where == "marked":  # between the last checkpoint of a stage and its end
    real = loop.tf.keras.Model.fit
    def killed(*args, **kwargs):
        result = real(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
    loop.tf.keras.Model.fit = killed
    last = []
else:
    last = [Kill(epoch, where)]
test_callbacks.train(test_callbacks.Path({directory!r}), [test_callbacks.stopping(), *last])
"""


def killed(directory: Path, case: tuple[int, int, Any]) -> None:
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    program = _PROGRAM.format(paths=paths, case=case, directory=str(directory))
    status = subprocess.run([sys.executable, "-c", program], env=os.environ, check=False).returncode
    assert status == -signal.SIGKILL


def require_same(directory: Path, stopped: Path) -> None:
    assert run_files(directory) == run_files(stopped)
    saved = [tf.keras.models.load_model(run / "model.keras") for run in (stopped, directory)]
    for mine, theirs in zip(*(model.get_weights() for model in saved), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("case", [(1, 3, 1), (1, 0, "marked"), (2, 7, 0)], ids=str)
def test_killed_and_resumed_it_stops_alike(stopped: Path, tmp_path: Path, case) -> None:
    killed(tmp_path / "run", case)
    train(tmp_path / "run", stopping())
    require_same(tmp_path / "run", stopped)


class AtTheEnd(K.Callback):
    """Stops when a stage has ended, before the callbacks after it know."""

    def on_train_end(self, logs: Any = None) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("stop", [[Interrupt(2, 2)], [AtTheEnd()]], ids=["in an epoch", "at end"])
def test_interrupted_and_resumed_it_stops_alike(stopped: Path, tmp_path: Path, stop) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", [*stop, stopping()])
    train(tmp_path / "run", stopping())
    require_same(tmp_path / "run", stopped)


def test_what_a_stage_saves_loads_compiled(tmp_path: Path) -> None:
    """The network alone, without its auxiliary classifier; as the returned model is compiled."""
    last = K.ModelCheckpoint(str(tmp_path / "last.keras"), "val_loss", save_best_only=True)
    weights = K.ModelCheckpoint(str(tmp_path / "last.weights.h5"), save_weights_only=True)
    recipe = Recipe(stages=("binary",), auxiliary=0.4, drop_path=0.1)
    model = train(None, {"train_binary": [last, weights]}, recipe=recipe, epochs=1)
    loaded = tf.keras.models.load_model(tmp_path / "last.keras")
    _, validation = larq_nas.datasets.load("digits", batch_size=32)
    data = validation.take(2)
    assert loaded.evaluate(data, verbose=0) == model.evaluate(data, verbose=0)
    assert float(loaded.optimizer.learning_rate) == pytest.approx(recipe.learning_rate)
    loaded.load_weights(tmp_path / "last.weights.h5")
    assert loaded.evaluate(data, verbose=0) == model.evaluate(data, verbose=0)


@pytest.mark.slow
def test_a_table_goes_on_where_it_was(tmp_path: Path) -> None:
    """Keras's own would start it anew."""
    path = tmp_path / "log.csv"
    recipe = Recipe(stages=("binary",))
    cut = {"train_binary": [K.CSVLogger(path), Interrupt(1, 1)]}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", cut, recipe=recipe, epochs=2)
    train(tmp_path / "run", {"train_binary": [K.CSVLogger(path)]}, recipe=recipe, epochs=2)
    assert [line.split(",")[0] for line in path.read_text().splitlines()] == ["epoch", "0", "1"]


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (90, 90),
        (0.5, 0.5),
        ("90s", 90),
        ("1.5 h", 5400),
        ("1h 30min", 5400),
        ("2d", 172800),
        ("2 hours", 7200),
        ("1 hr 90 minutes", 9000),
        ("1 day 30sec", 86430),
    ],
)
def test_times_are_read(given: Any, seconds: float) -> None:
    assert read_seconds(given) == seconds


@pytest.mark.parametrize(
    "given",
    [
        0,
        -1,
        "2",
        "2 weeks",
        "2 months",
        "5 m",
        "90 mins later",
        10**400,
        float("inf"),
        True,
        None,
        "1h later",
    ],
)
def test_what_is_no_time_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match="`time_limit` must be a number of seconds above 0, or"):
        read_seconds(given)


def test_a_damaged_record_of_time_is_named(tmp_path: Path) -> None:
    path = tmp_path / "time_limit.json"
    for text in ("{", "{}", "[]", '{"seconds": "x", "ended": []}'):
        path.write_text(text)
        for read in (read_ended, lambda path: TimeLimit(9.0, ["search"], path)):
            with pytest.raises(InputError, match=r"time_limit.json` is damaged: delete it"):
                read(path)


def test_stages_share_the_time_that_is_left(monkeypatch, tmp_path: Path) -> None:
    now = [100.0]
    monkeypatch.setattr(ours.time, "monotonic", lambda: now[0])
    path = tmp_path / "time_limit.json"
    limit = TimeLimit(60, ["a", "b", "c"], path)
    for stage, took, over in (("a", 19, False), ("b", 21, True), ("c", 19, False)):
        limit.begin(stage)
        now[0] += took
        told = pytest.warns(UserWarning, match="It ended") if over else contextlib.nullcontext()
        with told:
            assert limit.is_over("It ended") == over
    # What was used before counts.
    again = TimeLimit(60, ["a", "b", "c"], path)
    again.begin("c")
    now[0] += 2
    with pytest.warns(UserWarning, match="It ended, as its time limit is over: the same seed may"):
        assert again.is_over("It ended")
    assert len(read_ended(path)) == 1


def test_a_search_ends_in_time_and_what_it_found_is_trained(tmp_path: Path) -> None:
    data, validation = larq_nas.datasets.load("digits", batch_size=32)
    settings = {"epochs": 30, "train_epochs": 1, "directory": tmp_path / "run", "verbose": 0}
    settings |= {"recipe": Recipe(stages=("binary",)), "return_result": True, "time_limit": 1e-3}
    with pytest.warns(UserWarning, match="Stage `search` ended after epoch 1 of 30, as its time"):
        result = larq_nas.search(data.take(6), validation.take(2), SPACE, **settings)
    assert [(row["stage"], row["epoch"]) for row in result.history] == [
        ("search", 1),
        ("train_binary", 1),
    ]
    assert "ended after epoch 1 of 30" in result.warnings[0]
