import warnings

import numpy as np
import pytest
import tensorflow as tf

from larq_nas.data.validation import check_data
from larq_nas.errors import InputError

SHAPE = (8, 8, 1)


def data(
    examples: int = 20, shape=SHAPE, labels=None, batch: int = 8, change=lambda images: images
) -> tf.data.Dataset:
    images = change(np.zeros((examples, *shape), "float32"))
    labels = np.arange(examples) % 4 if labels is None else labels
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch)


def poisoned(value: float):
    def change(images: np.ndarray) -> np.ndarray:
        images[13, 2, 2] = value
        return images

    return change


def test_facts() -> None:
    facts = check_data(data(), data(examples=9))
    assert (facts.input_shape, facts.classes, facts.batch_size) == (SHAPE, 4, 8)
    assert (facts.train_examples, facts.validation_examples) == (20, 9)
    assert facts.content_and_order == check_data(data(batch=5), data(examples=9)).content_and_order
    assert (
        facts.content_and_order
        != check_data(data(labels=np.arange(20)[::-1] % 4), data(), 4).content_and_order
    )
    assert (
        facts.content_and_order
        != check_data(data(change=lambda images: images + 1), data()).content_and_order
    )
    assert check_data(data(), data(), classes=7).classes == 7


def generated(**signature) -> tf.data.Dataset:
    def generate():
        yield np.zeros((2, *SHAPE), "float32"), np.array([0, 1])

    return tf.data.Dataset.from_generator(
        generate,
        output_signature=(
            tf.TensorSpec((None, *SHAPE), tf.float32),
            tf.TensorSpec((None,), tf.int64),
        ),
    )


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (data().unbatch(), "`train` must be batched: add .batch"),
        (data().map(lambda x, y: x), "has no labels"),
        (data().map(lambda x, y: {"image": x, "label": y}), "has no labels"),
        (data(labels=np.full(20, -1)), "Labels of `train` must be 0 to 3, but image 0 has -1"),
        (data(labels=np.arange(20)), "Labels of `train` must be 0 to 3, but image 4 has 4"),
        (generated(), "must know its number of batches: add .apply"),
        (data().repeat(), "`train` must end: remove .repeat"),
        (data().take(0), "it is empty"),
        (data(change=poisoned(np.nan)), "image 13 has NaN or Inf"),
        (data(change=poisoned(np.inf)), "image 13 has NaN or Inf"),
        (data().map(lambda x, y: (x, tf.one_hot(y, 4))), "tf.argmax"),
        (data().map(lambda x, y: (x, tf.cast(y, tf.float32))), "whole-number label"),
        (data().map(lambda x, y: (x[..., 0], y)), "a channel axis, but got .None, 8, 8.: add .map"),
        (data().map(lambda x, y: (x, y, y)), "without a third part"),
        (data().map(lambda x, y: (tf.as_string(x), y)), "images of whole or real numbers"),
        (data().map(lambda x, y: (tf.cast(x, tf.bfloat16), y)), "but got bfloat16: turn"),
        (
            data().map(
                lambda x, y: (tf.image.resize(x, tf.random.uniform((2,), 4, 9, tf.int32)), y)
            ),
            "images of static shape",
        ),
        ([1, 2], "`train` must be a tf.data.Dataset, but got list"),
        (data(examples=1), "2 images or more"),
    ],
)
def test_bad_training_data_is_refused(train: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_data(train, data(), classes=4)
    assert "\n" not in str(caught.value)


def test_bad_validation_data_is_refused() -> None:
    with pytest.raises(InputError, match=r"shape of `train`, \(8, 8, 1\), but got \(9, 8, 1\)"):
        check_data(data(), data(shape=(9, 8, 1)))
    with pytest.raises(
        InputError, match="Labels of `validation` must be 0 to 3, but image 4 has 4"
    ):
        check_data(data(), data(labels=np.arange(20)))
    with pytest.raises(InputError, match="2 classes or more"):
        check_data(data(labels=np.zeros(20, int)), data())
    with pytest.raises(InputError, match="`classes` must be positive"):
        check_data(data(), data(), classes=0)
    with pytest.raises(InputError, match="none is 1: say how many classes"):
        check_data(data(labels=np.arange(20) % 2 * 3), data())
    with pytest.raises(InputError, match="but image 7 has 1000000"):
        check_data(data(labels=np.where(np.arange(20) == 7, 10**6, 0)), data())


def noisy(images: tf.Tensor) -> tf.Tensor:
    """Add noise that no seed of TensorFlow can fix."""
    generator = np.random.default_rng()
    noise = tf.numpy_function(lambda: generator.normal(), [], tf.float64)
    return images + tf.cast(tf.ensure_shape(noise, ()), tf.float32)


def test_data_that_changes_between_passes_is_told() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        check_data(data(200), data())
        assert not told
        check_data(
            data(200, labels=np.random.default_rng(0).integers(0, 4, 200)).shuffle(25), data()
        )
        assert "gives another order on each pass" in str(told.pop().message)
        check_data(data().map(lambda x, y: (noisy(x), y)), data())
        assert "gives other images on each pass" in str(told.pop().message)
