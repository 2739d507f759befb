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
        first = np.arange(2 * classes) % classes
        other = (first + 1) % classes
        eye = np.eye(classes, dtype=np.float32)
        logits = _LOGIT * (eye[first] - eye[other]) + np.arange(classes) / classes
        added = np.linspace(-3, 3, len(first))[:, None]
        for metric in self.make():
            values = [
                _measured(metric, eye[labels] if soft else labels, numbers, classes, soft)
                for labels, numbers in ((first, logits), (other, logits), (first, logits + added))
            ]
            if not _of_keras(metric):
                continue  # what it measures is the user's choice
            if values[0] == values[1]:
                raise InputError(
                    f"`metrics`: `{metric.name}` is the same whatever the labels are, which are "
                    f"{_FORMS[soft]}: use one for them, such as {_counterpart(metric, soft)}."
                )
            if abs(values[2] - values[0]) > _SAME * (1 + abs(values[0])):
                raise InputError(
                    f"`metrics`: `{metric.name}` changes if a number is added to all logits of an "
                    "image, as it takes them for something else: use one with `from_logits=True`, "
                    "or a function of (labels, logits) that takes tf.nn.softmax first."
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
    if again.name != metric.name:
        raise InputError(f"`metrics`: {kind.__name__} must keep its `name` in `get_config()`.")
    return kind, config


def _counterpart(metric: Metric, soft: bool) -> str:
    """Return the metric of Keras that measures the same by labels of the form that there is."""
    name = str(getattr(getattr(metric, "_fn", None), "__name__", ""))
    other = name.removeprefix("sparse_") if soft else f"sparse_{name}"
    known = other != name and hasattr(tf.keras.metrics, other)
    return other if known else f"{'' if soft else 'sparse_'}top_k_categorical_accuracy"


def _measured(
    metric: Metric, labels: np.ndarray, logits: np.ndarray, classes: int, soft: bool
) -> float:
    """Return what a metric gives, or raise `InputError` if that is no number."""
    metric.reset_state()
    try:
        metric.update_state(tf.constant(labels), tf.constant(logits, tf.float32))
        value = np.asarray(metric.result())
    except Exception as error:
        raise InputError(
            f"`metrics`: `{metric.name}` cannot be computed of labels of shape {labels.shape} and "
            f"logits of {classes} classes: {first_line(error)}; labels are "
            f"{_FORMS[soft]}: use one for them, such as {_counterpart(metric, soft)}."
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
