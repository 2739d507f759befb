"""The widths of any Keras model as a search space."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import tensorflow as tf

from larq_nas.choices import Expansion
from larq_nas.errors import InputError, warn
from larq_nas.graph.calls import Call, read_graph
from larq_nas.graph.channels import OUTPUTS, Group, read_groups
from larq_nas.graph.rebuild import rebuild, without_softmax
from larq_nas.spaces.chooser import Chooser, ImageShape
from larq_nas.spaces.space import Space


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
        multiple_of: what all widths are rounded to multiples of, at ratio 1 too.

    # Attributes
        widths: the layers that are as wide as each other, by the name of each choice.

    # Raises
        InputError: if no quantized layer can change its width, or a ratio cannot be used.
    """

    def __init__(
        self,
        model: tf.keras.Model,
        ratios: Sequence[float] = (0.25, 0.5, 1, 2, 3, 4),
        multiple_of: int = 1,
    ) -> None:
        self._calls, self._changes = without_softmax(_read(model))
        self.name = model.name  # type: ignore[misc]
        if not isinstance(ratios, tuple | list):
            raise InputError(f"`ratios` must be a list of numbers, but got {ratios!r}.")
        self.ratios = Expansion("width", 2**20, tuple(ratios), multiple_of).ratios
        self.multiple_of = multiple_of
        groups = read_groups(self._calls, self.ratios, multiple_of)
        self._groups = [group for group in groups if group.quantized and not group.fixed]
        told = _told([group for group in groups if group.quantized and group.fixed])
        if not self._groups:
            raise InputError(
                f"Model `{self.name}` must have quantized convolutions whose width can change, "
                f"but {told or 'has none: use larq.layers.QuantConv2D with a `kernel_quantizer`'}."
            )
        for group, ratio in product(self._groups, self.ratios):
            if group.filters * ratio < 1:
                raise InputError(
                    f"Each ratio must leave a layer one channel or more, but layer `{group.name}` "
                    f"has {group.filters}, and {ratio} is among `ratios`: leave it out, or widen "
                    "the layer."
                )
        if told:
            warn(f"Of model `{self.name}`, {told}.")

    @property
    def widths(self) -> dict[str, list[str]]:
        return {group.name: [call.name for call in group.calls] for group in self._groups}

    @property
    def images(self) -> tuple[ImageShape, int]:
        shape: Any = next(call.shape for call in self._calls if call.facts.kind == "input")
        return shape, next(call.shape[-1] for call in self._calls if call.output)

    def build(self, choose: Chooser, input_shape: ImageShape, classes: int) -> tf.keras.Model:
        self._require(tuple(input_shape), classes)
        changes: dict[int, dict[str, Any]] = {**self._changes}
        for group in self._groups:
            filters = choose.filters(group.name, group.filters, self.ratios, self.multiple_of)
            for call in group.calls:
                setting = "units" if call.facts.kind == "dense" else "filters"
                changes[id(call.layer)] = {setting: filters}
        return rebuild(self._calls, changes, self.name)

    def check(self, input_shape: ImageShape) -> None:
        self._require(tuple(input_shape), self.images[1])

    def settings(self) -> dict[str, Any]:
        # The run keeps the ratios with what is asked; a model is not to be had from settings.
        return {}

    def _require(self, input_shape: tuple[int, ...], classes: int) -> None:
        own_shape, own_classes = self.images
        if (input_shape, classes) != (own_shape, own_classes):
            raise InputError(
                f"Model `{self.name}` is of images of shape {own_shape} and {own_classes} classes, "
                f"but got {input_shape} and {classes}: build the model for these, or change the "
                "data."
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


def _told(groups: Sequence[Group]) -> str:
    """Return which quantized layers stay as wide as they are, and why."""
    reasons: dict[str, list[str]] = {}
    for group in groups:
        # That the last layer stays goes without saying.
        if group.fixed != OUTPUTS or len(group.calls) > 1:
            reasons.setdefault(group.fixed, []).extend(group.quantized)
    named = [f"{', '.join(f'`{n}`' for n in names)} ({why})" for why, names in reasons.items()]
    return f"these stay as wide as they are: {'; '.join(named)}" if named else ""
