"""What the outputs of a network stand for: classes, numbers, masks or maps."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import larq as lq
import numpy as np
import tensorflow as tf

from larq_nas.deploy.recording import record
from larq_nas.errors import InputError
from larq_nas.graph.calls import Call, read_graph

Kind = Literal["classes", "probabilities", "numbers", "scores"]
"""What a program prints of an output.

`"classes"`: the last axis are classes, of which the largest is best. `"probabilities"`: each
number is an independent probability. `"numbers"`: plain numbers. `"scores"`: they
may be classes or numbers.
"""

_LAYERS = tf.keras.layers
# Layers and functions that give the numbers they read, in another shape or size.
_PASSING = (
    _LAYERS.Reshape,
    _LAYERS.Flatten,
    _LAYERS.Permute,
    _LAYERS.Dropout,
    _LAYERS.Cropping2D,
    _LAYERS.UpSampling2D,
    _LAYERS.Resizing,
    _LAYERS.AveragePooling2D,
    _LAYERS.GlobalAveragePooling2D,
)
_PASSING_FUNCTIONS = ("reshape", "squeeze", "transpose", "identity")
_BOUNDED = {"sigmoid": "sigmoid", "hard_sigmoid": "hard sigmoid"}
_CLASSES = ("crossentropy", "hinge")
_REGRESSION = ("mean_", "squared", "absolute", "huber", "log_cosh", "logcosh", "poisson", "cosine")
_SHORT = {"mse", "mae", "mape", "msle"}
# What the static fields of a Java class can hold.
_MOST_NAMES = 5_000


@dataclass(frozen=True)
class Meaning:
    """What one output of a network is.

    # Arguments
        name: its name in Keras.
        shape: its shape without the batch.
        kind: what a program prints of it.
        text: what it is, for a reader.
        names: names of its classes, or of its probabilities; empty if not known.
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind
    text: str
    names: Sequence[str] = ()

    @property
    def channels(self) -> int:
        """Size of its last axis."""
        return self.shape[-1] if self.shape else 1


def meanings(
    model: tf.keras.Model,
    class_names: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    *,
    classifies: bool = False,
) -> list[Meaning]:
    """Return what each output of `model` is, in its order.

    # Arguments
        model: the Keras model.
        class_names: names of the classes, for the only output that has so many; or those of
            several outputs by their names.
        classifies: whether it is known to classify, as a network with an accuracy does.

    # Raises
        InputError: if `class_names` do not fit.
    """
    outputs = zip(model.output_names, model.outputs, strict=True)
    shapes = {name: tuple(output.shape[1:]) for name, output in outputs}
    named = _names_by_output(class_names, shapes)
    found = []
    for index, (name, activation) in enumerate(zip(shapes, _activations(model), strict=True)):
        known = _task(model, name, index)
        if known is None and (name in named or (classifies and len(shapes) == 1)):
            known = "classes"
        kind, text = _describe(shapes[name], activation, known)
        found.append(Meaning(name, shapes[name], kind, text, named.get(name, ())))
    return found


def _names_by_output(
    class_names: Sequence[str] | Mapping[str, Sequence[str]] | None,
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, list[str]]:
    if class_names is None:
        return {}
    if isinstance(class_names, str):
        raise InputError(f"`class_names` must be a list of names, but got {class_names!r}.")
    if not isinstance(class_names, Mapping):
        given = list(class_names)
        fitting = [name for name, shape in shapes.items() if len(given) in _counts(shape)]
        if len(fitting) != 1:
            sizes = ", ".join(f"`{name}` has {_counts(s)[0]}" for name, s in shapes.items())
            raise InputError(
                f"`class_names` must hold a name for each class of one output ({sizes}), but has "
                f"{len(given)}: give as many, or a dictionary from outputs to names."
            )
        class_names = {fitting[0]: given}
    for output, names in class_names.items():
        if output not in shapes:
            raise InputError(
                f"`class_names` must be of outputs ({', '.join(shapes)}), but got `{output}`."
            )
        if len(names) not in _counts(shapes[output]):
            raise InputError(
                f"`class_names` must hold {_counts(shapes[output])[-1]} names for output "
                f"`{output}`, but has {len(names)}."
            )
        if not all(isinstance(name, str) and name and name.isprintable() for name in names):
            raise InputError(
                f"`class_names` must be texts of one line, but those of `{output}` are not all."
            )
        if len(names) > _MOST_NAMES:
            raise InputError(
                f"`class_names` must be {_MOST_NAMES:,} at most, but has {len(names)}."
            )
    return {output: list(names) for output, names in class_names.items()}


def _counts(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return how many names an output can have: a single probability has one or two."""
    channels = shape[-1] if shape else 1
    return (1, 2) if channels == 1 else (channels,)


def _task(model: tf.keras.Model, name: str, index: int) -> str | None:
    """Return `"classes"` or `"regression"` if the loss of the model says so."""
    loss = getattr(model, "loss", None)
    history = model.outputs[index]._keras_history
    if loss is None and isinstance(history.layer, tf.keras.Model):
        # A subclassed model stands in a functional one, and has the loss itself.
        loss, index = getattr(history.layer, "loss", None), history.tensor_index
        if isinstance(loss, Mapping):
            # Keras orders the outputs of a dictionary by the alphabet.
            names = getattr(history.layer, "output_names", None) or sorted(loss)
            name = names[index] if index < len(names) else name
    if isinstance(loss, Mapping):
        loss = loss.get(name)
    elif isinstance(loss, list | tuple):
        loss = loss[index] if index < len(loss) else None
    text = loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", ""))
    text = str(text).lower()
    if any(part in text for part in _CLASSES):
        return "classes"
    if text in _SHORT or any(part in text for part in _REGRESSION):
        return "regression"
    return None


@dataclass(frozen=True)
class _Step:
    """A call of a layer on the way to an output.

    Shapes of what it `read` and of what was `given` are without the batch; `read` is `None` if it
    read nothing.
    """

    layer: tf.keras.layers.Layer
    kwargs: Mapping[str, Any]
    read: tuple[int, ...] | None
    given: tuple[int, ...]

    @property
    def passes(self) -> bool:
        """Whether the call gives the numbers that it read, in another shape or size."""
        passing = isinstance(self.layer, _PASSING) or _symbol(self.layer) in _PASSING_FUNCTIONS
        return passing and self.read is not None

    @property
    def mixes_axes(self) -> bool:
        """Whether its last axis is not the last axis of what it read."""
        moves = isinstance(self.layer, _LAYERS.Permute) or _symbol(self.layer) == "transpose"
        return moves or self.read is None or self.read[-1:] != self.given[-1:]


def _activations(model: tf.keras.Model) -> list[str]:
    """Return the activation that each output is behind, `"linear"` if none, empty if not known."""
    calls = read_graph(model)
    found = []
    for index in range(len(model.outputs)):
        activation = _activation(_steps_of_graph(calls, index))
        # What cannot be taken apart is called: the layers inside of it are seen then.
        found.append(activation or _activation(_steps_of_recording(model, index)))
    return found


def _activation(steps: Iterator[_Step]) -> str:
    """Return the activation of the last step that computes, empty if not known.

    A softmax over another axis than the last, or one that was reshaped since, is `"mixed"`.
    """
    reshaped = False
    for step in steps:
        if not step.passes:
            found = _own_activation(step)
            return "mixed" if found == "softmax" and reshaped else found
        reshaped |= step.mixes_axes
    return ""


def _steps_of_graph(calls: Sequence[Call], index: int) -> Iterator[_Step]:
    """Yield the calls that lead to output `index`, the last one first."""
    call = next(call for call in calls if index in call.outputs)
    while True:
        before = calls[call.inputs[0]] if call.inputs else None
        kwargs = call.layer._inbound_nodes[call.index].call_kwargs
        yield _Step(call.layer, kwargs, before.shape if before else None, call.shape)
        if before is None:
            return
        call = before


def _steps_of_recording(model: tf.keras.Model, index: int) -> Iterator[_Step]:
    """Yield the calls that led to output `index` for an image of zeros, the last one first."""
    images = [np.zeros((1, *one.shape[1:]), one.dtype.as_numpy_dtype) for one in model.inputs]
    recording = record(model, images)
    tensor = recording.outputs[index]
    while id(tensor) in recording.makers:
        call = recording.calls[recording.makers[id(tensor)]]
        before = call.inputs[0] if call.inputs else None
        read = None if before is None else tuple(before.shape[1:])
        yield _Step(call.layer, call.kwargs, read, tuple(tensor.shape[1:]))
        if before is None:
            return
        tensor = before


def _symbol(layer: tf.keras.layers.Layer) -> str:
    """Return the name of the function that a layer of Keras stands for; empty for others."""
    return str(getattr(layer, "symbol", "")).rpartition(".")[2]


def _own_activation(step: _Step) -> str:
    layer, rank = step.layer, len(step.given) + 1
    if isinstance(layer, _LAYERS.Softmax):
        return "softmax" if layer.axis in (-1, rank - 1) else "mixed"
    if isinstance(layer, _LAYERS.ReLU | _LAYERS.LeakyReLU | _LAYERS.PReLU | _LAYERS.ELU):
        return type(layer).__name__
    if name := _symbol(layer):
        axis = step.kwargs.get("axis")
        if name == "softmax" and axis not in (None, -1, rank - 1):
            return "mixed"
        bent = ("softmax", "sigmoid", "relu", "tanh", "relu6", "softplus", "elu", "exp", "sign")
        return name if name in bent else "linear"
    activation = getattr(layer, "activation", None)
    if activation is not None:
        if isinstance(activation, _LAYERS.Softmax):
            return "softmax"
        name = str(getattr(activation, "__name__", type(activation).__name__))
        return "softmax" if name.startswith("softmax") else name
    known = (tf.keras.layers, lq.layers)
    if any(getattr(module, type(layer).__name__, None) is type(layer) for module in known):
        return "linear"
    return "linear" if type(layer).__module__.startswith("larq_nas.") else ""


def _describe(shape: tuple[int, ...], activation: str, known: str | None) -> tuple[Kind, str]:
    """Return the kind of an output and what it is, for a reader."""
    channels = shape[-1] if shape else 1
    size = math.prod(shape[:-1])
    place = "" if size == 1 else _place(shape[:-1])
    if activation == "softmax":
        if channels == 1:
            return "numbers", "a softmax of one number, which is always 1"
        start, end = (f"{place[0]}, the ", f" {place[1]}") if place else ("", "")
        return "classes", f"{start}probabilities of {channels} classes{end} (softmax)"
    if activation in _BOUNDED and known == "regression" and size * channels == 1:
        return "numbers", f"one number from 0 to 1 ({_BOUNDED[activation]}): a regression"
    if activation in _BOUNDED:
        return "probabilities", _probabilities(channels, place, _BOUNDED[activation])
    behind = f"behind {activation}" if activation not in ("linear", "", "mixed") else ""
    behind = behind or {
        "linear": "without activation",
        "mixed": "of a softmax over another axis",
    }.get(activation, "of a layer whose activation is not known")
    if place:
        many = "one number" if channels == 1 else f"{channels} numbers"
        if known == "classes" and channels > 1 and activation != "mixed":
            return "classes", f"{place[0]}, the logits of {channels} classes {place[1]}, {behind}"
        return "numbers", f"{place[0]}, {many} {place[1]}, {behind}"
    if channels == 1:
        meant = {
            "classes": "the logit of a probability (a sigmoid makes it one)",
            "regression": "a regression",
            None: "a regression, or the logit of a probability (a sigmoid makes it one)",
        }[known]
        return "numbers", f"one number {behind}: {meant}"
    if known == "regression" or activation == "mixed":
        return "numbers", f"{channels} numbers {behind}" + (": a regression" if known else "")
    if known == "classes":
        if activation != "linear":
            return "classes", f"{channels} numbers {behind}, one for each class"
        return "classes", f"logits of {channels} classes, without softmax ({behind})"
    return "scores", f"{channels} numbers {behind}: logits of {channels} classes, or a regression"


def _place(shape: tuple[int, ...]) -> tuple[str, str]:
    sizes = " x ".join(map(str, shape))
    if len(shape) == 2:
        return f"a map of {sizes}", "for each pixel"
    return f"{sizes} positions", "at each"


def _probabilities(channels: int, place: Any, function: str) -> str:
    if not place:
        if channels == 1:
            return f"one probability ({function})"
        return f"{channels} independent probabilities ({function}): several may be near 1"
    if place[1] == "for each pixel":
        sizes = place[0].removeprefix("a map of ")
        if channels == 1:
            return f"a mask of {sizes}: a probability for each pixel ({function})"
        return f"{channels} masks of {sizes}: {channels} probabilities for each pixel ({function})"
    return f"{place[0]}, {channels} probabilities at each ({function})"
