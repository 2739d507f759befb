"""The standalone files of a network: the same network, without larq_nas."""

import ast
import json
import runpy
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import larq as lq
import larq_compute_engine as lce
import numpy as np
import pytest
import tensorflow as tf
from conftest import quick, random_architecture, randomize
from deploy.package.odd import odd_model

from larq_nas.deploy.export import export_lowered
from larq_nas.deploy.flatbuffer import operators
from larq_nas.deploy.package.standalone import (
    own_source,
    require_equal,
    standalone,
)
from larq_nas.deploy.rewriting import lower
from larq_nas.errors import ConversionError
from larq_nas.layers import BinaryConv2D, DropPath, classifier
from larq_nas.quantizers import DoReFaSign, LearnedStep, StandardizedSign, XnorSign
from larq_nas.spaces import Bats, Bnas, Darts, ResNet18, ResNet18Cifar, Vgg11, VggSmall

SPACES = {
    "bats": (Bats(cells=2, channels=8), (8, 8, 1)),
    "bats_groups": (Bats(cells=2, channels=12, groups=3, activation="prelu"), (9, 8, 1)),
    "bats_imagenet": (Bats(cells=1, channels=40, groups=2, stem="imagenet"), (32, 32, 3)),
    "bnas": (Bnas(cells=2, channels=8), (8, 8, 1)),
    "darts": (Darts(cells=2, channels=8), (8, 8, 1)),
    "darts_binary": (Darts(cells=1, channels=8, precision="binary"), (8, 8, 1)),
    "vgg_small": (VggSmall(ratios=(0.125, 0.25)), (16, 16, 3)),
    "vgg11": (Vgg11(ratios=(0.5, 1)), (32, 32, 3)),
    "resnet18": (ResNet18(ratios=(0.125, 0.25)), (32, 32, 3)),
    "resnet18_cifar": (ResNet18Cifar(ratios=(0.5, 1), downsample="real"), (16, 16, 3)),
}
NAMES = [*SPACES, "odd", "own"]
QUICK = ("bats_groups", "bnas", "resnet18_cifar", "odd", "own")
CASES = quick(NAMES, *(NAMES.index(name) for name in QUICK))

ALONE = """
import importlib.abc, json, sys
from pathlib import Path

class Without(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "larq_nas":
            raise ImportError("larq_nas is not here")

sys.meta_path.insert(0, Without())
try:
    import larq_nas
except ImportError:
    pass
else:
    raise SystemExit("larq_nas can be imported")
results = {}
for folder in map(Path, sys.argv[1:]):
    sys.path.insert(0, str(folder))
    import network
    import larq as lq, numpy as np
    model = network.load()
    got = model(np.load(folder / "images.npy"), training=False).numpy()
    lq.models.summary(model)
    difference = np.abs(got - np.load(folder / "outputs.npy")).max()
    results[folder.name] = float(difference), sorted({m.split(".")[0] for m in sys.modules})
    sys.path.pop(0)
    del sys.modules["network"]
print(json.dumps(results))
"""


def load_module(path: Path) -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(path)))


def model_of(name: str) -> tf.keras.Model:
    if name == "odd":
        return odd_model()
    if name == "own":
        return own_model()
    space, shape = SPACES[name]
    return randomize(random_architecture(space, 1, shape).build(shape, 10))


def own_model() -> tf.keras.Model:
    """Return a network of the quantizers and layers that no space of these tests builds."""
    inputs = x = tf.keras.Input((8, 8, 4))
    x = BinaryConv2D(
        8, 3, input_quantizer=LearnedStep(0.5), kernel_quantizer=StandardizedSign(), name="learned"
    )(x)
    x = DropPath()(x)
    x = lq.layers.QuantConv2D(
        8, 3, input_quantizer=lq.quantizers.DoReFa(1), kernel_quantizer=DoReFaSign(), name="dorefa"
    )(x)
    x = BinaryConv2D(8, 1, kernel_quantizer=XnorSign(amplified=True), name="xnor")(x)
    grown = x * np.random.default_rng(0).normal(size=(6, 6, 8)).astype("float32")
    return randomize(tf.keras.Model(inputs, classifier(grown, 3)))


@pytest.fixture(scope="module")
def models(request: pytest.FixtureRequest) -> dict[str, tf.keras.Model]:
    """Return the networks that the selected tests are about."""
    items = [item for item in request.session.items if hasattr(item, "callspec")]
    asked = {item.callspec.params.get("name") for item in items} | set(QUICK)
    return {name: model_of(name) for name in NAMES if name in asked}


@pytest.fixture(scope="module")
def folders(models, tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("standalone")
    for name, model in models.items():
        (root / name).mkdir()
        for file, content in standalone(model).items():
            (root / name / file).write_bytes(content)
        generator = np.random.default_rng(1)
        images = generator.normal(size=(16, *model.input_shape[1:])).astype("float32")
        np.save(root / name / "images.npy", images)
        np.save(root / name / "outputs.npy", model(images, training=False).numpy())
    return {name: root / name for name in models}


@pytest.fixture(scope="module")
def alone(folders) -> dict[str, tuple[float, list[str]]]:
    command = [sys.executable, "-c", ALONE, *map(str, folders.values())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_equal_without_larq_nas(name: str, alone, folders) -> None:
    difference, modules = alone[name]
    assert np.load(folders[name] / "outputs.npy").std() > 1e-3
    assert difference == 0.0
    assert "larq_nas" not in modules


@pytest.mark.parametrize("name", CASES)
def test_source_is_plain_python(name: str, folders) -> None:
    path = folders[name] / "network.py"
    source = path.read_text()
    assert all(len(line) <= 100 or "https://" in line for line in source.splitlines())
    called = {
        n.func.id
        for n in ast.walk(ast.parse(source))
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    }
    assert called.isdisjoint({"eval", "exec", "compile", "__import__"})
    imported = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Import)]
    names = {alias.name for n in imported for alias in n.names}
    others = names - sys.stdlib_module_names
    assert others <= {"larq", "numpy", "tensorflow", "larq_compute_engine"}
    assert "import larq_nas" not in source
    assert "from larq_nas" not in source
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent))
    if ruff:
        arguments = ["format", "--check", "--isolated", "--line-length", "100"]
        subprocess.run([ruff, *arguments, str(path)], check=True, capture_output=True)


@pytest.mark.slow
def test_the_same_model_gives_the_same_bytes(models) -> None:
    for name in ("bats_groups", "odd"):
        assert standalone(models[name]) == standalone(models[name])


def test_weights_need_no_pickles(models, folders) -> None:
    path = folders["odd"] / "weights.npz"
    with np.load(path, allow_pickle=False) as arrays:
        assert all(arrays[name].dtype != object for name in arrays.files)
        assert {"block/conv/kernel", "head/conv/kernel", "lambda/bias"} <= set(arrays.files)
    sizes = sum(w.shape.num_elements() for w in models["odd"].weights)
    with np.load(path) as arrays:
        # Shared by the block and the model around it.
        twice = arrays["conv/kernel"].size + arrays["conv/bias"].size
        assert sum(arrays[name].size for name in arrays.files) == sizes + twice


def test_weights_of_another_network_are_refused(folders) -> None:
    network = load_module(folders["bats_groups"] / "network.py")
    with pytest.raises(ValueError, match="weights of another network"):
        network.load(folders["bnas"] / "weights.npz")


@pytest.mark.parametrize("name", ["bats_groups", "bnas"])
def test_a_step_of_training_is_the_same(name: str, models, folders) -> None:
    again = load_module(folders[name] / "network.py").load()
    images = np.load(folders[name] / "images.npy")
    gradients = []
    for model in (models[name], again):
        clone = tf.keras.models.clone_model(model)
        clone.set_weights(model.get_weights())
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(clone(images, training=True) ** 2)
        gradients.append(tape.gradient(loss, clone.trainable_weights))
        constraints = [getattr(layer, "kernel_constraint", None) for layer in clone.layers]
        gradients[-1] += [
            c(w)
            for c, w in zip(constraints, map(_kernel, clone.layers), strict=True)
            if c is not None
        ]
    assert len(gradients[0]) == len(gradients[1]) > 20
    for expected, got in zip(*gradients, strict=True):
        np.testing.assert_array_equal(expected, got)


def _kernel(layer: tf.keras.layers.Layer) -> tf.Tensor | None:
    return tf.constant(layer.get_weights()[0]) if hasattr(layer, "kernel") else None


@pytest.mark.slow
@pytest.mark.parametrize("name", quick(["bats_groups", "resnet18_cifar"], 1))
def test_it_converts_to_the_same_operations(name: str, models, folders) -> None:
    network = load_module(folders[name] / "network.py")
    convert = network.convert if name == "bats_groups" else lce.convert_keras_model
    kinds = [
        Counter(operator.kind for operator in operators(flatbuffer))
        for flatbuffer in (
            export_lowered(lower(models[name], rewrite=False)),
            convert(network.load()),
        )
    ]
    assert kinds[0] == kinds[1]
    assert kinds[0]["LceBconv2d"] > 10


def flat(model: tf.keras.Model) -> list[tuple[str, str]]:
    return [(layer.name, type(layer).__name__) for layer in model._flatten_layers()]


@pytest.mark.parametrize("name", QUICK)
def test_layers_keep_names_and_kinds(name: str, models, folders) -> None:
    again = load_module(folders[name] / "network.py").build()
    assert flat(again) == flat(models[name])
    assert again.input_names == models[name].input_names
    assert again.output_names == models[name].output_names


def test_what_several_models_hold_stays_shared(models, folders) -> None:
    network = load_module(folders["odd"] / "network.py")
    again, fresh = network.load(), network.build()
    assert again.get_layer("block").get_layer("conv") is again.get_layer("conv")
    assert again.get_layer("conv") is not fresh.get_layer("conv")
    assert len(again.weights) == len(models["odd"].weights)


def portable(value: Any) -> Any:
    """Return a configuration without what names a class of larq_nas, or builds one."""
    if isinstance(value, dict):
        left = {k: portable(v) for k, v in value.items() if k != "build_config"}
        if "larq_nas>" in str(value.get("registered_name")):
            name = left["registered_name"].removeprefix("larq_nas>")
            left |= {"module": "network", "registered_name": f"network>{name}"}
        return left
    return [portable(item) for item in value] if isinstance(value, list) else value


def test_models_in_several_models_stay_shared_and_own_classes_are_plain(tmp_path) -> None:
    class Own(tf.keras.Sequential):
        pass

    layers = tf.keras.layers
    inner = Own([tf.keras.Input((4,)), layers.Dense(4), Own([layers.Dense(4)])], name="inner")
    a, b, x = tf.keras.Input((4,)), tf.keras.Input((4,)), tf.keras.Input((4,))
    first = tf.keras.Model(a, inner(a) * 2.0, name="first")
    second = tf.keras.Model(b, inner(inner(b)) + 1.0, name="second")
    for name, content in standalone(tf.keras.Model(x, first(x) + second(x))).items():
        (tmp_path / name).write_bytes(content)
    again = load_module(tmp_path / "network.py").load()
    held = [again.get_layer(name).get_layer("inner") for name in ("first", "second")]
    assert held[0] is held[1]
    assert type(held[0]) is tf.keras.Sequential
    assert len(again.weights) == 4


def test_the_network_is_the_json_of_keras(models, folders) -> None:
    config = json.loads((folders["resnet18_cifar"] / "network.json").read_text())
    expected = json.loads(models["resnet18_cifar"].to_json())
    assert portable(config["config"]) == portable(expected["config"])


def test_names_of_no_private_module_are_written(folders) -> None:
    text = (folders["odd"] / "network.json").read_text()
    assert ".src." not in text


def test_loading_leaves_the_classes_of_larq_nas_registered(folders) -> None:
    network = load_module(folders["bats_groups"] / "network.py")
    assert network.BinaryConv2D in {type(layer) for layer in network.load().layers}
    assert tf.keras.utils.get_registered_object("larq_nas>BinaryConv2D") is BinaryConv2D


def test_no_two_definitions_have_one_name() -> None:
    registered = tf.keras.utils.get_custom_objects()
    own = [registered[name] for name in registered if name.startswith("larq_nas>")]
    roots = [cls for cls in own if not cls.__module__.startswith("larq_nas.supernet")]
    _, definitions = own_source(roots)
    names = Counter(
        node.name for text in definitions for node in ast.parse(text).body if hasattr(node, "name")
    )
    assert len(roots) >= 8
    assert set(names.values()) == {1}


class OwnLayer(tf.keras.layers.Layer):
    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs * 2


class OwnQuantizer(lq.quantizers.Quantizer):
    precision = 1

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.sign(inputs)


def own_activation(x: tf.Tensor) -> tf.Tensor:
    return x * 2


VARIABLE = tf.Variable(2.0)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (lambda x: tf.keras.layers.Lambda(lambda y: y * 2, name="twice")(x), "`twice` is a Lambda"),
        (lambda x: OwnLayer(name="own")(x), r"Layer `own` is a .*OwnLayer"),
        (lambda x: BinaryConv2D(4, 1, input_quantizer=OwnQuantizer(), name="q")(x), "`q` has a"),
        (
            lambda x: tf.keras.layers.Activation(own_activation, name="a")(x),
            "`a` calls `own_activation`",
        ),
        (lambda x: x * VARIABLE, "make it a weight of a layer"),
    ],
)
def test_what_files_cannot_hold_is_refused_in_one_line(block, message: str) -> None:
    inputs = tf.keras.Input((8, 8, 4))
    model = tf.keras.Model(inputs, classifier(block(inputs), 3))
    with pytest.raises(ConversionError, match=message) as caught:
        standalone(model)
    assert "\n" not in str(caught.value)


def test_a_network_that_differs_when_read_again_is_refused(models) -> None:
    other = tf.keras.models.clone_model(models["bnas"])
    other.set_weights(models["bnas"].get_weights())
    kernel = other.get_layer("stem_conv").kernel
    kernel.assign(kernel + 1e-3)
    files = {**standalone(models["bnas"]), "weights.npz": standalone(other)["weights.npz"]}
    with pytest.raises(ConversionError, match="Layer `stem_conv` computes something else"):
        require_equal(models["bnas"], files)


def test_another_model_with_a_call_of_its_own_is_refused() -> None:
    class Own(tf.keras.Model):
        def call(self, inputs: tf.Tensor) -> tf.Tensor:
            return inputs * 2

    inputs = tf.keras.Input((8, 8, 4))
    model = tf.keras.Model(inputs, Own(name="mine")(inputs))
    with pytest.raises(ConversionError, match="`mine` must be functional"):
        standalone(model)
