"""A network as one Python file of Keras and Larq alone, and its weights beside it."""

import io
import re
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from larq_nas.deploy.package.again import require_equal
from larq_nas.deploy.package.graph import GraphWriter
from larq_nas.deploy.package.texts import fill, read_template
from larq_nas.deploy.package.values import OWN
from larq_nas.errors import ConversionError, InputError
from larq_nas.layers import BinaryConv2D

__all__ = ["NETWORK", "WEIGHTS", "network_source", "standalone", "weights_archive"]

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
