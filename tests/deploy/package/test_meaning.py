"""What outputs are, on the card and in the programs, read from their shape and activation."""

from pathlib import Path

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from conftest import quick
from deploy.package.programs import (
    ENGINE,
    call,
    compiled,
    images,
    java,
    needs_compiler,
    needs_java,
    network,
)

import larq_nas
from larq_nas.cost import profile
from larq_nas.deploy.meaning import meanings
from larq_nas.deploy.package import write_package
from larq_nas.deploy.package.card import not_counted
from larq_nas.errors import InputError
from larq_nas.graph.calls import functional

layers = tf.keras.layers
POOL = layers.GlobalAveragePooling2D


def conv(filters: int, activation: str | None = None, size: int = 1) -> layers.Layer:
    return layers.Conv2D(filters, size, padding="same", activation=activation)


HEADS = {
    "softmax": (
        [POOL(), layers.Dense(5, "softmax")],
        "classes",
        "probabilities of 5 classes (softmax)",
    ),
    "softmax layer": (
        [POOL(), layers.Dense(5), layers.Softmax()],
        "classes",
        "probabilities of 5 classes (softmax)",
    ),
    "softmax function": (
        [POOL(), layers.Dense(5), tf.nn.softmax],
        "classes",
        "probabilities of 5 classes (softmax)",
    ),
    "softmax of one": ([POOL(), layers.Dense(1, "softmax")], "numbers", "which is always 1"),
    "softmax before a reshape": (
        [POOL(), layers.Dense(6, "softmax"), layers.Reshape((2, 3))],
        "numbers",
        "a softmax over another axis",
    ),
    "probability": ([POOL(), layers.Dense(1, "sigmoid")], "probabilities", "one probability"),
    "probabilities": (
        [POOL(), layers.Dense(4, "sigmoid")],
        "probabilities",
        "4 independent probabilities (sigmoid)",
    ),
    "one number": (
        [POOL(), layers.Dense(1)],
        "numbers",
        "one number without activation: a regression, or the logit of a probability",
    ),
    "scores": (
        [POOL(), layers.Dense(4)],
        "scores",
        "4 numbers without activation: logits of 4 classes, or a regression",
    ),
    "positive": ([POOL(), layers.Dense(1), layers.ReLU()], "numbers", "one number behind ReLU"),
    "mask": ([conv(1, "sigmoid")], "probabilities", "a mask of 8 x 8: a probability for each"),
    "enlarged mask": (
        [conv(1, "sigmoid"), layers.UpSampling2D(2, interpolation="bilinear")],
        "probabilities",
        "a mask of 16 x 16",
    ),
    "masks": ([conv(3, "sigmoid")], "probabilities", "3 masks of 8 x 8"),
    "pixel classes": (
        [conv(3, "softmax")],
        "classes",
        "a map of 8 x 8, the probabilities of 3 classes for each pixel",
    ),
    "map": ([conv(1)], "numbers", "a map of 8 x 8, one number for each pixel, without activation"),
    "maps": ([conv(2, "tanh")], "numbers", "2 numbers for each pixel, behind tanh"),
    "steps": (
        [layers.Reshape((64, 32)), layers.Dense(3, "softmax")],
        "classes",
        "64 positions, the probabilities of 3 classes at each",
    ),
    "one pixel": (
        [layers.AveragePooling2D(8), lq.layers.QuantConv2D(4, 1), layers.Softmax()],
        "classes",
        "probabilities of 4 classes",
    ),
    "nested": (
        [POOL(), tf.keras.Sequential([layers.Input((32,)), layers.Dense(5, "softmax")])],
        "classes",
        "probabilities of 5 classes",
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_an_output_is_what_its_shape_and_activation_say(name: str) -> None:
    head, kind, text = HEADS[name]
    (meaning,) = meanings(network(*head))
    assert meaning.kind == kind
    assert text in meaning.text


@pytest.mark.parametrize(
    ("loss", "units", "kind", "text"),
    [
        ("mse", 3, "numbers", "3 numbers without activation: a regression"),
        (tf.keras.losses.Huber(), 1, "numbers", "without activation: a regression"),
        (tf.keras.losses.CategoricalCrossentropy(True), 3, "classes", "logits of 3 classes, with"),
        ("binary_crossentropy", 1, "numbers", "the logit of a probability"),
    ],
)
def test_the_loss_tells_what_shape_and_activation_do_not(loss, units, kind, text) -> None:
    model = network(POOL(), layers.Dense(units))
    model.compile(loss=loss)
    (meaning,) = meanings(model)
    assert meaning.kind == kind
    assert text in meaning.text


class UsersModel(tf.keras.Model):
    """A head as a user writes it: layers, functions, and perhaps a loop Keras cannot follow."""

    def __init__(self, head: str) -> None:
        super().__init__(name="net")
        self.head = head
        self.convolution = conv(8)
        self.pool = POOL()
        self.dense = layers.Dense(5, "softmax" if head in ("layer", "loop") else None)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = self.pool(self.convolution(x))
        if self.head == "loop":
            x = tf.map_fn(lambda row: 2.0 * row, x)
        x = self.dense(x)
        return tf.nn.softmax(x) if self.head == "function" else x


@pytest.mark.parametrize(
    ("head", "text"),
    [
        ("layer", "probabilities of 5 classes (softmax)"),
        ("function", "probabilities of 5 classes (softmax)"),
        ("loop", "probabilities of 5 classes (softmax)"),
        ("none", "logits of 5 classes, without softmax"),
    ],
)
def test_a_subclassed_model_has_its_loss_and_its_last_activation(head: str, text: str) -> None:
    model = UsersModel(head)
    model(np.zeros((1, 8, 8, 3), "float32"))
    (unknown,) = meanings(functional(model))
    assert unknown.kind == ("scores" if head == "none" else "classes")
    model.compile(loss="sparse_categorical_crossentropy")
    (meaning,) = meanings(functional(model))
    assert meaning.kind == "classes"
    assert meaning.text.startswith(text)


def test_what_is_not_counted_is_named_within_a_subclassed_model() -> None:
    def build(head: str) -> tf.keras.Model:
        model = UsersModel(head)
        model(np.zeros((1, 8, 8, 3), "float32"))
        return functional(model)

    (line,) = not_counted(build("loop"), ["net"])
    assert line.startswith("`net` (its call cannot be followed), with its layers `conv2d")
    assert "`dense" in line
    assert "pooling" not in line
    own = layers.Input((4,))
    model = tf.keras.Model(own, layers.Lambda(lambda x: tf.cumsum(x, axis=1), name="sums")(own))
    assert not_counted(model, profile(model).unknown) == ["`tf.math.cumsum` in `sums`"]


def test_class_names_and_an_accuracy_tell_that_it_classifies() -> None:
    model = network(POOL(), layers.Dense(3))
    (named,) = meanings(model, ["a", "b", "c"])
    assert (named.kind, named.names) == ("classes", ["a", "b", "c"])
    (known,) = meanings(model, classifies=True)
    assert known.text.startswith("logits of 3 classes, without softmax")
    (one,) = meanings(network(POOL(), layers.Dense(1)), classifies=True)
    assert one.kind == "numbers"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b"], r"a name for each class of one output \(`dense\w*` has 3\), but has 2"),
        ("abc", "must be a list of names, but got 'abc'"),
        ({"other": ["a"]}, "must be of outputs .*, but got `other`"),
        ({"dense": ["a"]}, "must hold 3 names for output `dense`, but has 1"),
        (["a", "b", "two\nlines"], "must be texts of one line"),
    ],
)
def test_class_names_that_do_not_fit_are_refused(names, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        meanings(network(POOL(), layers.Dense(3, name="dense")), names)
    assert "\n" not in str(caught.value)


PROGRAMS = {
    "regression": (
        [POOL(), layers.Dense(1, name="age")],
        None,
        lambda y: f"age: {y[0]:g}\n",
        lambda y: "age: [",
    ),
    "classes": (
        [POOL(), layers.Dense(3, "softmax", name="animal")],
        ["cat", 'a "dog"', "höhle"],
        lambda y: f"animal: class {y.argmax()} ({NAMES[y.argmax()]}), output {y.max():g}\n",
        lambda y: f"animal: class {y.argmax()} ({NAMES[y.argmax()]}), output ",
    ),
    "probability": (
        [POOL(), layers.Dense(1, "sigmoid", name="defect")],
        ["sound", "broken"],
        lambda y: f"defect: {y[0]:g}; {['sound', 'broken'][int(y[0] >= 0.5)]}\n",
        lambda y: "defect: [",
    ),
    "mask": (
        [layers.Conv2D(1, 1, activation="sigmoid", name="mask")],
        None,
        lambda y: (
            f"mask: 64 numbers from {y.min():g} to {y.max():g}, mean {y.mean():g}; "
            f"{np.sum(y >= 0.5)} are 0.5 or more\n"
        ),
        lambda y: "mask: 64 numbers from ",
    ),
    "pixel classes": (
        [layers.Conv2D(3, 1, activation="softmax", name="kinds")],
        ["cat", 'a "dog"', "höhle"],
        lambda y: (
            "kinds:"
            + "".join(
                f" class {i} ({NAMES[i]}) at {n} of 64;"
                for i, n in enumerate(np.bincount(y.reshape(64, 3).argmax(1), minlength=3))
                if n
            )
            + "\n"
        ),
        lambda y: "kinds: 192 numbers from ",
    ),
    "scores": (
        [POOL(), layers.Dense(3, name="some")],
        None,
        lambda y: f"some: {y[0]:g} {y[1]:g} {y[2]:g}; number {y.argmax()} is the largest\n",
        lambda y: "some: [",
    ),
}
NAMES = ["cat", 'a "dog"', "höhle"]


@needs_compiler
@needs_java
@pytest.mark.parametrize("name", quick(PROGRAMS, 0, 3))
def test_the_programs_print_what_an_output_is(name: str, tmp_path: Path) -> None:
    head, names, printed, described = PROGRAMS[name]
    tf.keras.backend.clear_session()
    model = network(*(type(layer).from_config(layer.get_config()) for layer in head))
    conversion = larq_nas.convert(model, images(model))
    package = tmp_path / "package"
    write_package(
        package, conversion, model, images=images(model), class_names=names, standalone=False
    )
    image = images(model)[:1]
    image.tofile(tmp_path / "image.bin")
    outputs = model(image).numpy()[0].ravel()
    card = (package / "README.md").read_text()
    assert f"Output `{model.output_names[0]}` (`output0000` in the flatbuffer): float32" in card
    assert meanings(model, names)[0].text in card
    assert all(one in card for one in names or [])
    done = call(compiled(package, tmp_path), package / "model.tflite", tmp_path / "image.bin")
    assert done.returncode == 0, done.stderr
    assert _rounded(done.stdout) == _rounded(printed(outputs))
    command = [*java(package, tmp_path), package / "golden.bin", tmp_path / "image.bin"]
    done = call(*command, STUB_ENGINE=ENGINE, STUB_MODEL=str(package / "model.tflite"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(described(outputs))


def _rounded(text: str) -> list[str | float]:
    """Return the words of a text, its numbers to the digits that every kernel gives."""
    words: list[str | float] = []
    for word in text.split():
        try:
            words.append(float(f"{float(word.rstrip(',;')):.3g}"))
        except ValueError:
            words.append(word)
    return words


class Subclassed(tf.keras.Model):
    """A network of which Keras keeps no graph."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = layers.Conv2D(4, 3)
        self.pool = POOL()
        self.last = layers.Dense(3, activation="softmax")

    def call(self, images: tf.Tensor) -> tf.Tensor:
        return self.last(self.pool(self.conv(images)))


def test_a_subclassed_model_is_packed_and_its_outputs_are_known(tmp_path) -> None:
    model = Subclassed()
    photos = np.random.default_rng(0).normal(size=(20, 8, 8, 3)).astype("float32")
    model(photos)
    conversion = larq_nas.convert(model, photos)
    write_package(tmp_path, conversion, model, images=photos, standalone=False)
    card = (tmp_path / "README.md").read_text()
    assert "probabilities of 3 classes (softmax)" in card
    write_package(
        tmp_path, conversion, model, images=photos, class_names=["a", "b", "c"], standalone=False
    )
    assert 'kNames0[] = {\n    "a",' in (tmp_path / "main.cc").read_text()


def test_files_of_another_size_are_refused(tmp_path: Path) -> None:
    model = network(POOL(), layers.Dense(1))
    conversion = larq_nas.convert(model, images(model))
    write_package(tmp_path / "package", conversion, model, standalone=False)
    program = compiled(tmp_path / "package", tmp_path)
    images(model)[:2].tofile(tmp_path / "two.bin")
    done = call(program, tmp_path / "package" / "model.tflite", tmp_path / "two.bin")
    assert (done.returncode, done.stderr) == (1, f"{tmp_path}/two.bin must hold 768 bytes.\n")
    done = call(program)
    called = f"usage: {program} model.tflite input.bin, or {program} --golden golden.bin model.tfl"
    assert done.stderr.startswith(called)


def test_preprocessing_and_its_layers_are_on_the_card(tmp_path: Path) -> None:
    inputs = tf.keras.Input((8, 8, 3), name="photo")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="centre")(inputs)
    model = tf.keras.Model(inputs, layers.Dense(1)(POOL()(layers.Conv2D(4, 3)(x))))
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3)).astype("float32")
    conversion = larq_nas.convert(model, pixels)
    settings = {"preprocessing": "crop to 8 x 8.", "standalone": False}
    write_package(tmp_path, conversion, model, images=pixels, **settings)
    card = (tmp_path / "README.md").read_text()
    assert (
        "- Input `photo` (`image` in the flatbuffer): one image, float32, shape (1, 8, 8, 3), "
        "channels last; the images" in card
    )
    head = " ".join((tmp_path / "main.cc").read_text().split("#include")[0].split("//"))
    assert " ".join(head.split()).endswith(
        "input.bin: `photo` (`image` in the flatbuffer), 192 float32 numbers: 8 rows of 8 pixels "
        "of 3 channels; the images it was checked on held numbers from 0 to 255. Preprocessing: "
        "crop to 8 x 8. The second runs the inputs of golden.bin and compares with the outputs "
        "that are expected. It ends with 0 if they agree, with 2 if they do not, and with 1 if the "
        "test could not be run."
    )
    assert "held numbers from 0 to 255." in card
    assert "- Preprocessing: crop to 8 x 8.\n" in card
    assert "not to be done before: Rescaling `centre` (x * 0.00784314 - 1)." in card
    for wrong in ({"preprocessing": 3}, {"images": pixels[..., :1]}, {"images": [pixels, pixels]}):
        with pytest.raises(InputError, match=r"must be a text|must hold|an array of images"):
            write_package(tmp_path / "new", conversion, model, **wrong)
    assert not (tmp_path / "new").exists()
