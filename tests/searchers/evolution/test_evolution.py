"""Evolutions from end to end, tiny; and what they refuse before they begin."""

import csv
import json
from pathlib import Path
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest
import tensorflow as tf
from conftest import Interrupt
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from larq_nas.cost import profile
from larq_nas.errors import InputError, LarqNasError
from larq_nas.searchers import Evolution
from larq_nas.searchers.evolution.fitness import pareto_ranks
from larq_nas.spaces import Bats, ModelWidths, SpaceLike, VggSmall, resolve
from larq_nas.spaces.chooser import Chooser
from larq_nas.training import Recipe

RECIPE = Recipe(stages=("binary",))
TINY: dict[str, Any] = {
    "population": 3,
    "candidate_epochs": 1,
    "widest_epochs": 1,
    "subset": 60,
    "recipe": RECIPE,
    "confirm": 0,
}
SPACE = VggSmall(ratios=(0.03125, 0.0625, 0.125))


@pytest.fixture(scope="module")
def data() -> tuple[tf.data.Dataset, tf.data.Dataset]:
    train, validation = larq_nas.datasets.load("digits", batch_size=20)
    return train.take(10), validation.take(2)


def colored(data: tuple[tf.data.Dataset, ...], size: int) -> list[tf.data.Dataset]:
    def color(images: tf.Tensor, labels: tf.Tensor) -> Any:
        return tf.repeat(tf.image.resize(images, (size, size)), 3, -1), labels

    return [part.map(color) for part in data]


def search(
    data: Any, space: SpaceLike, directory: Path, searcher: Evolution | None = None, **settings: Any
) -> tf.keras.Model:
    settings = {"epochs": 2, "train_epochs": 0, "verbose": 0, **settings}
    searcher = searcher or Evolution(**TINY)
    return larq_nas.search(*data, space, searcher, directory=directory, **settings)


def rows(directory: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((directory / "candidates.csv").open(newline="")))


def test_candidates_are_shown_in_tensorboard_and_in_the_summary(
    data: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search(data, SPACE, tmp_path / "run")
    told = {int(row["candidate"]): row for row in rows(tmp_path / "run")}
    folders = sorted((tmp_path / "run" / "logs" / "candidates").iterdir())
    assert [int(folder.name) for folder in folders] == sorted(told)
    for folder in folders:
        events = EventAccumulator(str(folder))
        events.Reload()
        row = told[int(folder.name)]
        accuracy = tf.make_ndarray(events.Tensors("accuracy")[0].tensor_proto)
        assert accuracy == pytest.approx(float(row["accuracy"]))
        content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        start = HParamsPluginData.FromString(content).session_start_info
        values = {name: value.number_value for name, value in start.hparams.items()}
        assert values == {name: float(row[name]) for name in values}
        assert len(values) == len(SPACE.layers)
    larq_nas.load(tmp_path / "run").results_summary(2)
    printed = capsys.readouterr().out
    best = max(told.values(), key=lambda row: float(row["fitness"]))
    assert f"The best of {len(told)} candidates" in printed
    first = next(
        line for line in printed.splitlines() if line.startswith(f"| {best['candidate']} ")
    )
    assert " ".join(best[name] for name in SPACE.layers) in first


def test_the_found_network_is_the_best_candidate_and_every_figure_is_kept(
    data: Any, tmp_path: Path
) -> None:
    model = search(data, SPACE, tmp_path)
    candidates = rows(tmp_path)
    assert [int(row["generation"]) for row in candidates] == [1, 1, 1, 2, 2, 2]
    best = max(candidates, key=lambda row: float(row["fitness"]))
    filters = [layer.filters for layer in model.layers if hasattr(layer, "filters")]
    expected = [float(best[f"conv{n}"]) for n in range(1, 7)]
    assert filters == [round(r * f) for r, f in zip(expected, SPACE.filters, strict=True)]
    costs = profile(model).summary()
    assert int(best["binary_macs"]) == costs["binary_macs"]
    # Eq. 4, by hand; the original has every ratio 1.
    original = profile(VggSmall(expansion=1).build(larq_nas.spaces.Fix({}), (8, 8, 1), 10))
    flops = [one["macs"] + one["binary_macs"] / 64 for one in (costs, original.summary())]
    fitness = 100 * float(best["accuracy"]) - 4 * flops[0] / flops[1]
    assert float(best["fitness"]) == pytest.approx(max(fitness, 0))
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["audit"]["operations"]["LceBconv2d"] == 5


@pytest.mark.slow
def test_the_same_seed_finds_the_same_whether_candidates_are_shared_or_rebuilt(
    data: Any, tmp_path: Path
) -> None:
    search(data, SPACE, tmp_path / "shared")
    search(data, SPACE, tmp_path / "rebuilt", Evolution(**TINY, shared=False))
    search(data, SPACE, tmp_path / "other", seed=1)
    files = [tmp_path / name / "candidates.csv" for name in ("shared", "rebuilt", "other")]
    assert files[0].read_bytes() == files[1].read_bytes() != files[2].read_bytes()


@pytest.mark.slow
def test_no_candidate_is_over_a_budget(data: Any, tmp_path: Path) -> None:
    search(data, SPACE, tmp_path, budget={"weight_bytes": "2KB"})
    assert all(float(row["weight_bytes"]) <= 2000 for row in rows(tmp_path))


@pytest.mark.slow
def test_several_objectives_leave_a_front_of_architectures(data: Any, tmp_path: Path) -> None:
    objectives = ("accuracy", "weight_bytes")
    model = search(data, SPACE, tmp_path, Evolution(**{**TINY, "objectives": objectives}))
    scores = np.array([[float(r["accuracy"]), -float(r["weight_bytes"])] for r in rows(tmp_path)])
    best = {tuple(row) for row in scores[pareto_ranks(scores) == 0]}
    table = list(csv.DictReader((tmp_path / "pareto" / "front.csv").open(newline="")))
    assert {(float(r["accuracy"]), -float(r["weight_bytes"])) for r in table} == best
    fittest = max(table, key=lambda row: float(row["fitness"]))
    found = larq_nas.Architecture.load(tmp_path / "pareto" / fittest["file"])
    assert found == larq_nas.Architecture.load(tmp_path / "architecture.json")
    assert found.build((8, 8, 1), 10).count_params() == model.count_params()


@pytest.mark.slow
def test_other_strategies_search_the_same_candidates(data: Any, tmp_path: Path) -> None:
    search(data, SPACE, tmp_path, Evolution(**{**TINY, "strategy": "aging"}))
    assert len({tuple(row[f"conv{n}"] for n in range(1, 7)) for row in rows(tmp_path)}) == 6


def require_binary(model: tf.keras.Model, directory: Path) -> None:
    result = json.loads((directory / "result.json").read_text())
    assert "refused" not in result, result["refused"]
    quantized = sum(bool(getattr(layer, "kernel_quantizer", None)) for layer in model.layers)
    assert result["audit"]["operations"]["LceBconv2d"] == quantized > 0


@pytest.mark.slow
def test_resnet18_is_searched_in_its_widths(data: Any, tmp_path: Path) -> None:
    space = resolve("resnet18_cifar", {"ratios": (0.25, 0.5)})
    model = search(colored(data, 16), space, tmp_path, epochs=1)
    require_binary(model, tmp_path)
    sums = [layer for layer in model.layers if isinstance(layer, tf.keras.layers.Add)]
    assert len(sums) == 8
    for layer in sums:
        assert len({tuple(tensor.shape) for tensor in layer.input}) == 1


@pytest.mark.slow
def test_a_network_of_larq_zoo_is_searched_in_its_widths(data: Any, tmp_path: Path) -> None:
    zoo = pytest.importorskip("larq_zoo")
    network = zoo.sota.QuickNetSmall(weights=None, input_shape=(64, 64, 3), num_classes=10)
    space = ModelWidths(network, ratios=(0.25, 0.5))
    model = search(colored(data, 64), space, tmp_path, epochs=1)
    require_binary(model, tmp_path)


@pytest.mark.slow
def test_networks_of_zeros_and_ones_are_searched_and_converted(data: Any, tmp_path: Path) -> None:
    space = VggSmall(ratios=(0.0625, 0.125), binarization="dorefa")
    model = search(data, space, tmp_path, epochs=1)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["audit"]["operations"]["LceBconv2d"] == 5
    conv = model.get_layer("conv2_conv")
    weights = tf.convert_to_tensor(conv.kernel_quantizer(conv.kernel.latent_variable)).numpy()
    assert len(np.unique(np.abs(weights))) == 1


@pytest.mark.slow
def test_candidates_that_all_fail_end_the_search_with_the_first_cause(
    data: Any, tmp_path: Path
) -> None:
    searcher = Evolution(**{**TINY, "recipe": Recipe(1e30, stages=("binary",), optimizer="sgd"),
                            "widest_epochs": 0})  # fmt: skip
    with pytest.raises(
        LarqNasError, match=r"Every candidate of the first generation .* loss is nan"
    ):
        search(data, SPACE, tmp_path, searcher)
    assert not (tmp_path / "architecture.json").exists()
    assert [row["failure"].rpartition(": ")[2] for row in rows(tmp_path)] == ["its loss is nan"] * 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"population": 1}, "`population` must be 2 or more, but got 1"),
        ({"subset": 0}, "`subset` must be positive"),
        ({"candidate_epochs": -1}, "`candidate_epochs` must be 0 or more"),
        ({"trade_off": -1}, "`trade_off` must be 0 or more"),
        ({"objectives": ("size",)}, "Unknown objective `size`"),
        ({"strategy": "genetics"}, "Unknown strategy `genetics`; did you mean `genetic`"),
        ({"shared": 1}, "`shared` must be True or False"),
        ({"worker_timeout": 0}, "`worker_timeout` must be positive"),
        ({"rungs": (4, 1)}, "`rungs` must rise"),
        ({"rungs": (2, 2)}, "`rungs` must rise"),
        ({"rungs": ()}, "`rungs` must be numbers of epochs"),
        ({"rungs": (0, 1)}, "`rungs` must be positive"),
        ({"confirm": -1}, "`confirm` must be 0 or more"),
        ({"confirm_epochs": 0}, "`confirm_epochs` must be positive"),
        ({"initial": "uniform"}, "`initial` must be a list"),
        ({"initial": ("uniform:wide",)}, "texts such as"),
        ({"initial": ("nothing",)}, "Unknown published architecture `nothing`"),
        ({"recipe": "shen2019"}, "`recipe` must be a larq_nas.training.Recipe, but got 'shen2019'"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Evolution(**settings)


@pytest.mark.parametrize(
    ("space", "searcher", "message"),
    [
        (
            Bats(cells=1, channels=4, search_channels=4, nodes=2),
            Evolution(**TINY),
            "`widest_epochs` is for a space that chooses widths alone",
        ),
        (VggSmall(expansion=1), Evolution(**TINY), "has one network, and nothing to choose"),
        (SPACE, Evolution(**{**TINY, "subset": 300}), "at most the 200 training images, .* 300"),
        (
            SPACE,
            Evolution(objectives=("accuracy", "latency")),
            "needs a `budget` of latency",
        ),
        (VggSmall(ratios=(0.001, 1)), Evolution(**TINY), "must leave .* one channel or more"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_written(
    space: Any, searcher: Evolution, message: str, data: Any, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        search(data, space, tmp_path / "run", searcher)
    assert not (tmp_path / "run").exists()


def test_what_candidates_cannot_inherit_is_refused_before_anything_is_written(
    data: Any, tmp_path: Path
) -> None:
    def grouped(choose: Chooser, shape: tuple[int, int, int], classes: int) -> tf.keras.Model:
        x = images = tf.keras.Input(shape)
        x = larq_nas.layers.binary_conv(x, choose.filters("wide", 8, (0.5, 1)), 3, name="plain")
        x = larq_nas.layers.BinaryConv2D(8, 3, groups=2, name="grouped")(x)
        x = tf.keras.layers.GlobalAveragePooling2D()(x)
        return tf.keras.Model(images, tf.keras.layers.Dense(classes)(x))

    with pytest.raises(InputError, match="layer `grouped`: its groups mix other channels"):
        search(data, grouped, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_many_processes_need_a_directory_and_an_evolution(
    data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    with pytest.raises(InputError, match="but not KERASTUNER_TUNER_ID, KERASTUNER_ORACLE_PORT"):
        search(data, SPACE, tmp_path)
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "1")
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    with pytest.raises(InputError, match="`directory` must be given to a chief"):
        larq_nas.search(*data, SPACE, Evolution(**TINY))
    with pytest.raises(InputError, match="searcher `differentiable` runs in one process"):
        larq_nas.search(*data, "bats", directory=tmp_path)


def test_it_ends_in_time(data: Any, tmp_path: Path) -> None:
    searcher = Evolution(**TINY | {"candidate_epochs": 0, "widest_epochs": 0})
    with pytest.warns(UserWarning, match="The evolution ended after generation 1, as its time li"):
        search(data, SPACE, tmp_path, searcher, epochs=5, time_limit=1e-3)
    assert len(rows(tmp_path)) == 3


@pytest.mark.slow
def test_callbacks_stop_candidates_alike_when_it_is_resumed(data: Any, tmp_path: Path) -> None:
    """Each candidate stops after the second of its epochs, with the weights of the first."""
    searcher = Evolution(**TINY | {"population": 2, "candidate_epochs": 4})

    def callbacks(*others: Any) -> dict[str, Any]:
        stop = tf.keras.callbacks.EarlyStopping("loss", 10.0, 1, restore_best_weights=True)
        count = tf.keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: epochs.append(1))
        return {"candidates": [stop, count, *others]}

    epochs: list[int] = []
    search(data, SPACE, tmp_path / "whole", searcher, epochs=1, callbacks=callbacks())
    assert len(epochs) == 4
    stopped = callbacks(Interrupt(2, 1))
    with pytest.raises(KeyboardInterrupt):
        search(data, SPACE, tmp_path / "cut", searcher, epochs=1, callbacks=stopped)
    search(data, SPACE, tmp_path / "cut", searcher, epochs=1, callbacks=callbacks())
    assert len(epochs) == 4 + 4 + 2
    for name in ("candidates.csv", "architecture.json", "model.tflite"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
