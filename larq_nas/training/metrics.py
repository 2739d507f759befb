"""Further metrics of a training: read, tried on logits, and made anew for each network."""

import contextlib
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from larq_nas.errors import InputError, first_line

Metric: TypeAlias = tf.keras.metrics.Metric
GivenMetrics: TypeAlias = str | Callable[..., Any] | Sequence[Any] | None
"""Names, functions or objects of Keras's metrics, one or several."""

_TAKEN = ("accuracy", "loss", "flip_ratio", "stage", "epoch")
_LOGIT = 4.0
_MOST_IMAGES = 256
_BEST = 5  # Keras's default
_SAME = 1e-4
_FORMS = {True: "probabilities of the classes", False: "class numbers"}


class Metrics:
    """Metrics of labels and logits, by what Keras makes them of.

    # Arguments
        given: names, functions or objects of Keras's metrics.

    # Raises
        InputError: if Keras knows none of a name, one cannot be made anew, or names are taken.
    """

    def __init__(self, given: GivenMetrics = None) -> None:
        several = isinstance(given, Iterable) and not isinstance(given, str)
        listed: list[Any] = list(given) if several else [] if given is None else [given]  # type: ignore[arg-type]
        self._kept = [_read(one) for one in listed]
        self.names = tuple(metric.name for metric in self.make())
        for number, name in enumerate(self.names):
            if name in _TAKEN or name in self.names[:number] or name.startswith("val_"):
                raise InputError(
                    f"`metrics` must have names of their own, but got `{name}`: leave it out, or "
                    "give it another `name`."
                )

    def make(self) -> list[Metric]:
        """Return the metrics, each of a new state."""
        return [kind.from_config(dict(config)) for kind, config in self._kept]

    def settings(self) -> list[Any]:
        """Return what a run keeps of them."""
        told = [{"class": kind.__name__, **config} for kind, config in self._kept]
        read: list[Any] = json.loads(json.dumps(told, default=_name))
        return read

    def check(self, classes: int, soft: bool = False) -> None:
        """Raise `InputError` for one that cannot be computed of labels and logits.

        # Arguments
            classes: number of classes.
            soft: whether labels are probabilities of the classes.
        """
        if not self._kept:
            return
        first = np.arange(min(2 * classes, _MOST_IMAGES)) % classes
        other = (first + 1) % classes
        whole = np.arange(classes)

        def vectors(labels: np.ndarray) -> np.ndarray:
            return (labels[:, None] == whole).astype(np.float32)

        logits = _LOGIT * (vectors(first) - vectors(other)) + whole / classes
        # Probabilities are cut off at 0 and 1: some logits must lie between.
        small = logits / 2 / np.abs(logits).max()
        added = np.linspace(-3, 4, len(first))[:, None]
        cases = [(first, logits), (first, logits + added), (first, small), (first, small + added)]
        for metric in self.make():
            changed, *values = (
                _measured(metric, vectors(labels) if soft else labels, numbers, classes, soft)
                for labels, numbers in [(other, logits), *cases]
            )
            if not _of_keras(metric):
                continue  # what it measures is the user's choice
            if values[0] == changed and _best_of(metric) >= classes:
                raise InputError(
                    f"`metrics`: `{metric.name}` is always 1, as its `k` is {_best_of(metric)} and "
                    f"there are {classes} classes: use {_top(classes, soft)}, or leave it out."
                )
            if values[0] == changed:
                raise InputError(
                    f"`metrics`: `{metric.name}` is the same whatever the labels are, which are "
                    f"{_FORMS[soft]}: use {_counterpart(metric, classes, soft)}."
                )
            moved = (abs(values[n + 1] - values[n]) / (1 + abs(values[n])) for n in (0, 2))
            if max(moved) > _SAME:
                # Some that take logits take each for a class of its own.
                takes = getattr(metric, "_from_logits", False)
                mend = "" if takes else "one with `from_logits=True`, or "
                raise InputError(
                    f"`metrics`: `{metric.name}` changes if a number is added to all logits of an "
                    f"image, as it takes them for something else: use {mend}a function of (labels, "
                    "logits) that takes tf.nn.softmax first."
                )


def _read(given: Any) -> tuple[Any, dict[str, Any]]:
    """Return the class of a metric and what makes it anew."""
    metric = given
    if isinstance(given, str):
        with contextlib.suppress(ValueError):
            metric = tf.keras.metrics.get(given)
        if isinstance(metric, str):  # Keras takes some names for objects that were read before
            raise InputError(
                f"`metrics`: Keras knows no `{given}`: give a name such as "
                "sparse_top_k_categorical_accuracy, or a tf.keras.metrics.Metric."
            )
    if isinstance(metric, type) or not callable(metric):
        raise InputError(f"`metrics` must hold names or objects of metrics, but got {given!r}.")
    if not isinstance(metric, tf.keras.metrics.Metric):
        name = getattr(metric, "__name__", None)
        metric = tf.keras.metrics.MeanMetricWrapper(metric, name=name)
    kind, config = type(metric), metric.get_config()
    try:
        again = kind.from_config(dict(config))
    except Exception as error:
        raise InputError(
            f"`metrics`: {kind.__name__} cannot be made anew of its `get_config()`, as each stage "
            f"does: {first_line(error)}."
        ) from error
    for name, value in {"name": metric.name, **vars(metric)}.items():
        plain = not name.startswith("_") and type(value) in (bool, int, float, str)
        if plain and getattr(again, name, None) != value:
            raise InputError(
                f"`metrics`: {kind.__name__} must keep its `{name}` in `get_config()`, of which "
                "each stage makes it anew."
            )
    return kind, config


def _counterpart(metric: Metric, classes: int, soft: bool) -> str:
    """Return what measures the same by labels of the form that there is."""
    name = _function(metric)
    other = name.removeprefix("sparse_") if soft else f"sparse_{name}"
    if "top_k" in name or isinstance(metric, _TOP):
        return f"one for them, such as {_top(classes, soft)}"
    if other != name and hasattr(tf.keras.metrics, other):
        return f"one for them, such as {other}"
    taken = "" if soft else "tf.one_hot of the labels and "
    return (
        f"a function of (labels, logits), or a subclass with `update_state`, that takes {taken}"
        "tf.nn.softmax of the logits first"
    )


_TOP = (tf.keras.metrics.TopKCategoricalAccuracy, tf.keras.metrics.SparseTopKCategoricalAccuracy)


def _top(classes: int, soft: bool) -> str:
    """Return a metric that tells the class among the first, of fewer than all."""
    if classes > _BEST:
        return f"{'' if soft else 'sparse_'}top_k_categorical_accuracy"
    return f"tf.keras.metrics.{'' if soft else 'Sparse'}TopKCategoricalAccuracy(k={classes - 1})"


def _function(metric: Metric) -> str:
    return str(getattr(getattr(metric, "_fn", None), "__name__", ""))


def _best_of(metric: Metric) -> int:
    """Return among how many classes a metric seeks the right one; 0 for other metrics."""
    default = _BEST if "top_k" in _function(metric) else 0
    return int(getattr(metric, "_fn_kwargs", {}).get("k", default))


def _measured(
    metric: Metric, labels: np.ndarray, logits: np.ndarray, classes: int, soft: bool
) -> float:
    """Return what a metric gives, or raise `InputError` if that is no number."""
    metric.reset_state()
    try:
        metric.update_state(tf.constant(labels), tf.constant(logits, tf.float32))
        value = np.asarray(metric.result())
    except Exception as error:
        mend = f"use {_counterpart(metric, classes, soft)}"
        if not _of_keras(metric):
            mend = "a function takes (labels, logits) and gives a number for each image"
        raise InputError(
            f"`metrics`: `{metric.name}` cannot be computed of labels of shape {labels.shape} and "
            f"logits of {classes} classes: {first_line(error)}; labels are {_FORMS[soft]}: {mend}."
        ) from error
    if value.shape or not np.isfinite(value):
        raise InputError(
            f"`metrics`: `{metric.name}` must give a finite number, but gives {value}."
        )
    return float(value)


def _of_keras(metric: Metric) -> bool:
    function = getattr(metric, "_fn", metric)
    module = getattr(function, "__module__", "") or ""
    return module.startswith(("keras.", "tf_keras."))


def _name(value: Any) -> str:
    return str(getattr(value, "__name__", type(value).__name__))


NO_METRICS = Metrics()
