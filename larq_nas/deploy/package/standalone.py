"""A network as one Python file of Keras and Larq, with its weights."""

import importlib.util
import io
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import tensorflow as tf

from larq_nas.deploy.package.programs import fill, read_template
from larq_nas.deploy.package.source import OWN, GraphWriter, calls_in_depth
from larq_nas.errors import ConversionError, InputError, first_line
from larq_nas.layers import BinaryConv2D

__all__ = [
    "NETWORK",
    "WEIGHTS",
    "load_module",
    "network_source",
    "require_equal",
    "standalone",
    "weights_archive",
]


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
            loaded = load_module(Path(folder) / "network.py").load()
            differing = _first_difference(model, loaded)
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


def _first_difference(model: tf.keras.Model, loaded: tf.keras.Model) -> str:
    """Return the first layer whose outputs differ, models within included; empty if none."""
    generator = np.random.default_rng(0)
    images = [
        generator.standard_normal((_EXAMPLES, *(size or 8 for size in tensor.shape[1:])))
        for tensor in model.inputs
    ]
    pairs = zip(calls_in_depth(model), calls_in_depth(loaded), strict=True)
    results = zip(_run(model, images), _run(loaded, images), strict=True)
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


NETWORK, WEIGHTS = "network.py", "weights.npz"
_OWN_CALL = re.compile(rf"(?<![\w.])({'|'.join(OWN)})\(")
_NEEDS = {"LowerBound": "Scale"}


def standalone(model: tf.keras.Model) -> dict[str, bytes]:
    """Return `network.py` and `weights.npz`, after they gave the very outputs of `model`.

    !!! example
        ```python
        for name, content in standalone(model).items():
            Path(name).write_bytes(content)
        ```

    # Arguments
        model: a functional model of layers of Keras, Larq and larq_nas, or a Sequential one
            with an input shape.

    # Returns
        The content of both files by name; the same for the same model.

    # Raises
        ConversionError: if the model cannot be written, naming the layer, or is not the
            same when it is read again.
    """
    files = {
        NETWORK: network_source(model).encode("utf-8"),
        WEIGHTS: weights_archive(model),
    }
    require_equal(model, files)
    return files


def network_source(model: tf.keras.Model) -> str:
    """Return Python source that builds `model` without larq_nas.

    # Arguments
        model: as in `standalone`.

    # Raises
        ConversionError: if a layer or a value cannot be written, naming it.
    """
    from larq_nas import __version__

    if not isinstance(model, tf.keras.Model):
        raise InputError(f"`model` must be a tf.keras.Model, but got {model!r}.")
    written = GraphWriter(model)
    lines = "\n".join(written.lines)
    used = sorted({_NEEDS.get(name, name) for name in _OWN_CALL.findall(lines)})
    parts = {"grouped": "", "dense": "", "converting": ""}
    if any(_is_grouped(layer) for layer in model._flatten_layers()):
        parts = {name: read_template(f"{name}.py") for name in parts}
    definitions = "".join(f"\n\n{_definition(name, parts)}" for name in used)
    return fill(
        "network.py",
        name=model.name,
        shape=", ".join(map(str, model.inputs[0].shape[1:])),
        version=__version__,
        larq="import larq as lq\n" if re.search(r"\blq\.", definitions + lines) else "",
        definitions=definitions,
        lines=lines,
        finalizing=_finalizing(model),
        converting=parts["converting"],
    )


def _finalizing(model: tf.keras.Model) -> str:
    kinds = (tf.keras.layers.Normalization,)
    normalizes = any(isinstance(layer, kinds) for layer in model._flatten_layers())
    return read_template("finalizing.py") if normalizes else ""


def _is_grouped(layer: tf.keras.layers.Layer) -> bool:
    return isinstance(layer, BinaryConv2D) and layer.groups > 1


def _definition(name: str, parts: dict[str, str]) -> str:
    if name == "BinaryConv2D":
        return fill(f"{name}.py", **{part: parts[part] for part in ("grouped", "dense")})
    return read_template(f"{name}.py")


def weights_archive(model: tf.keras.Model) -> bytes:
    """Return the weights of `model` by name, as an `.npz` file without pickles."""
    arrays: dict[str, np.ndarray] = {}
    for name, weight in _named_weights(model):
        if name in arrays:
            raise ConversionError(f"Two weights of a layer have one name, `{name}`.")
        arrays[name] = weight.numpy()
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _named_weights(model: tf.keras.Model, prefix: str = "") -> Iterator[tuple[str, tf.Variable]]:
    # The same as in network.py, which stands alone.
    for layer in model.layers:
        if isinstance(layer, tf.keras.Model):
            yield from _named_weights(layer, f"{prefix}{layer.name}/")
            continue
        for weight in layer.weights:
            name = weight.name.split(f"{layer.name}/", 1)[-1].split(":")[0]
            yield f"{prefix}{layer.name}/{name}", weight
