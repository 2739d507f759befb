import numpy as np
import pytest
import tensorflow as tf

from larq_nas.data.augmentation import pad_crop_flip, resolve_augment
from larq_nas.data.streams import bilevel_stream, training_stream
from larq_nas.data.validation import check_data
from larq_nas.errors import InputError
from larq_nas.process_state import seed_everything


@pytest.fixture
def numbered() -> tf.data.Dataset:
    """53 images that hold their own number."""
    images = np.arange(53, dtype="float32")[:, None, None, None] * np.ones((1, 8, 8, 1), "float32")
    return tf.data.Dataset.from_tensor_slices((images, np.arange(53) % 2)).batch(10)


def epochs(make, data: tf.data.Dataset, first: int, last: int, seed: int = 0, augment=None) -> list:
    seed_everything(seed)
    stream = make(data, check_data(data, data), seed, augment)
    batches = list(stream.from_epoch(first, last).as_numpy_iterator())
    assert len(batches) == (last - first) * stream.steps
    return batches


def numbers(images: np.ndarray) -> list[int]:
    return [int(n) for n in images[:, 0, 0, 0]]


def test_halves_never_mix(numbered: tf.data.Dataset) -> None:
    halves: tuple[list[int], list[int]] = ([], [])
    for pair in epochs(bilevel_stream, numbered, 0, 3):
        for half, (images, labels) in zip(halves, pair, strict=True):
            assert images.shape == (10, 8, 8, 1)
            np.testing.assert_array_equal(labels, np.array(numbers(images)) % 2)
            half.extend(numbers(images))
    weights, architecture = (set(half) for half in halves)
    assert not weights & architecture
    assert {number // 2 for number in weights | architecture} == set(range(26))
    assert len(halves[0]) == 3 * 20


def test_data_in_a_regular_order_is_halved_well(numbered: tf.data.Dataset) -> None:
    """Classes that alternate would each fall into one half by their place alone."""
    for half in (0, 1):
        labels = np.concatenate([pair[half][1] for pair in epochs(bilevel_stream, numbered, 0, 1)])
        assert 3 <= labels.sum() <= 17


@pytest.mark.parametrize("make", [bilevel_stream, training_stream])
def test_a_later_epoch_is_the_same_after_a_restart(make, numbered: tf.data.Dataset) -> None:
    whole = epochs(make, numbered, 0, 3, augment=pad_crop_flip)
    rest = epochs(make, numbered, 1, 3, augment=pad_crop_flip)
    tail = whole[len(whole) - len(rest) :]
    tf.nest.map_structure(np.testing.assert_array_equal, rest, tail)


def test_epochs_and_seeds_differ(numbered: tf.data.Dataset) -> None:
    batches = epochs(training_stream, numbered, 0, 2)
    order = [numbers(images) for images, _ in batches]
    assert order[:5] != order[5:]
    other = epochs(training_stream, numbered, 0, 1, seed=1)
    assert order[0] != numbers(other[0][0])
    assert len({number for batch in order[:5] for number in batch}) == 50


def test_augmentation_moves_and_mirrors_each_image_by_itself() -> None:
    image = np.arange(64, dtype="float32").reshape(1, 8, 8, 1) + 1
    images = np.repeat(image, 200, axis=0)
    changed = pad_crop_flip(images, tf.constant([0, 1])).numpy()
    padded = np.pad(image[0, ..., 0], 1)
    possible = {}
    for y in range(3):
        for x in range(3):
            crop = padded[y : y + 8, x : x + 8]
            possible[crop.tobytes()] = possible[crop[:, ::-1].tobytes()] = (y, x)
    seen = {np.ascontiguousarray(one[..., 0]).tobytes() for one in changed}
    assert seen <= possible.keys()
    assert len(seen) == 18
    np.testing.assert_array_equal(changed, pad_crop_flip(images, tf.constant([0, 1])))


def test_unknown_augmentations_are_refused() -> None:
    with pytest.raises(InputError, match="Unknown augmentation `standart`; did you mean"):
        resolve_augment("standart")
    with pytest.raises(InputError, match="must be a name, a Keras layer or several, a function"):
        resolve_augment(3)
