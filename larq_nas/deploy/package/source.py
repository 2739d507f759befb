"""A Keras model as lines of Python."""

import inspect
import json
import keyword
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_nas.errors import ConversionError
from larq_nas.layers import BinaryConv2D, Scale, Zeros
from larq_nas.layers.scale import CenteredClip, LowerBound
from larq_nas.quantizers import XnorSign

__all__ = ["OWN", "GraphWriter", "calls_in_depth"]

_WIDTH = 100
_INDENT = "    "
_BRACKETS = re.compile(r"[(\[]")
_PARTS = re.compile(r'"(?:[^"\\]|\\.)*"|[^"]')


def assignment(
    target: str, callee: str, arguments: Sequence[str], then: Sequence[str] | None = None
) -> list[str]:
    """Return `target = callee(arguments)(then)`, in as few lines as fit.

    # Arguments
        target: what is assigned to, or `"return"`.
        callee: what is called.
        arguments: source of its arguments.
        then: source of the arguments that its result is called with; by default it is not.
    """
    start = f"{_INDENT}{target}{'' if target == 'return' else ' ='} {callee}("
    end = ")" if then is None else f")({', '.join(then)})"
    line = f"{start}{', '.join(arguments)}{end}"
    if len(line) <= _WIDTH:
        return [line]
    if then is not None and len(f"{start}{', '.join(arguments)})(") <= _WIDTH:
        return [f"{start}{', '.join(arguments)})(", *_inside(then, 2), f"{_INDENT})"]
    return [start, *_inside(arguments, 2), f"{_INDENT}{end}"]


def _inside(items: Sequence[str], depth: int) -> list[str]:
    """Return what stands between brackets: on one line, or each item on its own."""
    line = f"{_INDENT * depth}{', '.join(items)}"
    if len(line) <= _WIDTH:
        return [line]
    return [part for item in items for part in _item(item, depth)]


def _item(item: str, depth: int) -> list[str]:
    indent = _INDENT * depth
    line, brackets = f"{indent}{item},", _BRACKETS.search(item)
    if len(line) <= _WIDTH or not brackets or item[-1] not in ")]":
        return [line]
    within = _split(item[brackets.end() : -1])
    start = f"{indent}{item[: brackets.end()]}"
    return [start, *_inside(within, depth + 1), f"{indent}{item[-1]},"]


def _split(text: str) -> list[str]:
    """Return the items of `text` that commas part, those within brackets left whole."""
    items, depth = [""], 0
    for part in _PARTS.findall(text):
        depth += (part in "([{") - (part in ")]}")
        if part == "," and depth == 0:
            items.append("")
        else:
            items[-1] += part
    return [item.strip() for item in items]


_CLASSES = (BinaryConv2D, Scale, Zeros, CenteredClip, LowerBound, XnorSign)
OWN = {cls.__name__: cls for cls in _CLASSES}
"""The classes of larq_nas that a network may hold, by name."""

_HOMES: dict[str, Any] = {
    "layers": tf.keras.layers,
    "lq.layers": lq.layers,
    "lq.quantizers": lq.quantizers,
    "lq.constraints": lq.constraints,
    "tf.keras.initializers": tf.keras.initializers,
    "tf.keras.regularizers": tf.keras.regularizers,
    "tf.keras.constraints": tf.keras.constraints,
}
_BY_NAME: tuple[Callable[[str], Any], ...] = (
    lq.quantizers.get,
    tf.keras.constraints.get,
    tf.keras.initializers.get,
    tf.keras.regularizers.get,
)
_SIZES = ("kernel_size", "strides", "dilation_rate", "pool_size", "size")
_MOST_NUMBERS = 64
_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def class_source(cls: type) -> str | None:
    """Return how network.py names a class, or `None` if it cannot."""
    if OWN.get(cls.__name__) is cls:
        return cls.__name__
    for home, module in _HOMES.items():
        if getattr(module, cls.__name__, None) is cls:
            return f"{home}.{cls.__name__}"
    return None


def shortest_arguments(cls: Any, config: Mapping[str, Any], where: str) -> list[str]:
    """Return the fewest arguments that give an object of `cls` this configuration.

    # Arguments
        cls: a class with `get_config` and `from_config`.
        config: what `get_config` returned.
        where: what holds the object, for errors.

    # Returns
        Source of the arguments: the required ones by place, others by name, `name` last.
    """
    wanted = {key: value for key, value in config.items() if key != "batch_input_shape"}
    parameters = inspect.signature(cls.__init__).parameters.values()
    required = [p.name for p in parameters if p.default is p.empty and p.name in wanted]
    texts = {key: value_source(value, where, key) for key, value in wanted.items()}
    given = {key: wanted[key] for key in [*required, "name"] if key in wanted}
    while True:
        got = cls.from_config(dict(given)).get_config()
        differing = [
            key
            for key in wanted
            if key not in got or value_source(got[key], where, key) != texts[key]
        ]
        if not differing:
            break
        if set(differing) <= given.keys():
            raise ConversionError(
                f"{where} cannot be rebuilt from its configuration: `{differing[0]}` gets lost."
            )
        given |= {key: wanted[key] for key in differing}
    named = [f"{key}={texts[key]}" for key in wanted if key in given and key not in required]
    named.sort(key=lambda argument: argument.startswith("name="))
    return [*(texts[key] for key in required), *named]


def value_source(value: Any, where: str, key: str = "") -> str:
    """Return Python source of a value.

    # Arguments
        value: a number, text, list, constant, or the configuration of an object.
        where: what holds the value, for errors.
        key: name of the argument; sizes that are equal on every axis are written once.

    # Raises
        ConversionError: if the value cannot be written as source.
    """
    if value is None or value is Ellipsis or isinstance(value, bool):
        return "..." if value is Ellipsis else repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int | np.integer):
        return repr(int(value))
    if isinstance(value, float | np.floating):
        return repr(float(value)) if math.isfinite(value) else f'float("{float(value)}")'
    if isinstance(value, tf.DType):
        return f"tf.{value.name}"
    if isinstance(value, tf.TensorShape):
        value = value.as_list()
    if isinstance(value, tuple | list):
        return _row_source(value, where, key)
    if isinstance(value, np.ndarray) or tf.is_tensor(value):
        return _constant_source(value, where)
    if isinstance(value, Mapping):
        if "class_name" in value and "config" in value:
            return _object_source(value, where)
        pairs = (f"{value_source(k, where)}: {value_source(v, where)}" for k, v in value.items())
        return f"{{{', '.join(pairs)}}}"
    raise ConversionError(f"{where} holds {value!r}, which network.py cannot hold.")


def _row_source(value: tuple[Any, ...] | list[Any], where: str, key: str) -> str:
    if key in _SIZES and len(set(value)) == 1:
        return value_source(value[0], where)
    items = [value_source(item, where) for item in value]
    if isinstance(value, list):
        return f"[{', '.join(items)}]"
    return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"


def _constant_source(value: Any, where: str) -> str:
    try:
        array = np.asarray(value)
    except (TypeError, NotImplementedError, tf.errors.OpError):
        array = None
    if array is None or isinstance(value, tf.Variable):
        raise ConversionError(
            f"{where} reads a tensor that no layer holds: make it a weight of a layer."
        )
    if array.size > _MOST_NUMBERS:
        raise ConversionError(
            f"{where} holds a constant of {array.size} numbers, more than the {_MOST_NUMBERS} "
            "that network.py holds: make it a weight of a layer."
        )
    dtype = tf.as_dtype(array.dtype).name
    # Few digits are enough for a float32; a Python float would show all of a float64.
    values = array.astype(str).astype("float64") if dtype == "float32" else array
    return f"tf.constant({value_source(values.tolist(), where)}, tf.{dtype})"


def _object_source(serialized: Mapping[str, Any], where: str) -> str:
    """Return source of an initializer, quantizer or the like, by its name where that does."""
    name, config = str(serialized["class_name"]), serialized["config"]
    if name == "function":
        return _function_source(str(config), where)
    registered = str(serialized.get("registered_name") or "")
    module = str(serialized.get("module") or "")
    cls = OWN.get(name) if registered.startswith("larq_nas>") else None
    if cls is None and module.split(".")[0] in ("keras", "tf_keras", "larq"):
        homes = [
            home for key, home in _HOMES.items() if key.startswith("lq.") == ("larq" in module)
        ]
        found = [getattr(home, name) for home in homes if hasattr(home, name)]
        cls = found[0] if found else None
    if cls is None or not isinstance(config, Mapping):
        raise ConversionError(
            f"{where} has a `{registered or name}`, which is not of Keras, Larq or larq_nas: "
            "network.py cannot hold it."
        )
    arguments = shortest_arguments(cls, config, where)
    if not issubclass(cls, tf.keras.layers.Layer) or issubclass(cls, lq.quantizers.Quantizer):
        # Their own names count up and mean nothing.
        arguments = [text for text in arguments if not text.startswith("name=")]
    source = class_source(cls)
    if not arguments and name not in OWN:
        alias = _CAPITAL.sub("_", name).lower()
        if any(_gives(get, alias, cls) for get in _BY_NAME):
            return json.dumps(alias)
    return f"{source}({', '.join(arguments)})"


def _function_source(name: str, where: str) -> str:
    short = name.split(">")[-1]
    for home, module in (("lq", lq.activations), ("tf.keras", tf.keras.activations)):
        if callable(getattr(module, short, None)) and tf.keras.activations.get(name) is getattr(
            module, short
        ):
            return f"{home}.activations.{short}"
    raise ConversionError(
        f"{where} calls `{short}`, a function that is not of Keras or Larq: network.py cannot "
        "hold it."
    )


def _gives(get: Callable[[str], Any], name: str, cls: type) -> bool:
    try:
        return type(get(name)) is cls
    except ValueError:
        return False


def all_calls(model: tf.keras.Model) -> Iterator[Any]:
    """Yield the calls in `model` and in the models within, each once."""
    waiting, seen = [model], {id(model)}
    while waiting:
        for node in _nodes(waiting.pop()):
            yield node
            if isinstance(node.layer, tf.keras.Model) and id(node.layer) not in seen:
                seen.add(id(node.layer))
                waiting.append(node.layer)


def calls_in_depth(model: tf.keras.Model) -> list[Any]:
    """Return the calls of layers in an order that depends on the network alone."""
    return [
        node for node in _nodes(model) if not isinstance(node.layer, tf.keras.layers.InputLayer)
    ]


def calls_as_written(model: tf.keras.Model) -> list[Any]:
    """Return the calls of `model` as one would write them: what takes longest to reach first."""
    nodes = _nodes(model)
    makers = {id(tensor): node for node in nodes for tensor in tf.nest.flatten(node.outputs)}
    read = {
        id(node): [makers[id(tensor)] for tensor in node.keras_inputs if id(tensor) in makers]
        for node in nodes
    }
    heights: dict[int, int] = {}
    for node in nodes:
        below = [heights[id(maker)] for maker in read[id(node)]]
        heights[id(node)] = 1 + max(below, default=0)
    inputs = [makers[id(tensor)] for tensor in model.inputs]
    ordered: dict[int, Any] = {id(node): node for node in inputs}
    waiting = [makers[id(tensor)] for tensor in reversed(model.outputs)]
    while waiting:
        node = waiting[-1]
        missing = [maker for maker in read[id(node)] if id(maker) not in ordered]
        if missing and id(node) not in ordered:
            waiting.append(max(missing, key=lambda maker: heights[id(maker)]))
        else:
            ordered.setdefault(id(waiting.pop()), node)
    return list(ordered.values())


def _nodes(model: tf.keras.Model) -> list[Any]:
    """Return the calls of layers, each after those it reads."""
    by_depth = getattr(model, "_nodes_by_depth", {})
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


_OPERATORS = {"__operators__.add": "{} + {}"}
_SLICE = "__operators__.getitem"


def is_operation(layer: tf.keras.layers.Layer) -> bool:
    """Return whether `layer` stands for a call of a TensorFlow function."""
    return type(layer).__name__ in ("TFOpLambda", "SlicingOpLambda")


def operation_source(
    layer: tf.keras.layers.Layer,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    source: Callable[[Any], str],
) -> tuple[str, list[str]]:
    """Return what is called and with which arguments; no arguments for an operator.

    # Arguments
        layer: the layer that Keras made of the call.
        args: the call's arguments by place.
        kwargs: the call's arguments by name.
        source: returns the source of an argument.
    """
    symbol = str(layer.symbol)
    if layer.weights:
        raise ConversionError(
            f"`{symbol}` reads a variable that no layer holds: make it a weight of a layer."
        )
    given = {key: value for key, value in kwargs.items() if not (key == "name" and value is None)}
    if symbol == _SLICE and len(args) == 2 and not given:
        return f"{source(args[0])}[{_slices(args[1], source)}]", []
    if symbol in _OPERATORS and len(args) == 2 and not given:
        return _OPERATORS[symbol].format(*map(source, args)), []
    if not callable(_resolve(symbol)):
        raise ConversionError(
            f"`{layer.name}` calls `{symbol}`, which is not a public function of TensorFlow: "
            "network.py cannot call it."
        )
    return f"tf.{symbol}", [
        *map(source, args),
        *(f"{key}={source(value)}" for key, value in given.items()),
    ]


def _slices(key: Any, source: Callable[[Any], str]) -> str:
    parts = key if isinstance(key, tuple | list) else [key]
    return ", ".join(_slice(part, source) for part in parts)


def _slice(part: Any, source: Callable[[Any], str]) -> str:
    if isinstance(part, slice):
        part = {"start": part.start, "stop": part.stop, "step": part.step}
    if not isinstance(part, Mapping):
        return source(part)
    bounds = ["" if part[key] is None else source(part[key]) for key in ("start", "stop")]
    step = "" if part["step"] is None else f":{source(part['step'])}"
    return f"{':'.join(bounds)}{step}"


def _resolve(symbol: str) -> Any:
    found: Any = tf
    for name in symbol.split("."):
        if name.startswith("_"):
            return None
        found = getattr(found, name, None)
    return found


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
