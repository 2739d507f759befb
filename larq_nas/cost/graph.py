"""A network as a list of layer calls, nested models taken apart."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from larq_nas.cost.facts import Facts
from larq_nas.cost.kinds import facts_of
from larq_nas.errors import InputError

__all__ = ["Call", "prune", "read_graph"]


@dataclass(frozen=True)
class Call:
    """One call of one layer.

    # Arguments
        layer: the layer; shared layers have several calls.
        name: name of the layer, behind those of the models it is nested in.
        inputs: indices of the calls whose outputs it reads.
        shape: shape of its output without the batch.
        facts: what the layer does.
        index: how often the layer was called before, in the order the network was written.
        first: whether it is the layer's first call here, at which its weights are counted.
        outputs: which outputs of the network it gives, by their numbers.
        position: which of the layer's outputs it is, for layers with several.
        argument: which input of the network it is; `None` for what is computed.
    """

    layer: tf.keras.layers.Layer
    name: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    facts: Facts
    index: int = 0
    first: bool = True
    outputs: tuple[int, ...] = ()
    position: int = 0
    argument: int | None = None

    @property
    def output(self) -> bool:
        """Whether it gives an output of the network."""
        return bool(self.outputs)

    @property
    def area(self) -> int:
        """Number of positions of the output, such as height times width."""
        return int(np.prod(self.shape[:-1]))


def read_graph(model: tf.keras.Model) -> list[Call]:
    """Return the calls of `model`, each after those it reads.

    # Raises
        InputError: if the model is not built, not functional, or has no static shape.
    """
    if not isinstance(model, tf.keras.Model):
        raise InputError(f"`model` must be a tf.keras.Model, but got {model!r}.")
    _require_graph(model, "`model`")
    reader = _Reader()
    inputs = [reader.add_input(layer, n) for n, layer in enumerate(model._input_layers)]
    outputs = reader.read(model, inputs, "")
    return prune(reader.calls, outputs)


class _Reader:
    """Collects calls, models within models in their place."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def add_input(self, layer: tf.keras.layers.Layer, argument: int) -> int:
        shape = layer.output_shape
        return self._add(layer, layer.name, (), shape, facts_of(layer), 0, argument=argument)

    def read(self, model: tf.keras.Model, inputs: list[int], prefix: str) -> list[int]:
        """Read the calls of `model` on `inputs`, and return the calls of its outputs."""
        made = {id(tensor): call for tensor, call in zip(model.inputs, inputs, strict=True)}
        for node in _nodes(model):
            if all(id(tensor) in made for tensor in tf.nest.flatten(node.outputs)):
                continue
            read = tuple(made[id(tensor)] for tensor in node.keras_inputs)
            calls = self._read_node(node, read, prefix)
            made |= {
                id(tensor): call
                for tensor, call in zip(tf.nest.flatten(node.outputs), calls, strict=True)
            }
        return [made[id(tensor)] for tensor in model.outputs]

    def _read_node(
        self, node: "tf.keras.engine.node.Node", inputs: tuple[int, ...], prefix: str
    ) -> list[int]:
        layer, name = node.layer, prefix + node.layer.name
        if isinstance(layer, tf.keras.Model):
            _require_graph(layer, f"Layer `{name}`")
            return self.read(layer, list(inputs), f"{name}/")
        index = layer._inbound_nodes.index(node)
        outputs = tf.nest.flatten(node.outputs)
        facts = facts_of(layer, node)
        return [
            self._add(layer, name, inputs, tensor.shape, facts, index, position)
            for position, tensor in enumerate(outputs)
        ]

    def _add(
        self,
        layer: tf.keras.layers.Layer,
        name: str,
        inputs: tuple[int, ...],
        shape: tf.TensorShape,
        facts: Facts,
        index: int,
        position: int = 0,
        argument: int | None = None,
    ) -> int:
        if isinstance(shape, list):
            (shape,) = shape
        static = tuple(shape)[1:] or (1,)
        if None in static:
            raise InputError(
                f"Every shape must be static, but the output of layer `{name}` is "
                f"{tuple(shape)}: give the input its height and width."
            )
        self.calls.append(
            Call(layer, name, inputs, static, facts, index, position=position, argument=argument)
        )
        return len(self.calls) - 1


def _require_graph(model: tf.keras.Model, what: str) -> None:
    if getattr(model, "_is_graph_network", False):
        return
    if not model.built:
        raise InputError(f"{what} is not built: call it on data, or give it an input shape.")
    raise InputError(
        f"{what} must be functional, or Sequential with an input shape, to be taken apart: wrap "
        "it as tf.keras.Model(images, layers(images)) with images = tf.keras.Input(shape)."
    )


def _nodes(model: tf.keras.Model) -> Iterator["tf.keras.engine.node.Node"]:
    for depth in sorted(model._nodes_by_depth, reverse=True):
        yield from model._nodes_by_depth[depth]


def prune(calls: list[Call], outputs: Sequence[int]) -> list[Call]:
    """Return the calls that `outputs` depend on, in the order they were in."""
    needed, waiting = set(), list(outputs)
    while waiting:
        index = waiting.pop()
        if index not in needed:
            needed.add(index)
            waiting += calls[index].inputs
    order = sorted(needed)
    numbers = {old: new for new, old in enumerate(order)}
    seen: set[int] = set()
    kept = []
    for old in order:
        call = calls[old]
        first = id(call.layer) not in seen
        seen.add(id(call.layer))
        inputs = tuple(numbers[index] for index in call.inputs)
        given = tuple(number for number, output in enumerate(outputs) if output == old)
        kept.append(dataclasses.replace(call, inputs=inputs, first=first, outputs=given))
    return kept
