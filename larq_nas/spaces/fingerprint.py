"""Tells one network of a user's own from another, for runs that are resumed."""

import hashlib
import json
import re
from typing import Any

import tensorflow as tf

from larq_nas.cost.graph import read_graph

__all__ = ["fingerprint"]

# What Keras and Python number anew in each process.
_NUMBER, _ADDRESS = re.compile(r'("name": "[^"]*?)_\d+"'), re.compile(r" at 0x[0-9a-f]+")


def fingerprint(model: tf.keras.Model) -> str:
    """Return a text that is another one if layers, their settings or their inputs differ.

    Names that Keras numbers anew in each process count as the same, and so does what the
    functions of `Lambda` layers do.
    """
    described = [
        (type(call.layer).__name__, _settings(call.layer), call.inputs, call.index, call.output)
        for call in read_graph(model, apart=False)
    ]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]


def _settings(layer: tf.keras.layers.Layer) -> str:
    try:
        settings: dict[str, Any] = dict(layer.get_config())
    except NotImplementedError:
        settings = {"name": layer.name}
    if isinstance(layer, tf.keras.layers.Lambda):
        # Its code changes with the line it stands in.
        settings.pop("function", None)
    text = json.dumps(settings, sort_keys=True, default=str)
    return _ADDRESS.sub("", _NUMBER.sub(r'\1"', text))
