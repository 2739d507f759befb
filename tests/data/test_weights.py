"""Sample and class weights, from the data to the loss."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
from conftest import choose_pool

import larq_nas
from larq_nas.data.data import read_data
from larq_nas.data.labels import Labels, class_weights
from larq_nas.data.streams import bilevel_stream, training_stream, validation_stream
from larq_nas.errors import InputError
from larq_nas.spaces import resolve
from larq_nas.training.distribution import whole_batches
from larq_nas.training.loop import TwoLevels
from larq_nas.training.recipe import Recipe
from larq_nas.training.trainer import Trainee

COUNTS = np.array([6, 3, 1])
NAMED = Labels(3, names=("ant", "bee", "cat"))


def test_weights_of_classes_are_given_by_number_or_name() -> None:
    expected = (1.0, 2.0, 0.5)
    assert class_weights({0: 1, 1: np.float32(2), 2: 0.5}, NAMED, COUNTS) == expected
    assert class_weights({"ant": 1, "cat": 0.5, "bee": 2}, NAMED, COUNTS) == expected
    assert class_weights({b"ant": 1, b"cat": 0.5, b"bee": 2}, NAMED, COUNTS) == expected
    shifted = Labels(3, (1, 2, 3), ("1", "2", "3"))
    assert class_weights({1: 1, 2: 2, 3: 0.5}, shifted, COUNTS) == expected
    assert class_weights({"1": 1, "2": 2, "3": 0.5}, shifted, COUNTS) == expected
    balanced = class_weights("balanced", NAMED, COUNTS)
    np.testing.assert_allclose(np.array(balanced) * COUNTS, 10 / 3)
    assert class_weights(None, NAMED, COUNTS) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({0: 1, 1: 1}, "a weight for each of the 3 classes, but has none for `cat`"),
        ({0: 1, 1: 1, 2: -1}, "`class_weight` must be positive"),
        ({0: 1, 1: 1, 2: float("nan")}, "finite number"),
        ({0: 1, 1: 1, 2: "many"}, "finite number"),
        ({0: 1, 1: 1, 3: 1}, "classes from 0 to 2, but got 3"),
        ({"ant": 1, "be": 1}, "Unknown class `be`; did you mean `bee`"),
        ({"ant": 1, 0: 1}, "one weight for class 0"),
        ({0: 0, 1: 0, 2: 0}, "above 0 for a class"),
        ("equal", 'must be "balanced", or weights by class'),
        ([1, 1, 1], "or weights by class .*, but got list: give dict.enumerate.weights"),
        (np.ones(3), "but got ndarray: give dict.enumerate.weights"),
        ({b"ant": 1, b"be": 1}, "Unknown class `be`; did you mean `bee`"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(given, message: str) -> None:
    with pytest.raises(InputError, match=message):
        class_weights(given, NAMED, COUNTS)


def arrays(count: int = 40, soft: bool = False, weights=None):
    random = np.random.default_rng(count)
    images = random.random((count, 8, 8, 1)).astype("float32")
    labels = np.arange(count) % 4
    given = 0.1 + 0.6 * np.eye(4)[labels] if soft else labels
    return (images, given) if weights is None else (images, given, weights)


def read(train, validation=None, **settings):
    space = resolve("bats")
    return read_data(train, validation or arrays(20), None, None, 0, space, 0, **settings)


def test_class_weights_and_sample_weights_multiply() -> None:
    given = np.linspace(0, 1, 40)
    data = read(arrays(weights=given[:, None]), class_weight={0: 1, 1: 2, 2: 3, 3: 4})
    images, labels, weights = (np.concatenate(part) for part in zip(*data.train, strict=True))
    np.testing.assert_allclose(weights, given * (labels + 1), rtol=1e-6)
    assert data.settings()["class_weight"] == [1, 2, 3, 4]
    assert len(data.validation.element_spec) == 2
    for batch in training_stream(data.train, data.facts, 0, None).from_epoch(0, 1):
        _of_their_images(images, weights, batch)
    for pair in bilevel_stream(data.train, data.facts, 0, None).from_epoch(0, 1):
        for batch in pair:
            _of_their_images(images, weights, batch)
    for batch in data.subset(8).train:
        _of_their_images(images, weights, batch)


def _of_their_images(images, weights, batch) -> None:
    known = {image.tobytes(): weight for image, weight in zip(images, weights, strict=True)}
    found = [known[image.tobytes()] for image in batch[0].numpy()]
    np.testing.assert_array_equal(found, batch[2])


def network(classes: int = 4) -> tf.keras.Model:
    tf.keras.utils.set_random_seed(1)
    images = tf.keras.Input((8, 8, 1))
    return tf.keras.Model(images, tf.keras.layers.Dense(classes)(tf.keras.layers.Flatten()(images)))


def losses_by_hand(model, images, labels) -> np.ndarray:
    """Return the cross-entropy of each image, without TensorFlow's losses."""
    kernel, bias = model.get_weights()
    logits = images.reshape(len(images), -1) @ kernel + bias
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    targets = np.eye(4)[labels] if labels.ndim == 1 else labels
    return -(targets * logs).sum(axis=1)


WEIGHTS = np.linspace(0, 3, 40).astype("float32")


@pytest.mark.parametrize("soft", [False, True])
def test_a_weighted_step_learns_what_the_weights_say(soft: bool) -> None:
    images, labels = arrays(soft=soft)
    labels = labels.astype("float32" if soft else "int32")
    model, before = network(), network()
    trainee = Trainee(model, Recipe(label_smoothing=0.0))
    trainee.compile(tf.keras.optimizers.SGD(0.1))
    measured = trainee.train_step((images, labels, tf.constant(WEIGHTS)))
    expected = (losses_by_hand(before, images, labels) * WEIGHTS).mean()
    np.testing.assert_allclose(measured["loss"], expected, rtol=1e-5)
    targets = labels if soft else np.eye(4)[labels]
    kernel, bias = before.get_weights()
    logits = images.reshape(40, -1) @ kernel + bias
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    push = ((shares - targets) * WEIGHTS[:, None]).mean(axis=0)
    np.testing.assert_allclose(model.get_weights()[1], bias - 0.1 * push, atol=1e-6)
    # Accuracy is of all images alike, by the largest probability.
    right = (logits.argmax(axis=1) == targets.argmax(axis=1)).mean()
    np.testing.assert_allclose(measured["accuracy"], right, rtol=1e-6)


@pytest.mark.parametrize("soft", [False, True])
def test_measured_by_weights_as_keras_does(soft: bool) -> None:
    given = read(arrays(), arrays(soft=soft, weights=WEIGHTS)) if soft else None
    given = given or read(arrays(), arrays(weights=WEIGHTS))
    data = validation_stream(given.validation)
    model = network()
    trainee = Trainee(model, Recipe())
    trainee.compile("sgd")
    measured = trainee.evaluate(data, verbose=0, return_dict=True)
    images, labels = arrays(soft=given.facts.soft_labels)
    expected = (losses_by_hand(model, images, labels) * WEIGHTS).mean()
    np.testing.assert_allclose(measured["loss"], expected, rtol=1e-5)
    losses = tf.keras.losses
    loss = losses.CategoricalCrossentropy if soft else losses.SparseCategoricalCrossentropy
    model.compile("sgd", loss(from_logits=True), metrics=["accuracy"])
    keras = model.evaluate(data, verbose=0, return_dict=True)
    np.testing.assert_allclose([measured[k] for k in keras], list(keras.values()), rtol=1e-5)
    # What fills batches up for replicas is not counted.
    filled = trainee.evaluate(whole_batches(data, 16), verbose=0, return_dict=True)
    np.testing.assert_allclose([filled[k] for k in keras], list(keras.values()), rtol=1e-5)


@pytest.mark.parametrize("soft", [False, True])
def test_both_levels_of_a_search_are_weighted(soft: bool) -> None:
    images, labels = arrays(soft=soft)
    labels = labels.astype("float32" if soft else "int32")
    model = network()

    class Levels(TwoLevels):
        parameters = ()

    levels = Levels(model, (), {})
    labels = tf.constant(labels)
    levels.compile(tf.keras.optimizers.SGD(0.1), tf.keras.optimizers.SGD(0.1))
    logits = model(images)
    each = losses_by_hand(model, images, labels.numpy())
    plain = levels.batch_loss(labels, logits)
    np.testing.assert_allclose(plain, each.mean(), rtol=1e-5)
    weighted = levels.batch_loss(labels, logits, tf.constant(WEIGHTS))
    np.testing.assert_allclose(weighted, (each * WEIGHTS).mean(), rtol=1e-5)
    ones = levels.batch_loss(labels, logits, tf.ones(40))
    np.testing.assert_array_equal(plain, ones)
    levels.measure(plain, labels, logits)
    right = (np.argmax(logits, 1) == np.arange(40) % 4).mean()
    np.testing.assert_allclose(levels.results()["accuracy"], right, rtol=1e-6)


@pytest.mark.parametrize("mix_up", [0.0, 0.4])
def test_weights_of_1_are_no_weights(mix_up: float) -> None:
    images, labels = arrays()
    trained = []
    for weights in ((), (tf.ones(40),)):
        model = network()
        trainee = Trainee(model, Recipe(mix_up=mix_up, label_smoothing=0.1))
        trainee.compile(tf.keras.optimizers.SGD(0.1))
        trainee.optimizer.build(trainee.trainable_variables)
        trainee.train_step((images, labels.astype("int32"), *weights))
        trained.append(model.get_weights())
    for one, other in zip(*trained, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)


def pools(choose, shape, classes):
    images = tf.keras.Input(shape)
    x = tf.keras.layers.Flatten()(choose_pool(choose, images))
    return tf.keras.Model(images, tf.keras.layers.Dense(classes)(x))


def test_a_search_takes_weights_and_names_of_classes(tmp_path) -> None:
    images, labels = arrays(60)
    text = np.array(["ant", "bee", "cat", "dog"])[labels]
    settings = {"space": pools, "epochs": 1, "train_epochs": 2, "verbose": 0}
    searched = larq_nas.search(
        (images, text),
        0.2,
        class_weight={"ant": 1, "bee": 1, "cat": 1, "dog": 0},
        directory=tmp_path / "run",
        **settings,
    )
    assert searched.output_shape == (None, 4)
    # What has no weight is never learnt: its bias has only fallen.
    assert np.argmin(searched.layers[-1].get_weights()[1]) == 3
    with pytest.raises(InputError, match=r"class_weight was .*1.0, 1.0, 1.0, 0.0.*, now None"):
        larq_nas.search((images, text), 0.2, directory=tmp_path / "run", **settings)


def of_counts(*counts: int, batch_size: int = 10) -> tf.data.Dataset:
    """Return images of as many of each class as `counts` says."""
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.random.default_rng(sum(counts)).random((len(labels), 8, 8, 1), dtype=np.float32)
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch_size)


def warnings_of(counts: tuple[int, ...], batch_size: int, **settings) -> list[str]:
    train, validation = of_counts(*counts, batch_size=batch_size), of_counts(*[3] * len(counts))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        read_data(train, validation, None, None, 0, resolve("bats"), 0, **settings)
    return [str(one.message) for one in caught if one.category is UserWarning]


@pytest.mark.parametrize("counts", [(95, 5), (44, 44, 4)])
def test_uneven_classes_are_told(counts: tuple[int, ...]) -> None:
    (told,) = warnings_of(counts, 10)
    assert f"of {sum(counts)} training images {max(counts)} are of class 0, and" in told
    assert 'give `class_weight="balanced"`' in told
    assert not warnings_of(counts, 10, class_weight="balanced")


def test_a_class_without_weight_is_told() -> None:
    held_out = (*arrays(20), np.arange(20) % 4 % 2)
    with pytest.warns(UserWarning, match="weight 0") as told:
        read(arrays(weights=np.arange(40) % 4), held_out)
    assert [str(one.message) for one in told] == [
        "All images of `train` of 1 of 4 classes, 0, have the sample weight 0: the network cannot "
        "learn them.",
        "All images of `validation` of 2 of 4 classes, 0, 2, have the sample weight 0: what is "
        "measured says nothing of them.",
    ]


def test_weights_that_float32_does_not_hold_are_refused() -> None:
    with pytest.raises(InputError, match=r"finite float32, 0 or more, but image 0 has 1e\+300"):
        read(arrays(weights=np.full(40, 1e300)))


def test_few_arrays_are_told_how_to_make_smaller_batches() -> None:
    message = r"such as tf\.data\.Dataset\.from_tensor_slices\(\(images, labels\)\)\.batch\(1\)"
    with pytest.warns(UserWarning, match=message):
        read(arrays(8))


@pytest.mark.parametrize("batch_size", [20, 64])
def test_an_epoch_of_one_step_is_told(batch_size: int) -> None:
    (told,) = warnings_of((11, 9), batch_size)
    assert told.startswith("An epoch has one step: a batch holds 20 of 20 training images")


def test_even_classes_in_several_steps_are_not_told_of() -> None:
    assert not warnings_of((20, 10, 10), 10)
