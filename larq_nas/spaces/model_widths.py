"""The widths of any Keras model as a search space."""

import warnings
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from larq_nas.choices import Expansion
from larq_nas.errors import InputError, callers_level
from larq_nas.graph.calls import Call, read_graph
from larq_nas.graph.channels import OUTPUTS, Group, read_groups
from larq_nas.graph.rebuild import rebuild, without_softmax
from larq_nas.spaces.chooser import Chooser
from larq_nas.spaces.space import Space

__all__ = ["ModelWidths"]


class ModelWidths(Space):
    """Make the widths of the quantized convolutions of any model a search space.

    Layers that an addition, or anything else that joins channels one by one, ties together
    have one width; it is asked for by the name of the first of them. A real convolution
    follows if it is tied to a quantized one, and keeps its width otherwise. So do the layers
    that give the outputs, and those tied to the images or to a layer that needs the channels
    it has, which a warning names. A softmax at the end is left out: spaces end in logits.

    The networks have layers of their own, freshly initialized, of the names they have in the
    model, and no models within: give model and layers names, if an architecture is to be built
    elsewhere.

    !!! example
        ```python
        model = larq_zoo.sota.QuickNet(weights=None, input_shape=(64, 64, 3), num_classes=10)
        space = larq_nas.spaces.ModelWidths(model, ratios=(0.5, 1, 2))
        costs = larq_nas.cost.SpaceCosts(space, (64, 64, 3), classes=10)
        ```

    # Arguments
        model: a functional model of Keras and Larq layers, or a Sequential one with an input
            shape, from images to classes.
        ratios: the ratios to choose from, of the width that each layer has.

    # Attributes
        widths: the layers that are as wide as each other, by the name of each choice.

    # Raises
        InputError: if no quantized layer can change its width, or a ratio cannot be used.
    """

    def __init__(
        self, model: tf.keras.Model, ratios: Sequence[float] = (0.25, 0.5, 1, 2, 3, 4)
    ) -> None:
        self._calls, self._changes = without_softmax(_read(model))
        self.name = model.name  # type: ignore[misc]
        self.ratios = _require_ratios(ratios)
        groups = read_groups(self._calls, self.ratios)
        self._groups = [group for group in groups if group.quantized and not group.fixed]
        told = _told([group for group in groups if group.quantized and group.fixed])
        if not self._groups:
            raise InputError(
                f"Model `{self.name}` must have quantized convolutions whose width can change, "
                f"but {told or 'has none: use larq.layers.QuantConv2D with a `kernel_quantizer`'}."
            )
        for group in self._groups:
            _require_channels(group, self.ratios)
        if told:
            warnings.warn(f"Of model `{self.name}`, {told}.", stacklevel=callers_level())

    @property
    def widths(self) -> dict[str, list[str]]:
        return {group.name: [call.name for call in group.calls] for group in self._groups}

    @property
    def images(self) -> tuple[tuple[int, int, int], int]:
        return self._shape(), self._classes()

    def build(
        self, choose: Chooser, input_shape: tuple[int, int, int], classes: int
    ) -> tf.keras.Model:
        self._require(tuple(input_shape), classes)
        changes: dict[int, dict[str, Any]] = {**self._changes}
        for group in self._groups:
            filters = choose.filters(group.name, group.filters, self.ratios)
            for call in group.calls:
                setting = "units" if call.facts.kind == "dense" else "filters"
                changes[id(call.layer)] = {setting: filters}
        return rebuild(self._calls, changes, self.name)

    def check(self, input_shape: tuple[int, int, int]) -> None:
        self._require(tuple(input_shape), self._classes())

    def settings(self) -> dict[str, Any]:
        # The run keeps the ratios with what is asked; a model is not to be had from settings.
        return {}

    def _shape(self) -> Any:
        return next(call.shape for call in self._calls if call.facts.kind == "input")

    def _classes(self) -> int:
        return next(call.shape[-1] for call in self._calls if call.output)

    def _require(self, input_shape: tuple[int, ...], classes: int) -> None:
        if input_shape != self._shape() or classes != self._classes():
            raise InputError(
                f"Model `{self.name}` is of images of shape {self._shape()} and "
                f"{self._classes()} classes, but got {input_shape} and {classes}: build the model "
                "for these, or change the data."
            )


def _read(model: tf.keras.Model) -> list[Call]:
    """Return the calls of a model, or raise `InputError` if it does not map images to classes."""
    calls = read_graph(model, apart=False)
    inputs = [call.shape for call in calls if call.facts.kind == "input"]
    outputs = [call.shape for call in calls if call.output]
    if [len(shape) for shape in inputs] != [3] or [len(shape) for shape in outputs] != [1]:
        raise InputError(
            f"Model `{model.name}` must map one input of shape (height, width, channels) to one "
            f"output of shape (classes,), but maps {inputs} to {outputs}: add or leave out layers."
        )
    return calls


def _require_ratios(ratios: Sequence[float]) -> tuple[float, ...]:
    if not isinstance(ratios, tuple | list):
        raise InputError(f"`ratios` must be a list of numbers, but got {ratios!r}.")
    return Expansion("width", 2**20, tuple(ratios)).ratios


def _require_channels(group: Group, ratios: Sequence[float]) -> None:
    for ratio in ratios:
        if group.filters * ratio < 1:
            raise InputError(
                f"Each ratio must leave a layer one channel or more, but layer `{group.name}` has "
                f"{group.filters}, and {ratio} is among `ratios`: leave it out, or widen the layer."
            )


def _told(groups: Sequence[Group]) -> str:
    """Return which quantized layers stay as wide as they are, and why."""
    reasons: dict[str, list[str]] = {}
    for group in groups:
        # That the last layer stays goes without saying.
        if group.fixed != OUTPUTS or len(group.calls) > 1:
            reasons.setdefault(group.fixed, []).extend(group.quantized)
    named = [f"{', '.join(f'`{n}`' for n in names)} ({why})" for why, names in reasons.items()]
    return f"these stay as wide as they are: {'; '.join(named)}" if named else ""
