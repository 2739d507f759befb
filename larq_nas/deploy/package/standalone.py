"""A network as files of Keras and Larq alone: its configuration, its weights and their reader."""

import ast
import inspect
import io
import json
import runpy
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.deploy.package.programs import fill
from larq_nas.deploy.recording import LayerCall, record
from larq_nas.errors import ConversionError, InputError, first_line
from larq_nas.layers.conv import exporting

STANDALONE = ("network.py", "network.json", "weights.npz")
"""Names of the files."""

_EXAMPLES = 2
_HOMES = ("keras", "tf_keras", "larq")
_OWN = "larq_nas>"


def standalone(model: tf.keras.Model) -> dict[str, bytes]:
    """Return files that rebuild `model` without larq_nas, after they gave its very outputs.

    `network.py` reads `network.json`, which is Keras' own JSON of the network, and
    `weights.npz`.

    !!! example
        ```python
        for name, content in standalone(model).items():
            Path(name).write_bytes(content)
        ```

    # Arguments
        model: a functional model of layers of Keras, Larq and larq_nas, or a Sequential one
            with an input shape.

    # Returns
        The content of the files by name; the same for the same model.

    # Raises
        ConversionError: if the model cannot be written, naming the layer, or is not the
            same when it is read again.
    """
    if not isinstance(model, tf.keras.Model):
        raise InputError(f"`model` must be a tf.keras.Model, but got {model!r}.")
    config, own = _configuration(model)
    contents = (_program(model, own), config, weights_archive(model))
    files = dict(zip(STANDALONE, contents, strict=True))
    require_equal(model, files)
    return files


def _configuration(model: tf.keras.Model) -> tuple[bytes, list[type]]:
    """Return Keras' JSON of a model, and the classes of larq_nas in it."""
    models = list(_models(model))
    for one in models:
        _require_graph(one)
        for layer in one.layers:
            _require_known(layer)
    holders = Counter(id(layer) for one in models for layer in one.layers)
    numbers = {key: number for number, key in enumerate(holders) if holders[key] > 1}
    try:
        entry = json.loads(model.to_json())
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ConversionError(
            f"`{model.name}` cannot be written as JSON by Keras: {first_line(error)}."
        ) from error
    own: dict[str, type] = {}
    _make_portable(entry, model, numbers, own)
    entry = {key: entry[key] for key in ("class_name", "config")}
    return json.dumps(entry, indent=1).encode(), [own[name] for name in sorted(own)]


def _models(model: tf.keras.Model) -> Iterator[tf.keras.Model]:
    """Yield `model` and the models within, each once."""
    models = [one for one in model._flatten_layers() if isinstance(one, tf.keras.Model)]
    yield from {id(one): one for one in models}.values()


def _require_graph(model: tf.keras.Model) -> None:
    if not getattr(model, "_is_graph_network", False):
        raise ConversionError(
            f"`{model.name}` must be functional, or Sequential with an input shape, to be written "
            "as configuration; its own `call` cannot be: `standalone=False` packs the rest."
        )
    if isinstance(model.output, dict) or isinstance(model.input, dict):
        raise ConversionError(f"`{model.name}` must have plain tensors, not dictionaries.")


def _require_known(layer: tf.keras.layers.Layer) -> None:
    """Raise `ConversionError` for a layer that is not of Keras, Larq or larq_nas alone."""
    where, cls = f"Layer `{layer.name}`", type(layer)
    if isinstance(layer, tf.keras.Model):
        return
    if isinstance(layer, tf.keras.layers.Lambda):
        raise ConversionError(
            f"{where} is a Lambda, whose code network.py cannot hold: call TensorFlow's functions "
            "on the tensors instead, or use a layer of Keras."
        )
    arguments = [(node.call_args, node.call_kwargs) for node in layer._inbound_nodes]
    variables = [x for x in tf.nest.flatten(arguments) if isinstance(x, tf.Variable)]
    if hasattr(layer, "symbol") and (layer.weights or variables):
        raise ConversionError(
            f"`{layer.symbol}` reads a variable that no layer holds: make it a weight of a layer."
        )
    own = str(tf.keras.utils.get_registered_name(cls)).startswith(_OWN)
    if cls.__module__.split(".")[0] not in _HOMES and not own:
        raise ConversionError(
            f"{where} is a {cls.__module__}.{cls.__qualname__}, but network.py holds layers of "
            "Keras, Larq and larq_nas alone: use those, or leave it out with standalone=False."
        )


def _make_portable(
    entry: dict[str, Any], model: tf.keras.Model, numbers: Mapping[int, int], own: dict[str, type]
) -> None:
    """Change the configuration of a model to one that any supported Keras 2 reads.

    `numbers` are those of the layers that several models hold, by their identities. Classes of
    larq_nas that are found are added to `own`.
    """
    sequential = isinstance(model, tf.keras.Sequential)
    entry["class_name"] = "Sequential" if sequential else "Functional"
    layers = {layer.name: layer for layer in model.layers}
    for inner in entry["config"]["layers"]:
        layer = layers.get(inner["config"]["name"])
        if isinstance(layer, tf.keras.Model):
            _make_portable(inner, layer, numbers, own)
        else:
            _require_known_objects(inner, f"Layer `{inner['config']['name']}`", own)
        if isinstance(layer, tf.keras.Model) or ".src." in str(inner["module"]):
            # Private modules have other names in other versions; Keras finds the class without.
            del inner["module"]
        if id(layer) in numbers:
            keys = ("module", "class_name", "config", "registered_name")
            plain = {key: inner.pop(key) for key in keys if key in inner}
            inner["class_name"] = "Shared"
            inner["config"] = {"number": numbers[id(layer)], "layer": plain}


def _require_known_objects(value: Any, where: str, own: dict[str, type]) -> None:
    """Raise `ConversionError` for an object in a configuration that network.py cannot make."""
    if isinstance(value, list):
        for item in value:
            _require_known_objects(item, where, own)
    if not isinstance(value, dict):
        return
    for item in value.values():
        _require_known_objects(item, where, own)
    # Built alone, before the layer that holds it, its weights would have other names.
    value.pop("build_config", None)
    if "class_name" not in value or "module" not in value:
        return
    is_function = value["class_name"] == "function"
    name = str((value["config"] if is_function else value["registered_name"]) or "")
    registered = tf.keras.utils.get_registered_object(name)
    # Functions have no module of their own here.
    module = str(getattr(registered, "__module__", value["module"]))
    if name.startswith(_OWN):
        own[name] = registered
        value.update(module="network", registered_name=name.replace(_OWN, "network>"))
    elif module.split(".")[0] not in _HOMES and is_function:
        raise ConversionError(
            f"{where} calls `{name.split('>')[-1]}`, a function that is not of Keras or Larq: "
            "network.py cannot hold it."
        )
    elif module.split(".")[0] not in _HOMES:
        raise ConversionError(
            f"{where} has a `{name or value['class_name']}`, which is not of Keras, Larq or "
            "larq_nas: network.py cannot hold it."
        )


def _program(model: tf.keras.Model, own: list[type]) -> bytes:
    """Return `network.py`."""
    from larq_nas import __version__

    imports, definitions = own_source([*own, exporting])
    text = fill(
        "network.py",
        name=model.name,
        shape=", ".join(map(str, model.inputs[0].shape[1:])),
        version=__version__,
        imports="\n".join(imports),
        definitions="\n\n\n".join(definitions),
        named_weights=inspect.getsource(named_weights).rstrip(),
    )
    return text.encode()


def own_source(roots: list[Any]) -> tuple[list[str], list[str]]:
    """Return the imports of other packages that classes and functions need, and all definitions.

    These are in order, each behind what it needs.
    """
    imports = {
        "from collections.abc import Iterator",
        "from typing import Any",
        "import larq as lq",
        "import numpy as np",
        "import tensorflow as tf",
    }
    found: set[tuple[str, str]] = set()
    definitions: list[str] = []

    def add(module: str, name: str) -> None:
        source = inspect.getsource(sys.modules[module])
        for node in ast.parse(source).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        add_import(node, alias)
            elif name in _defined(node) and (module, name) not in found:
                found.add((module, name))
                names = (inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name))
                for needed in dict.fromkeys(names):
                    add(module, needed)
                definitions.append(_segment(source, node))

    def add_import(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> None:
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("larq_nas"):
            add(str(node.module), alias.name)
        elif isinstance(node, ast.ImportFrom):
            imports.add(ast.unparse(ast.ImportFrom(node.module, [alias], node.level)))
        else:
            imports.add(ast.unparse(ast.Import([alias])))

    for root in roots:
        add(root.__module__, root.__name__)
    return sorted(imports), definitions


def _defined(node: ast.stmt) -> list[str]:
    """Return the names that a statement at the top of a module defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _segment(source: str, node: ast.stmt) -> str:
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    text = "\n".join(source.splitlines()[first - 1 : node.end_lineno])
    # Registered as larq_nas does, it would take the place of the original.
    return text.replace('serializable("larq_nas")', 'serializable("network")')


def weights_archive(model: tf.keras.Model) -> bytes:
    """Return the weights of `model` by name, as an `.npz` file without pickles."""
    arrays: dict[str, np.ndarray] = {}
    for name, weight in named_weights(model):
        if name in arrays:
            raise ConversionError(f"Two weights of a layer have one name, `{name}`.")
        arrays[name] = weight.numpy()
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def named_weights(model: tf.keras.Model, prefix: str = "") -> Iterator[tuple[str, tf.Variable]]:
    """Yield the name and the variable of each weight; models within come before the name."""
    for layer in model.layers:
        if isinstance(layer, tf.keras.Model):
            yield from named_weights(layer, f"{prefix}{layer.name}/")
            continue
        for weight in layer.weights:
            name = weight.name.split(f"{layer.name}/", 1)[-1].split(":")[0]
            yield f"{prefix}{layer.name}/{name}", weight


def require_equal(model: tf.keras.Model, files: Mapping[str, bytes]) -> None:
    """Raise `ConversionError` unless the files give every layer's outputs, bit by bit."""
    with tempfile.TemporaryDirectory(prefix="larq_nas-") as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        try:
            loaded = runpy.run_path(str(Path(folder) / "network.py"))["load"]()
            differing = _first_difference(model, loaded)
        except Exception as error:
            raise ConversionError(
                f"`{model.name}` cannot be rebuilt from its configuration: {first_line(error)}."
            ) from error
    if differing:
        raise ConversionError(
            f"Layer `{differing}` computes something else when it is rebuilt from its "
            "configuration: it keeps something that is neither there nor a weight."
        )


def _first_difference(model: tf.keras.Model, loaded: tf.keras.Model) -> str:
    """Return the first layer whose outputs differ, models within included; empty if none."""
    generator = np.random.default_rng(0)
    images = []
    for tensor in model.inputs:
        sizes = (_EXAMPLES, *(size or 8 for size in tensor.shape[1:]))
        # Whole numbers may be indices, which are not negative.
        image = np.abs(generator.standard_normal(sizes))
        sign = generator.choice([-1, 1], sizes) if tensor.dtype.is_floating else 1
        images.append((sign * image).astype(tensor.dtype.as_numpy_dtype))
    calls = zip(_calls(model, images), _calls(loaded, images), strict=True)
    for one, other in calls:
        for expected, got in zip(one.outputs, other.outputs, strict=True):
            if not np.array_equal(expected.numpy(), got.numpy(), equal_nan=True):
                return str(one.layer.name)
    return ""


def _calls(model: tf.keras.Model, images: list[np.ndarray]) -> list[LayerCall]:
    """Return the calls of the layers that models hold, without those of the models."""
    held = {id(layer) for one in _models(model) for layer in one.layers}
    held -= {id(one) for one in _models(model)}
    return [call for call in record(model, images).calls if id(call.layer) in held]
