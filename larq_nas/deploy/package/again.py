"""Whether a network that was written as source is the same when it is read again."""

import importlib.util
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import tensorflow as tf

from larq_nas.deploy.package.calls import calls_in_depth
from larq_nas.errors import ConversionError, first_line

__all__ = ["load_module", "require_equal"]

_EXAMPLES = 2


def require_equal(model: tf.keras.Model, files: Mapping[str, bytes]) -> None:
    """Raise `ConversionError` unless the files give every layer's outputs, bit by bit.

    # Arguments
        model: the model that was written.
        files: `network.py` and `weights.npz`.
    """
    with tempfile.TemporaryDirectory(prefix="larq_nas-") as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        try:
            again = load_module(Path(folder) / "network.py").load()
            differing = _first_difference(model, again)
        except Exception as error:
            raise ConversionError(
                f"`{model.name}` cannot be rebuilt from its source: {first_line(error)}."
            ) from error
    if differing:
        raise ConversionError(
            f"Layer `{differing}` computes something else when it is rebuilt from its source: it "
            "keeps something that is neither in its configuration nor a weight."
        )


def load_module(path: Path) -> ModuleType:
    """Return the module in `path`, leaving no compiled file beside it."""
    specification = importlib.util.spec_from_file_location("larq_nas_network", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    previous, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        specification.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = previous
    return module


def _first_difference(model: tf.keras.Model, again: tf.keras.Model) -> str:
    """Return the first layer whose outputs differ, models within included; empty if none."""
    generator = np.random.default_rng(0)
    images = [
        generator.standard_normal((_EXAMPLES, *(size or 8 for size in tensor.shape[1:])))
        for tensor in model.inputs
    ]
    pairs = zip(calls_in_depth(model), calls_in_depth(again), strict=True)
    results = zip(_run(model, images), _run(again, images), strict=True)
    for (node, other), (expected, got) in zip(pairs, results, strict=True):
        if isinstance(node.layer, tf.keras.Model):
            within = _first_difference(node.layer, other.layer)
            if within:
                return within
        for one, two in zip(expected, got, strict=True):
            if not np.array_equal(one, two, equal_nan=True):
                return str(node.layer.name)
    return ""


def _run(model: tf.keras.Model, images: list[np.ndarray]) -> list[list[np.ndarray]]:
    """Return the outputs of each call in `model`."""
    outputs = [tf.nest.flatten(node.outputs) for node in calls_in_depth(model)]
    if not outputs:  # a model that passes its input on
        return []
    every = tf.keras.Model(model.inputs, outputs)
    inputs = [tf.cast(x, t.dtype) for x, t in zip(images, model.inputs, strict=True)]
    results = every(inputs if len(inputs) > 1 else inputs[0], training=False)
    arrays = [tensor.numpy() for tensor in tf.nest.flatten(results)]
    return list(tf.nest.pack_sequence_as(outputs, arrays))
