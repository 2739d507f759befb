"""Further metrics: which are refused, and where they are measured."""

import json
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

import larq_nas
from larq_nas.errors import InputError
from larq_nas.spaces import Bats
from larq_nas.training import Recipe
from larq_nas.training.metrics import Metrics

K = tf.keras.metrics


def first_three(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return K.sparse_top_k_categorical_accuracy(labels, logits, k=3)


class Unconfigured(K.Mean):
    def __init__(self, weight: float) -> None:
        super().__init__("unconfigured")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("top5", "Keras knows no `top5`: give a name such as sparse_top_k_categorical_accuracy"),
        (K.Mean, "must hold names or objects of metrics, but got <class"),
        ([3], "must hold names or objects of metrics, but got 3"),
        ("accuracy", "must have names of their own, but got `accuracy`: leave it out"),
        ([first_three, first_three], "must have names of their own, but got `first_three`"),
        (Unconfigured(2.0), r"Unconfigured cannot be made anew of its `get_config\(\)`"),
    ],
)
def test_what_is_no_metric_is_refused_before_data_are_read(given: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        larq_nas.train("bats", None, None, metrics=given)


@pytest.mark.parametrize(
    ("given", "soft", "told"),
    [
        ("categorical_accuracy", False, "`categorical_accuracy` is the same whatever the labels"),
        ("top_k_categorical_accuracy", False, "`top_k_cat.*(same whatever|cannot be computed)"),
        ("sparse_categorical_crossentropy", False, "takes them for something else.*from_logits="),
        ("mean_absolute_error", False, "cannot be computed of labels of shape|takes them for"),
        (
            K.AUC(name="auc"),
            False,
            r"`auc` cannot .*numbers: use a function .*that takes tf.one_hot",
        ),
        (lambda labels, logits: logits / 0.0, False, "must give a finite number, but gives"),
        ("sparse_top_k_categorical_accuracy", True, "`sparse_top_k_categorical_accuracy`"),
    ],
)
def test_what_cannot_measure_logits_is_refused(given: Any, soft: bool, told: str) -> None:
    with pytest.raises(InputError, match=told):
        Metrics(given).check(10, soft)


@pytest.mark.parametrize(
    ("given", "soft", "mend"),
    [
        ("top_k_categorical_accuracy", False, "sparse_top_k_categorical_accuracy"),
        (K.TopKCategoricalAccuracy(3, name="top3"), False, "sparse_top_k_categorical_accuracy"),
        ("categorical_accuracy", False, "sparse_categorical_accuracy"),
        ("sparse_categorical_accuracy", True, "categorical_accuracy"),
        ("sparse_top_k_categorical_accuracy", True, "top_k_categorical_accuracy"),
    ],
)
def test_a_metric_of_other_labels_names_that_of_these(given: Any, soft: bool, mend: str) -> None:
    with pytest.raises(InputError, match=f" such as {mend}\\."):
        Metrics(given).check(10, soft)
    Metrics(mend).check(10, soft)


def test_a_refusal_has_no_remnants_of_tensorflow() -> None:
    with pytest.raises(InputError) as refused:
        Metrics(K.TopKCategoricalAccuracy(3, name="top3")).check(10)
    assert "[Op:" not in str(refused.value)


def test_a_metric_made_as_it_is_advised_is_taken() -> None:
    class OneHotAUC(K.AUC):
        def update_state(self, labels: Any, logits: Any, sample_weight: Any = None) -> None:
            labels = tf.one_hot(labels, logits.shape[-1])
            super().update_state(labels, tf.nn.softmax(logits), sample_weight)

    Metrics(OneHotAUC(name="auc")).check(10)


@pytest.mark.parametrize(
    ("given", "soft"),
    [
        ("sparse_top_k_categorical_accuracy", False),
        (K.SparseTopKCategoricalAccuracy(3, name="top3"), False),
        (K.SparseCategoricalCrossentropy(from_logits=True, name="entropy"), False),
        (first_three, False),
        (lambda labels, logits: tf.norm(logits, axis=-1), False),
        ("top_k_categorical_accuracy", True),
        ("categorical_accuracy", True),
    ],
)
def test_what_measures_logits_is_taken(given: Any, soft: bool) -> None:
    Metrics(given).check(10, soft)
    Metrics(given).check(7, soft)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_first_of_few_classes_are_fewer_than_all(classes: int, soft: bool) -> None:
    name = "top_k_categorical_accuracy" if soft else "sparse_top_k_categorical_accuracy"
    kind = K.TopKCategoricalAccuracy if soft else K.SparseTopKCategoricalAccuracy
    for given in (name, kind(classes, name="all")):
        with pytest.raises(InputError, match=rf"is always 1, .*\(k={classes - 1}\), or leave it"):
            Metrics(given).check(classes, soft)
    Metrics(kind(classes - 1)).check(classes, soft)
    with pytest.raises(InputError, match=rf" such as .*\(k={classes - 1}\)\."):
        Metrics("sparse_" * soft + "top_k_categorical_accuracy").check(classes, soft)


@pytest.mark.parametrize(
    ("given", "soft", "told"),
    [
        (K.SparseCategoricalCrossentropy(), False, "use one with `from_logits=True`"),
        (K.CategoricalCrossentropy(), True, "use one with `from_logits=True`"),
        ("hinge", True, "takes them for something else"),
        (K.SensitivityAtSpecificity(0.5), True, "takes them for something else"),
        (K.Mean(), True, "takes them for something else"),
        (K.AUC(from_logits=True), True, r"something else: use a function of \(labels, logits\)"),
        (lambda labels, logits: None, False, r"a function takes \(labels, logits\) and gives"),
        (lambda labels: 0.0, False, r"a function takes \(labels, logits\) and gives"),
    ],
)
def test_what_cannot_measure_logits_of_two_classes_is_refused(
    given: Any, soft: bool, told: str
) -> None:
    with pytest.raises(InputError, match=told):
        Metrics(given).check(2, soft)


def test_many_classes_take_no_memory_of_their_square() -> None:
    Metrics().check(2**31 - 1)
    Metrics("sparse_top_k_categorical_accuracy").check(20_000)


class Forgetful(K.SparseTopKCategoricalAccuracy):
    """Does not tell its threshold."""

    def __init__(self, k: int = 3, name: str = "own", threshold: float = 0.5, **kw: Any) -> None:
        super().__init__(k, name, **kw)
        self.threshold = threshold


def test_a_metric_whose_settings_would_be_lost_is_refused() -> None:
    Metrics(Forgetful(2)).check(10)
    with pytest.raises(InputError, match=r"Forgetful must keep its `threshold` in `get_config"):
        Metrics(Forgetful(threshold=0.9))


def test_they_are_in_the_history_the_result_and_the_model(tmp_path: Path) -> None:
    space = Bats(cells=1, channels=4, nodes=1)
    train, validation = larq_nas.datasets.load("digits", batch_size=32)
    stop = tf.keras.callbacks.EarlyStopping("val_top3", patience=5)
    settings = {
        "recipe": Recipe(stages=("binary",)),
        "epochs": 1,
        "callbacks": stop,
        "directory": tmp_path / "run",
        "return_result": True,
        "verbose": 0,
    }
    given = [K.SparseTopKCategoricalAccuracy(3, name="top3"), first_three]
    data = (
        larq_nas.Architecture.random(space, (8, 8, 1), 10, 0),
        train.take(3),
        validation.take(2),
    )
    result = larq_nas.train(*data, metrics=given, **settings)
    assert result.metrics.keys() == {"top3", "first_three"}
    assert result.metrics["top3"] == pytest.approx(result.history[-1]["val_top3"], abs=1e-5)
    assert result.metrics["top3"] == pytest.approx(result.metrics["first_three"])
    assert result.history[-1].keys() >= {"top3", "val_first_three"}
    kept = json.loads((tmp_path / "run" / "result.json").read_text())
    assert kept["metrics"] == result.metrics
    measured = result.model.evaluate(validation.take(2), verbose=0, return_dict=True)
    assert {name: measured[name] for name in result.metrics} == result.metrics
    with pytest.raises(InputError, match=r"other settings \(metrics was"):
        larq_nas.train(*data, metrics=given[:1], **settings)
