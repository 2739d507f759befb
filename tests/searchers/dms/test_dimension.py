"""A search of widths: on real data, killed and resumed, within budgets, and what is refused."""

import csv
from functools import partial
from pathlib import Path
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import pytest
import tensorflow as tf
from conftest import dimensions_of, quick

from larq_nas.cost import Budget, SpaceCosts
from larq_nas.data.data import read_data
from larq_nas.errors import InputError
from larq_nas.latency import build_table, measure
from larq_nas.run_directory import RunDirectory
from larq_nas.search import stages_of
from larq_nas.searchers import Dms
from larq_nas.searchers.dms import search as dimensioning
from larq_nas.spaces import Bats, VggSmall, resolve
from larq_nas.spaces.chooser import Chooser
from larq_nas.spaces.space import FunctionSpace
from larq_nas.training import Recipe

SEARCHER = Dms(weight_epochs=1, mean_learning_rate=0.05)
layers = tf.keras.layers


def small(choose: Chooser, shape: Any, classes: int) -> tf.keras.Model:
    x = images = tf.keras.Input(shape)
    x = layers.Conv2D(choose.filters("conv1", 8, (1, 2)), 3, padding="same", name="conv1")(x)
    x = layers.BatchNormalization(name="conv1_bn")(x)
    x = layers.Dropout(0.1, name="dropout")(x)
    width = choose.filters("conv2", 8, (1, 2))
    x = larq_nas.layers.BinaryConv2D(width, 3, strides=2, name="conv2")(x)
    x = layers.BatchNormalization(name="conv2_bn", scale=False)(x)
    y = larq_nas.layers.BinaryConv2D(width, 3, name="conv3")(x)
    x = layers.Add(name="add")([x, layers.BatchNormalization(name="conv3_bn")(y)])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return tf.keras.Model(images, layers.Dense(classes, name="dense")(x), name="small")


@pytest.fixture(scope="module")
def data() -> tuple[tf.data.Dataset, tf.data.Dataset]:
    train, validation = larq_nas.datasets.load("digits", batch_size=20)
    return train.take(20), validation.take(5)


def search(data: Any, searcher: Any = SEARCHER, epochs: int = 3, **settings: Any) -> tf.keras.Model:
    settings = {"space": small, "train_epochs": 0, "seed": 0, "verbose": 0, **settings}
    return larq_nas.search(*data, searcher=searcher, epochs=epochs, **settings)


def rows(directory: Path, name: str) -> list[dict[str, str]]:
    with open(directory / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class KilledAfter(tf.keras.callbacks.Callback):
    """Ends a search within an epoch, as a kill would: nothing is saved for it."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self._epoch, self._now = epoch, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._now = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._now == self._epoch and batch == 2:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def found(data: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("found") / "run"
    search(data, directory=directory)
    return directory


def test_widths_are_learned_and_kept(found: Path) -> None:
    architecture = larq_nas.Architecture.load(found / "architecture.json")
    assert set(architecture.choices) == {"conv1", "conv2"}
    widths = rows(found, "widths.csv")
    assert [row["epoch"] for row in widths] == [str(n) for n in range(1, 7) for _ in range(2)]
    last = {row["choice"]: float(row["mean"]) for row in widths[-2:]}
    for name, ratio in architecture.choices.items():
        assert ratio == int(8 * last[name] + 0.5) / 8
        assert last[name] != 1.5
    # In epochs that train weights the means stay; in each turn sigma is smaller.
    assert widths[0]["mean"] == widths[1]["mean"] == "1.5"
    sigma = [float(row["sigma"]) for row in widths[::2]]
    assert sigma == pytest.approx([1, 1, 0.3**0.5, 0.3**0.5, 0.3, 0.3], rel=1e-5)


def test_widths_are_plotted(found: Path) -> None:
    (section,) = Dms().report(RunDirectory(found, {}))
    means = section.charts[0].data
    drawn = [(one["epoch"], one["mean"]) for one in means.values]
    widths = rows(found, "widths.csv")
    assert drawn == [(int(row["epoch"]), float(row["mean"])) for row in widths]
    assert [row["at the end"] for row in section.rows] == [
        f"{float(row['mean']):.3f}" for row in widths[-2:]
    ]


def test_history_has_what_an_epoch_trained(found: Path) -> None:
    history = [row for row in rows(found, "history.csv") if row["stage"] == "search"]
    assert [bool(row["loss"]) for row in history] == [True, False] * 3
    assert [bool(row["search_loss"]) for row in history] == [False, True] * 3
    told = stages_of(SEARCHER, FunctionSpace(small), Budget())["search"]
    logged = {name for row in history for name, value in row.items() if value}
    assert {*told.metrics, *told.sometimes} == logged - {"stage", "epoch"}


@pytest.mark.parametrize("epoch", quick([1, 2], 1))
def test_killed_and_resumed_it_finds_the_same(
    data: Any, found: Path, tmp_path: Path, epoch: int
) -> None:
    directory = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        search(data, directory=directory, callbacks=[KilledAfter(epoch)])
    search(data, directory=directory)
    assert rows(directory, "widths.csv") == rows(found, "widths.csv")
    assert rows(directory, "history.csv") == rows(found, "history.csv")


def test_one_trace_serves_all_widths(data: Any, tmp_path: Path) -> None:
    traces = []

    class Counting(tf.keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            traces.append(self.model.train_function.experimental_get_tracing_count())

    search(data, directory=tmp_path / "run", callbacks=[Counting()])
    widths = {tuple(row.values())[4:] for row in rows(tmp_path / "run", "widths.csv")}
    assert len(widths) >= 3
    assert set(traces) == {1}


@pytest.mark.slow
def test_a_budget_is_kept(data: Any, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="made narrower"):
        search(data, directory=tmp_path / "run", budget={"parameters": "500"}, epochs=1)
    architecture = larq_nas.Architecture.load(tmp_path / "run" / "architecture.json")
    costs = larq_nas.cost.SpaceCosts(small, (8, 8, 1), 10)
    used = costs.exact(architecture.choices)["parameters"]
    assert 400 < used <= 500


@pytest.mark.slow
def test_a_penalty_pulls_widths_down(data: Any, tmp_path: Path) -> None:
    light = Dms(weight_epochs=1, mean_learning_rate=0.05, memory_target=0.0005, trade_off=5e4)
    search(data, light, directory=tmp_path / "run")
    architecture = larq_nas.Architecture.load(tmp_path / "run" / "architecture.json")
    assert max(architecture.choices.values()) < 1.2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": 0}, "`scale` must be positive"),
        ({"half_step": -0.4}, "`half_step` must be positive"),
        ({"final_scale": 2.0}, "`final_scale` must be at most `scale`"),
        ({"initial_ratio": 0.1}, "`initial_ratio` must be 0.3 or more"),
        ({"memory_target": -1}, "`memory_target` must be positive"),
        ({"weight_epochs": 0}, "`weight_epochs` must be positive"),
        ({"best_effort": "yes"}, "`best_effort` must be True or False"),
        ({"trade_off": 1.0}, "`trade_off` has no effect without `memory_target`"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Dms(**settings)


def test_ratios_of_the_space_are_told_to_be_of_no_use(data: Any, recwarn: Any) -> None:
    for space in (VggSmall(), VggSmall(ratios=(0.125, 1))):
        checked = read_data(*data, 10, None, 0, space, 0)
        Dms(weight_epochs=1, final_scale=1).prepare(space, checked, None, 1, Recipe())
    told = [str(one.message) for one in recwarn if "are not used" in str(one.message)]
    assert len(told) == 1
    assert "`least_mean` and `least_ratio`" in told[0]


@pytest.mark.parametrize("binarization", ["sign", "dms"])
def test_a_network_that_is_not_binarized_as_dms_does_it_is_told(
    data: Any, binarization: str, capsys: pytest.CaptureFixture
) -> None:
    space = VggSmall(binarization=binarization)
    checked = read_data(*data, 10, None, 0, space, 0)
    Dms(weight_epochs=1, final_scale=1).prepare(space, checked, None, 1, Recipe())._announce(2)
    told = 'binarization="sign"; DMS as published has "dms"' in capsys.readouterr().out
    assert told == (binarization == "sign")


def test_epochs_are_refused_before_data_is_read() -> None:
    with pytest.raises(InputError, match="must be a multiple of `weight_epochs`, 5, but got 7"):
        larq_nas.search(None, None, method="dms_a", epochs=7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"searcher": Dms(memory_target=1e-6)}, "`memory_target` must be at least"),
        ({"searcher": Dms(budget_weight=1)}, "`budget_weight` has no effect"),
        ({"epochs": 7}, "must be a multiple of `weight_epochs`, 5, but got 7"),
        ({"space": Bats(cells=1, channels=4, nodes=1)}, "only chooses widths"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    data: Any, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    given = {"searcher": Dms(), "epochs": 5, **settings}
    with pytest.raises(InputError, match=message):
        search(data, directory=tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_widths_that_do_not_fit_in_memory_are_refused(data: Any, tmp_path: Path) -> None:
    wide = Dms(initial_ratio=1e6, weight_epochs=1)
    with pytest.raises(InputError, match=r"need about .* GiB"):
        search(data, wide, epochs=1, directory=tmp_path / "run")


@pytest.mark.slow
def test_a_search_is_repeatable(data: Any, found: Path, tmp_path: Path) -> None:
    search(data, directory=tmp_path / "again")
    assert rows(tmp_path / "again", "widths.csv") == rows(found, "widths.csv")
    search(data, directory=tmp_path / "other", seed=1)
    assert rows(tmp_path / "other", "widths.csv") != rows(found, "widths.csv")


def test_what_the_process_holds_need_not_be_free(monkeypatch) -> None:
    costs = SpaceCosts(small, (8, 8, 1), 10)
    dimensions = dimensions_of(costs.expansions)
    needed = dimensioning.memory_of(costs, dimensions, 20)
    monkeypatch.setattr(dimensioning, "free_memory", lambda: 0.1 * needed)
    dimensioning.require_memory(costs, dimensions, 20, held=0.95 * needed)
    with pytest.raises(InputError, match="filters need about"):
        dimensioning.require_memory(costs, dimensions, 20, held=0.85 * needed)


def test_growth_beyond_the_memory_stops_the_search(data: Any, tmp_path: Path, monkeypatch) -> None:
    free = iter([1e12] * 2 + [-1e12] * 9)  # while it is prepared and begins, and then
    monkeypatch.setattr(dimensioning, "free_memory", lambda: next(free))
    with pytest.raises(InputError, match=r"Widths of up to .* filters need about"):
        search(data, directory=tmp_path / "run")
    assert (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.slow
def test_latency_is_kept_to_but_not_learned_by(data: Any, tmp_path: Path) -> None:
    table = build_table(
        resolve(small), partial(measure, runs=2, warmup_runs=1), path=tmp_path / "table.json",
        input_shape=(8, 8, 1), classes=10, networks=3, checks=2,
    )  # fmt: skip
    with pytest.warns(UserWarning, match="do not learn by a budget of latency"):
        search(
            data,
            directory=tmp_path / "run",
            epochs=1,
            budget={"latency": "10s"},
            latency_table=table,
        )
