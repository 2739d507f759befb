from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from conftest import random_architecture

import larq_nas
from larq_nas.data.data import Data
from larq_nas.data.validation import check_data
from larq_nas.errors import InputError
from larq_nas.spaces import Bats
from larq_nas.training.teacher import Teacher

SHAPE, CLASSES = (8, 8, 1), 10
ARCHITECTURE = random_architecture(Bats(cells=1, channels=4, nodes=1), 0)


def linear(
    shape: tuple[int | None, ...] = SHAPE, classes: int = CLASSES, *, name: str | None = None
) -> tf.keras.Model:
    images = tf.keras.Input(shape)
    x = tf.keras.layers.GlobalAveragePooling2D()(images)
    return tf.keras.Model(images, tf.keras.layers.Dense(classes)(x), name=name)


def several_inputs() -> tf.keras.Model:
    inputs = [tf.keras.Input(SHAPE), tf.keras.Input(SHAPE)]
    summed = tf.keras.layers.Add()(inputs)
    return tf.keras.Model(inputs, linear()(summed))


def several_outputs(kind: Callable) -> tf.keras.Model:
    images = tf.keras.Input(SHAPE)
    return tf.keras.Model(images, kind(linear()(images) for _ in range(2)))


def named_output() -> tf.keras.Model:
    images = tf.keras.Input(SHAPE)
    return tf.keras.Model(images, {"logits": linear()(images)})


def failing() -> tf.keras.Model:
    images = tf.keras.Input(SHAPE)
    outputs = linear()(images)
    wrong = tf.keras.layers.Lambda(lambda x: tf.debugging.check_numerics(x / 0, "broken\nhere"))
    return tf.keras.Model(images, wrong(outputs))


def constant(value: float) -> tf.keras.Model:
    model = linear()
    model.set_weights([np.full(weight.shape, value) for weight in model.get_weights()])
    return model


class Subclassed(tf.keras.Model):
    """Says of its shapes nothing before it is called."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self._flatten = tf.keras.layers.Flatten()
        self._dense = tf.keras.layers.Dense(classes)

    def call(self, images: tf.Tensor) -> tf.Tensor:
        return self._dense(self._flatten(images))


def unbuilt(classes: int = CLASSES) -> tf.keras.Model:
    layers = [tf.keras.layers.Flatten(), tf.keras.layers.Dense(classes)]
    return tf.keras.Sequential(layers)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: "quicknet", "`teacher` must be a tf.keras.Model, but got str."),
        (lambda: lambda images: images, "must be a tf.keras.Model, but got function."),
        (lambda: linear((8, 8, 3)), r"of shape (8, 8, 1), as the data has, but reads (8, 8, 3)."),
        (lambda: linear((16, 16, 1)), "as the data has, but reads (16, 16, 1)."),
        (lambda: tf.keras.Sequential([tf.keras.Input(64), tf.keras.layers.Dense(10)]), "(64,)."),
        (lambda: linear(classes=9), "must tell 10 classes, as the data has, but gives outputs of"),
        (lambda: Subclassed(100), "must tell 10 classes, as the data has, but gives outputs of"),
        (lambda: unbuilt(3), "gives outputs of shape (3,)."),
        (several_inputs, "`teacher` must have one input, but has 2."),
        (lambda: several_outputs(list), "`teacher` must give one tensor, but gives a list of 2"),
        (lambda: several_outputs(tuple), "`teacher` must give one tensor, but gives a"),
        (named_output, "`teacher` must give one tensor, but gives a dict of 1"),
        (lambda: constant(np.nan), "`teacher` must give finite numbers, but gives NaN or Inf."),
        (lambda: constant(np.inf), "`teacher` must give finite numbers, but gives NaN or Inf."),
        (failing, "`teacher` cannot read the images: "),
    ],
)
def test_what_cannot_teach_is_refused_before_training(
    digits, tmp_path, make: Callable, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        larq_nas.train(
            ARCHITECTURE, *digits, epochs=1, teacher=make(), directory=tmp_path / "r", verbose=0
        )
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "r").exists()


@pytest.fixture
def task(digits) -> Data:
    return Data(*digits, check_data(*digits))


def test_numbers_that_are_no_distribution_are_said_to_be_logits(task: Data) -> None:
    sigmoids = tf.keras.Sequential([linear(), tf.keras.layers.Activation("sigmoid")])
    with pytest.warns(UserWarning, match="do not sum to 1: they are taken for logits"):
        Teacher(sigmoids, task)


@pytest.mark.parametrize(
    "make",
    [
        linear,
        lambda: linear((None, None, 1)),
        unbuilt,
        lambda: Subclassed(CLASSES),
        lambda: tf.keras.Sequential([tf.keras.Input(SHAPE), linear()]),
        lambda: tf.keras.Sequential(
            [linear(), tf.keras.layers.Activation("softmax", dtype="float16")]
        ),
        lambda: tf.keras.Sequential(
            [linear(), tf.keras.layers.Activation("linear", dtype="float64")]
        ),
    ],
)
def test_networks_of_any_kind_teach(task: Data, digits, make: Callable) -> None:
    images = next(iter(digits[0]))[0]
    logits = Teacher(make(), task).logits(images)
    assert logits.shape == (32, CLASSES)
    assert logits.dtype == tf.float32


def test_probabilities_become_logits_even_where_they_are_0(task: Data, digits) -> None:
    model = linear()
    model.set_weights([np.zeros((1, CLASSES)), np.arange(CLASSES) * 100.0])
    softmax = tf.keras.Sequential([model, tf.keras.layers.Softmax()])
    logits = Teacher(softmax, task).logits(next(iter(digits[0]))[0]).numpy()
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(logits[:, -1], 0, atol=1e-6)
    np.testing.assert_allclose(logits[:, 0], np.log(1e-7), rtol=1e-5)


def test_teachers_are_told_apart_by_their_weights_not_their_number(task: Data) -> None:
    one, again, other = linear(), linear(), linear()
    again.set_weights(one.get_weights())
    assert one.name != again.name
    assert Teacher(one, task).digest == Teacher(again, task).digest
    assert Teacher(one, task).digest != Teacher(other, task).digest
    assert Teacher(linear(name="mine"), task).digest.startswith("mine ")


def test_a_teacher_at_chance_level_warns_and_a_good_one_does_not(task: Data, recwarn) -> None:
    teacher = Teacher(constant(0.0), task)
    labels = np.concatenate([labels for _, labels in task.validation])
    with pytest.warns(UserWarning, match=r"`teacher` is right on .*% of the validation data, hard"):
        line = teacher.describe(task)
    assert line.endswith(f": {np.mean(labels == 0):.2%} of the validation data")
    good = unbuilt()
    good.compile(
        tf.keras.optimizers.Adam(0.05),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    good.fit(task.train, epochs=2, verbose=0)
    recwarn.clear()
    accuracy = np.mean(good.predict(task.validation, verbose=0).argmax(axis=-1) == labels)
    assert accuracy > 0.5
    assert f"{accuracy:.2%} of" in Teacher(good, task).describe(task)
    assert not recwarn.list


def test_the_warning_comes_without_any_printing_too(digits, tmp_path, capsys) -> None:
    with pytest.warns(UserWarning, match="hardly more than chance") as caught:
        larq_nas.train(ARCHITECTURE, *digits, epochs=0, teacher=constant(0.0), verbose=0)
    assert {warning.filename for warning in caught if "chance" in str(warning.message)} == {
        __file__
    }
    assert capsys.readouterr().out == ""
