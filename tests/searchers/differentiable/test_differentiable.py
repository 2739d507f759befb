import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from conftest import choose_pool

import larq_nas
from larq_nas.choices import strongest
from larq_nas.cost import Budget
from larq_nas.data.data import Data
from larq_nas.data.validation import check_data
from larq_nas.errors import DivergenceError, InputError
from larq_nas.files import write_table
from larq_nas.layers import BinaryConv2D, classifier
from larq_nas.run_directory import RunDirectory
from larq_nas.search import stages_of
from larq_nas.searchers import Differentiable
from larq_nas.searchers.differentiable.derivation import scores_of
from larq_nas.searchers.differentiable.search import announce
from larq_nas.spaces import Bats, Bnas
from larq_nas.spaces.space import FunctionSpace
from larq_nas.supernet.relax import Relax
from larq_nas.training import Recipe
from larq_nas.training.loop import read_history


@pytest.fixture
def task(digits) -> Data:
    return Data(*digits, facts=check_data(*digits, classes=10))


def run_search(
    searcher: Differentiable, task: Data, tmp_path, epochs: int = 5
) -> tuple[larq_nas.Architecture, list]:
    prepared = searcher.prepare(Bats(cells=1, channels=8, nodes=2), task, None, epochs, Recipe())
    with RunDirectory(tmp_path, {}) as run:
        return prepared.run(run, verbose=0), read_history(run.history)


def test_derives_two_inputs_per_node_without_zero() -> None:
    choose = Relax()
    Bats(cells=1, channels=4, nodes=3).build(choose, (8, 8, 1), 10)
    choice, mixture = choose.choices["reduction/4"], choose.mixtures["reduction/4"]
    alpha = np.zeros(mixture.alpha.shape)
    alpha[:, choice.operations.index("zero")] = 9.0
    alpha[1, choice.operations.index("group_conv_5x5")] = 8.5
    alpha[3, choice.operations.index("max_pool_3x3")] = 8.0
    mixture.alpha.assign(alpha)
    found = strongest(choose.choices, scores_of(choose))
    assert found["reduction/4"] == [("group_conv_5x5", 1), ("max_pool_3x3", 3)]


@pytest.mark.slow
def test_low_temperature_makes_harder_choices(task: Data, tmp_path) -> None:
    rise = {}
    for temperature in (0.2, 1.0):
        searcher = Differentiable(temperature=temperature, architecture_learning_rate=1e-2)
        _, history = run_search(searcher, task, tmp_path / str(temperature))
        first, last = (float(history[i]["max_probability"]) for i in (0, -1))
        rise[temperature] = last - first
    assert rise[0.2] > 1.5 * rise[1.0] > 0


def test_epochs_for_the_weights_alone_come_first(task: Data, tmp_path) -> None:
    searcher = Differentiable(weights_only=0.5, diversity=0.1)
    _, history = run_search(searcher, task, tmp_path, epochs=2)
    assert "search_loss" not in history[0]
    assert float(history[1]["search_loss"]) > 0
    assert float(history[0]["entropy"]) == pytest.approx(np.log(8), abs=1e-3)
    told = stages_of(searcher, Bats(), Budget())["search"]
    assert set(told.metrics) == history[0].keys() - {"stage", "epoch"}
    assert {*told.metrics, *told.sometimes} == history[1].keys() - {"stage", "epoch"}


def test_only_what_a_search_logs_is_told_of_it() -> None:
    always = {"loss", "accuracy", "entropy", "max_probability", "skips_and_pools"}
    always |= {"search_loss", "search_accuracy"}
    searcher, budget = Differentiable(weights_only=0), Budget({"binary_macs": 10**6})
    for space, limits, sometimes in (
        (Bats(), Budget(), set()),
        (Bats(), budget, {"budget_penalty"}),
        (Bnas(), Budget(), {"flip_ratio", "zero"}),
    ):
        told = stages_of(searcher, space, limits)["search"]
        assert (set(told.metrics), set(told.sometimes)) == (always, sometimes)
    with_diversity = dataclasses.replace(searcher, diversity=1.0).stages["search"]
    assert "diversity" in with_diversity.metrics


def test_a_collapse_is_told_once(task: Data, tmp_path, recwarn) -> None:
    def pools(choose, input_shape, classes) -> tf.keras.Model:
        images = x = tf.keras.Input(input_shape)
        operations = {
            "max": lambda x, name: tf.keras.layers.MaxPool2D(2, 1, "same", name=name)(x),
            "mean": lambda x, name: tf.keras.layers.AveragePooling2D(2, 1, "same", name=name)(x),
        }
        for name in ("a", "b"):
            x = choose.op(name, x, operations)
        return tf.keras.Model(images, larq_nas.layers.classifier(x, classes))

    fast = Differentiable(architecture_learning_rate=3.0)
    prepared = fast.prepare(FunctionSpace(pools), task, None, 1, Recipe())
    with RunDirectory(tmp_path, {}) as run:
        prepared.run(run, verbose=0)
    told = [str(warning.message) for warning in recwarn if "collapsed" in str(warning.message)]
    assert len(told) == 1
    assert "(of the operations 100% in a cells, 100% in b cells): lower the temperature" in told[0]


@pytest.mark.slow
def test_a_search_that_has_hardly_decided_is_told(task: Data, tmp_path) -> None:
    with pytest.warns(UserWarning, match=r"hardly decided \(entropy 2.07\d of 2.079 nats\)"):
        run_search(Differentiable(), task, tmp_path, epochs=1)


def test_a_collapse_is_told_of_a_search_that_has_not_decided_too(
    task: Data, tmp_path: Any, recwarn: Any
) -> None:
    """The advice is one: to decide first."""

    def pools(choose, input_shape, classes) -> tf.keras.Model:
        images = tf.keras.Input(input_shape)
        pool = tf.keras.layers.MaxPool2D(2, 1, "same", name="pool")
        mean = tf.keras.layers.AveragePooling2D(2, 1, "same", name="mean")
        operations = {"max": lambda x, name: pool(x), "mean": lambda x, name: mean(x)}
        x = choose.op("a", images, operations)
        return tf.keras.Model(images, larq_nas.layers.classifier(x, classes))

    prepared = Differentiable().prepare(FunctionSpace(pools), task, None, 1, Recipe())
    prepared.derive(RunDirectory(tmp_path, {}))
    early = str(recwarn.pop(UserWarning).message)
    assert "ended before it began to choose" in early
    assert "`time_limit`, fewer `epochs` or a smaller `weights_only`" in early
    recwarn.clear()
    prepared.model.set_searching(True)
    prepared.derive(RunDirectory(tmp_path, {}))
    told = [str(warning.message) for warning in recwarn]
    assert ["hardly decided" in one for one in told] == [True, False]
    assert told[1].endswith("search on until it decides, before anything else is changed.")


def _pool_or_conv(choose: Any, input_shape: Any, classes: int) -> tf.keras.Model:
    images = tf.keras.Input(input_shape)
    operations = {
        "pool": lambda x, name: tf.keras.layers.MaxPool2D(2, 1, "same", name=name)(x),
        "conv": lambda x, name: larq_nas.layers.binary_conv(x, x.shape[-1], 3, name=name),
    }
    x = choose.op("a", images, operations)
    return tf.keras.Model(images, larq_nas.layers.classifier(x, classes))


# Of each epoch the probability of the pool, and the accuracy on the images of the alphas.
_EPOCHS = {1: (0.1, 0.5), 2: (0.2, 0.4), 3: (0.9, 0.6), 4: (0.8, 0.3)}


def _derived(task: Data, run: RunDirectory, **settings: Any) -> str:
    """Return the operation that is derived from a record of these epochs."""
    searcher = Differentiable(weights_only=0, **settings)
    search = searcher.prepare(FunctionSpace(_pool_or_conv), task, None, 4, Recipe())
    search.choose.mixtures["a"].alpha.assign([[1.0, 0.0]])
    with run:
        columns = ("epoch", "choice", "input", "operation", "probability")
        rows = [
            dict(zip(columns, (epoch, "a", 0, name, value), strict=True))
            for epoch, (pool, _) in _EPOCHS.items()
            for name, value in (("pool", pool), ("conv", 1 - pool))
        ]
        write_table(run.probabilities, rows)
        history = [
            {"stage": "search", "epoch": epoch, "search_accuracy": accuracy}
            for epoch, (_, accuracy) in _EPOCHS.items()
        ]
        write_table(run.history, history)
        return str(search.derive(run).choices["a"])


@pytest.mark.parametrize(
    ("settings", "operation", "warns"),
    [
        ({}, "pool", True),
        ({"derived_epoch": "best"}, "pool", True),
        ({"on_collapse": "before"}, "conv", False),
        ({"derived_epoch": "best", "on_collapse": "before"}, "conv", False),
    ],
)
def test_the_epoch_that_is_derived(
    task: Data, recwarn: Any, settings: dict[str, Any], operation: str, warns: bool
) -> None:
    assert _derived(task, RunDirectory(None, {}), **settings) == operation
    assert any("collapsed" in str(one.message) for one in recwarn) == warns


@pytest.mark.parametrize(
    "settings", [{"derived_epoch": "best"}, {"on_collapse": "before"}], ids=str
)
def test_a_search_that_ended_before_it_chose_derives_what_it_has(
    task: Data, settings: dict[str, Any]
) -> None:
    searcher = Differentiable(weights_only=0.5, **settings)
    search = searcher.prepare(FunctionSpace(_pool_or_conv), task, None, 4, Recipe())
    with RunDirectory(None, {}) as run:
        # The first epoch trains the weights alone.
        rows = [
            {"epoch": 1, "choice": "a", "input": 0, "operation": name, "probability": 0.5}
            for name in ("pool", "conv")
        ]
        write_table(run.probabilities, rows)
        write_table(run.history, [{"stage": "search", "epoch": 1, "accuracy": 0.5}])
        with pytest.warns(UserWarning, match="before it began"):
            found = search.derive(run)
    assert found.choices["a"] in ("pool", "conv")


def test_a_collapse_can_end_the_run(task: Data, tmp_path: Any) -> None:
    with pytest.raises(
        DivergenceError, match=r"collapsed .*100% in a .*nothing was trained: train wh"
    ):
        _derived(task, RunDirectory(tmp_path, {}), on_collapse="stop")


def test_what_is_measured_of_the_found_operations_is_that_of_the_network(task: Data) -> None:
    """The others add nothing: the supernet gives what the chosen operation alone gives."""
    searcher = Differentiable(weights_only=0)
    search = searcher.prepare(FunctionSpace(_pool_or_conv), task, None, 1, Recipe())
    choose = search.choose
    for name in ("pool", "conv"):
        alone: Any = {"a": [(name, 0)]}
        right, seen = search._measure(alone)
        expected = total = 0
        choose.mixtures["a"].alpha.assign([[50.0, -50.0]] if name == "pool" else [[-50.0, 50.0]])
        for _, (images, labels) in search.stream.from_epoch(0, 1).take(8):
            guessed = np.argmax(search.model(images, training=True), axis=-1)
            expected, total = expected + int((guessed == labels.numpy()).sum()), total + len(labels)
        assert (right, seen) == (expected, total)
        choose.mixtures["a"].alpha.assign([[0.0, 0.0]])
        probabilities = choose.mixtures["a"].probabilities.numpy().tolist()
        assert probabilities == [[0.5, 0.5]]


def test_few_steps_are_told_before_the_first(task: Data, capsys: Any) -> None:
    for rate, few in ((6e-4, True), (0.1, False)):
        searcher = Differentiable(architecture_learning_rate=rate, weights_only=0)
        announce(searcher.prepare(Bats(cells=1, channels=4, nodes=1), task, None, 1, Recipe()), 1)
        told = capsys.readouterr().out
        assert ("of about 500 that decide at the searcher's" in told) == few


def test_a_space_that_asks_nothing_is_refused(task: Data) -> None:
    def fixed(choose, input_shape, classes) -> tf.keras.Model:
        images = tf.keras.Input(input_shape)
        return tf.keras.Model(images, larq_nas.layers.classifier(images, classes))

    with pytest.raises(InputError, match="nothing to search"):
        Differentiable().prepare(FunctionSpace(fixed), task, None, 1, Recipe())
    with pytest.raises(InputError, match="is of one operation: there is nothing to search"):
        Differentiable().prepare(
            Bnas(cells=1, channels=4, operations=("conv_3x3",)), task, None, 1, Recipe()
        )


def test_a_zero_that_is_not_there_cannot_be_weakened(task: Data) -> None:
    space = Bnas(cells=1, channels=4, nodes=1, operations=("conv_3x3", "max_pool_3x3"))
    with pytest.raises(InputError, match="never keeps it: leave it at 1"):
        Differentiable(transfer_factor=2.0).prepare(space, task, None, 1, Recipe())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "`temperature` must be positive, but got 0.0"),
        ({"temperature": -1.0}, "`temperature` must be positive, but got -1.0"),
        ({"temperature": {"normal": 0.0}}, "`temperature` must be positive"),
        ({"learning_rate": 0.0}, "`learning_rate` must be positive"),
        ({"learning_rate": "1"}, "`learning_rate` must be a finite number, but got '1'"),
        ({"optimizer": "sdg"}, "Unknown optimizer `sdg`; did you mean `sgd`"),
        ({"diversity": -1.0}, "`diversity` must be 0 or more, but got -1.0"),
        (
            {"diversity": 1.0, "diversity_annealing": 0.0},
            "`diversity_annealing` must be positive, but got 0.0",
        ),
        ({"architecture_betas": 0.5}, "`architecture_betas` must be two numbers"),
        ({"architecture_betas": (1.5, 2)}, "`architecture_betas` must be two numbers"),
        ({"weights_only": -1}, "`weights_only` must be 0 or more, but got -1"),
        ({"weights_only": 1}, "`weights_only` must be a share of the epochs, from 0 to below 1"),
        ({"final_learning_rate": 0.1}, "`final_learning_rate` must be at most `learning_rate`"),
        ({"transfer_factor": 0.5}, "`transfer_factor` must be 1 or more, but got 0.5"),
        ({"weight_decay": -1.0}, "`weight_decay` must be 0 or more"),
        ({"weight_decay": float("nan")}, "`weight_decay` must be a finite number, but got nan"),
        ({"temperature": "hot"}, "`temperature` must be a finite number, but got 'hot'"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Differentiable(**settings)


def signs(choose: Any, shape: Any, classes: int) -> tf.keras.Model:
    images = tf.keras.Input(shape)
    x = BinaryConv2D(4, 3, name="always")(choose_pool(choose, images))
    return tf.keras.Model(images, classifier(x, classes))


@pytest.mark.parametrize(
    ("space", "settings", "message"),
    [
        (FunctionSpace(signs), {"weights": "real"}, "layer `always` stays binary"),
        (FunctionSpace(signs), {"activations": "real"}, "layer `always` stays binary"),
        (
            Bats(cells=1, channels=4, nodes=1, precision="real"),
            {"weights": "binary"},
            '`weights` cannot be "binary" in this space',
        ),
    ],
)
def test_a_domain_that_a_space_does_not_have_is_refused(
    task: Data, space: Any, settings: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Differentiable(**settings).prepare(space, task, None, 2, Recipe())


def test_scales_of_binary_weights_start_at_their_mean_magnitude(task: Data) -> None:
    """Where a search has them, as a training does."""
    space = Bats(cells=1, channels=4, nodes=1, operations=("group_conv_3x3", "identity"))
    prepared = Differentiable(weights="binary").prepare(space, task, None, 2, Recipe())
    scale = prepared.model.get_layer("cell0_pre0_scale").scale.numpy()
    kernel = prepared.model.get_layer("cell0_pre0_conv").kernel
    latent = getattr(kernel, "latent_variable", kernel).numpy()
    np.testing.assert_allclose(scale, np.abs(latent).mean(axis=(0, 1, 2)), rtol=1e-5)
