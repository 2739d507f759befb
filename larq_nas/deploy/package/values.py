"""Values as Python source: numbers, names, quantizers, constants."""

import inspect
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_nas.errors import ConversionError
from larq_nas.layers import BinaryConv2D, Scale, Zeros
from larq_nas.layers.scale import CenteredClip, LowerBound
from larq_nas.quantizers import XnorSign

__all__ = ["OWN", "class_source", "shortest_arguments", "value_source"]

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
