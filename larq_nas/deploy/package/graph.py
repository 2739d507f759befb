"""A Keras model as the lines of Python that build it."""

import keyword
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from larq_nas.deploy.package.calls import all_calls, calls_as_written
from larq_nas.deploy.package.layout import assignment
from larq_nas.deploy.package.operations import is_operation, operation_source
from larq_nas.deploy.package.values import class_source, shortest_arguments, value_source
from larq_nas.errors import ConversionError

__all__ = ["GraphWriter"]

_RESERVED = {"build", "convert", "layers", "load", "lq", "np", "os", "tf", "Path", "WEIGHTS"}
_NOT_A_NAME = re.compile(r"\W+")


class GraphWriter:
    """Writes a model line by line, models within models first.

    All is in one scope, so that whatever is shared, layers or models, is one variable.

    # Arguments
        model: a functional model, or a Sequential one with an input shape.
    """

    def __init__(self, model: tf.keras.Model) -> None:
        self.lines: list[str] = []
        self._taken = set(_RESERVED)
        self._tensors: dict[int, str] = {}
        self._layers: dict[int, str] = {}
        self._calls = Counter(id(node.layer) for node in all_calls(model))
        self._write_model(model, last=True)

    def _write_model(self, model: tf.keras.Model, last: bool = False) -> None:
        _require_graph(model)
        nodes = calls_as_written(model)
        for node in nodes:
            if isinstance(node.layer, tf.keras.Model) and id(node.layer) not in self._layers:
                self._write_model(node.layer)
        if self.lines:
            self.lines.append("")
        for node in nodes:
            self._write_node(node)
        ends = [self._several(tensors) for tensors in (model.inputs, model.outputs)]
        target = "return" if last else self._variable(model.name)
        self._layers[id(model)] = target
        name = f"name={value_source(model.name, '')}"
        self.lines += assignment(target, "tf.keras.Model", [*ends, name])

    def _several(self, tensors: list[Any]) -> str:
        names = [self._tensors[id(tensor)] for tensor in tensors]
        return names[0] if len(names) == 1 else f"[{', '.join(names)}]"

    def _write_node(self, node: Any) -> None:
        layer = node.layer
        if isinstance(layer, tf.keras.layers.InputLayer):
            lines = assignment(self._results(node), "tf.keras.Input", _input_arguments(layer))
        elif is_operation(layer):
            callee, arguments = operation_source(
                layer, node.call_args, node.call_kwargs, self._source_in(layer)
            )
            target = self._results(node)
            # Operators and slices have no brackets of their own.
            lines = (
                assignment(target, callee, arguments) if arguments else [f"    {target} = {callee}"]
            )
        else:
            lines = self._write_call(node)
        self.lines += lines

    def _write_call(self, node: Any) -> list[str]:
        layer, source = node.layer, self._source_in(node.layer)
        passed = [source(value) for value in node.call_args]
        passed += [f"{k}={source(v)}" for k, v in node.call_kwargs.items() if v is not None]
        if id(layer) in self._layers:
            return assignment(self._results(node), self._layers[id(layer)], passed)
        callee, arguments = _constructor(layer)
        if self._calls[id(layer)] == 1:
            return assignment(self._results(node), callee, arguments, passed)
        variable = self._layers[id(layer)] = self._variable(layer.name)
        return [
            *assignment(variable, callee, arguments),
            *assignment(self._results(node), variable, passed),
        ]

    def _source_in(self, layer: tf.keras.layers.Layer) -> Any:
        where = f"Layer `{layer.name}`"

        def source(value: Any) -> str:
            if id(value) in self._tensors:
                return self._tensors[id(value)]
            if isinstance(value, list | tuple) and any(map(_is_symbolic, tf.nest.flatten(value))):
                return f"[{', '.join(map(source, value))}]"
            if _is_symbolic(value):
                raise ConversionError(f"{where} reads a tensor from outside of the model.")
            return value_source(value, where)

        return source

    def _results(self, node: Any) -> str:
        """Return the variables for the outputs of `node`, which later lines read."""
        tensors = tf.nest.flatten(node.outputs)
        layer = node.layer
        name = layer.symbol.split(".")[-1] if is_operation(layer) else layer.name
        names = [self._variable(name) for _ in tensors]
        for tensor, variable in zip(tensors, names, strict=True):
            self._tensors[id(tensor)] = variable
        return ", ".join(names) + (
            "," if isinstance(node.outputs, list) and len(names) == 1 else ""
        )

    def _variable(self, name: str) -> str:
        stem = _NOT_A_NAME.sub("_", name).strip("_") or "x"
        stem = f"x{stem}" if stem[0].isdigit() else stem
        stem = f"{stem}_" if keyword.iskeyword(stem) else stem
        variable, number = stem, 1
        while variable in self._taken:
            number += 1
            variable = f"{stem}_{number}"
        self._taken.add(variable)
        return variable


def _constructor(layer: tf.keras.layers.Layer) -> tuple[str, list[str]]:
    where, cls = f"Layer `{layer.name}`", type(layer)
    if isinstance(layer, tf.keras.layers.Lambda):
        raise ConversionError(
            f"{where} is a Lambda, whose code network.py cannot hold: call TensorFlow's functions "
            "on the tensors instead, or use a layer of Keras."
        )
    callee = class_source(cls)
    if callee is None:
        raise ConversionError(
            f"{where} is a {cls.__module__}.{cls.__qualname__}, but network.py holds layers of "
            "Keras, Larq and larq_nas alone: use those, or leave it out with standalone=False."
        )
    config = layer.get_config()
    if cls is tf.keras.layers.BatchNormalization and config["axis"] == [layer.input_spec.ndim - 1]:
        config["axis"] = -1  # Keras counts it from the front once the layer is built.
    return callee, shortest_arguments(cls, config, where)


def _input_arguments(layer: tf.keras.layers.InputLayer) -> list[str]:
    config = layer.get_config()
    batch, *shape = config["batch_input_shape"]
    where = f"Input `{layer.name}`"
    settings: Mapping[str, Any] = {
        "batch_size": batch,
        "dtype": None if config["dtype"] == "float32" else config["dtype"],
        "name": layer.name,
    }
    given = [f"{k}={value_source(v, where)}" for k, v in settings.items() if v is not None]
    return [value_source(tuple(shape), where), *given]


def _require_graph(model: tf.keras.Model) -> None:
    if not getattr(model, "_is_graph_network", False):
        raise ConversionError(
            f"`{model.name}` must be functional, or Sequential with an input shape, to be written "
            "as source; its own `call` cannot be: `standalone=False` packs the rest."
        )
    if isinstance(model.output, dict) or isinstance(model.input, dict):
        raise ConversionError(f"`{model.name}` must have plain tensors, not dictionaries.")


def _is_symbolic(value: Any) -> bool:
    return hasattr(value, "_keras_history") or type(value).__name__ == "KerasTensor"
