from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest
import tensorflow as tf

from larq_nas.data.augmentation import cutout, describe, pad_crop_flip, resolve_augment
from larq_nas.data.data import read_data
from larq_nas.data.streams import training_stream
from larq_nas.errors import DivergenceError, InputError
from larq_nas.spaces import resolve


def test_a_square_of_half_the_size_is_cut_out() -> None:
    images = tf.random.stateless_uniform((200, 32, 32, 3), [0, 0], 1.0, 2.0)
    seed = tf.constant([5, 9], tf.int64)
    # Where shifting brought zeros in, a hole cannot be told from it.
    shifting = tf.random.experimental.stateless_split(seed, 3)[0]
    shifted, cut = pad_crop_flip(images, shifting).numpy(), cutout(images, seed).numpy()
    holes = ((cut == 0) & (shifted != 0)).all(axis=-1)
    assert (cut[~holes] == shifted[~holes]).all()
    whole = 0
    for before, hole in zip(shifted, holes, strict=True):
        rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
        assert 0 < len(rows) <= 16
        assert 0 < len(columns) <= 16
        inside = np.ix_(range(rows[0], rows[-1] + 1), range(columns[0], columns[-1] + 1))
        assert (hole[inside] | (before[inside] == 0).all(axis=-1)).all()
        whole += len(rows) == len(columns) == 16
    # Centres fall anywhere, and near the edges a part of the square is outside.
    assert 20 < whole < 120
    assert (cutout(images, seed).numpy() == cut).all()


LAYERS = tf.keras.layers
ARCHITECTURE = larq_nas.Architecture("vgg_small", {"expansion": 0.0625})


def data_of(augment: Any) -> Any:
    train, validation = larq_nas.datasets.load("digits", batch_size=20)
    space = resolve("vgg_small")
    return read_data(train.take(4), validation.take(1), None, augment, 0, space, 0)


def batches(augment: Any, first: int, last: int) -> list[Any]:
    data = data_of(augment)
    stream = training_stream(data.train, data.facts, data.seed, data.augment)
    return [images.numpy() for images, *_ in stream.from_epoch(first, last)]


def layers() -> tf.keras.Sequential:
    return tf.keras.Sequential(
        [
            LAYERS.RandomFlip("horizontal"),
            LAYERS.RandomRotation(0.1),
            LAYERS.RandomZoom(0.1),
            LAYERS.RandomTranslation(0.1, 0.1),
            LAYERS.RandomContrast(0.2),
            LAYERS.RandomBrightness(0.2, value_range=(-1, 1)),
            LAYERS.GaussianNoise(0.1),
            LAYERS.SpatialDropout2D(0.1),
        ]
    )


def test_a_list_of_layers_is_taken_as_their_sequence() -> None:
    given = [LAYERS.RandomFlip(), LAYERS.RandomRotation(0.1)]
    for listed in (given, tuple(given)):
        found = batches(listed, 0, 1)
        for one, other in zip(found, batches(tf.keras.Sequential(given), 0, 1), strict=True):
            np.testing.assert_array_equal(one, other)
    for wrong in ([], [LAYERS.RandomFlip(), 3]):
        with pytest.raises(InputError, match="`augment` must be a name, a Keras layer or several"):
            resolve_augment(wrong)
    with pytest.raises(InputError, match=r"must be an instance, such as RandomFlip"):
        resolve_augment([LAYERS.RandomFlip])


@pytest.mark.slow
def test_keras_layers_augment_the_same_by_seed_and_epoch() -> None:
    whole = batches(layers(), 0, 2)
    plain = batches(None, 0, 2)
    assert all((one != other).any() for one, other in zip(whole, plain, strict=True))
    used = layers()
    used(tf.zeros((2, 8, 8, 1)), training=True)  # what it drew before does not count
    again = batches(used, 1, 2)
    assert all((one == other).all() for one, other in zip(whole[4:], again, strict=True))
    assert (whole[0] != whole[4]).any()


def test_each_image_is_augmented_by_itself_and_the_layer_stays_as_it_was() -> None:
    flip = LAYERS.RandomFlip("horizontal")
    generator = flip._random_generator
    images = tf.random.stateless_uniform((16, 8, 8, 1), [0, 0])
    made = resolve_augment(flip)(images, tf.constant([1, 2], tf.int64)).numpy()
    same = [(one == other).all() for one, other in zip(made, images.numpy(), strict=True)]
    assert 0 < sum(same) < 16
    assert flip._random_generator is generator


def test_layers_are_told_apart_by_their_settings() -> None:
    assert describe(resolve_augment(layers())) == describe(resolve_augment(layers()))
    one, other = (resolve_augment(LAYERS.RandomRotation(angle)) for angle in (0.1, 0.2))
    assert describe(one) != describe(other)
    assert str(describe(one)).startswith("RandomRotation ")


class Noise(LAYERS.Layer):
    """Draws by itself."""

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return images + tf.random.normal(tf.shape(images))


def failing(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    if images.shape[-1] != 3:
        raise KeyError("no colors")
    return images


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (Noise(), r"`augment` \(Noise .*\) gives other images for the same seed"),
        (LAYERS.RandomFlip, r"`augment` must be an instance, such as RandomFlip\(...\)"),
        (LAYERS.RandomCrop(4, 4), r"shape of `validation`, \(8, 8, 1\), but gave \(8, 4, 4, 1\)"),
        (failing, "return images: 'no colors'"),
        (lambda images, seed: tf.math.log(images), "`augment` gave numbers that are not finite"),
        (lambda images: images, "return images: .* takes 1 positional argument"),
        (3, "a Keras layer or several, a function or None, but got 3"),
    ],
)
def test_an_augmentation_that_cannot_be_used_is_refused(augment: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        data_of(augment)


@pytest.mark.parametrize(
    "layer", [LAYERS.Conv2D(1, 3, padding="same"), LAYERS.BatchNormalization()]
)
def test_an_augmentation_with_weights_to_train_is_refused(layer: Any) -> None:
    for given in (layer, [LAYERS.RandomFlip(), layer]):
        with pytest.raises(InputError, match=f"nothing to train, but has `{layer.name}`"):
            data_of(given)


def test_a_size_that_is_drawn_is_refused() -> None:
    with pytest.raises(InputError, match=r"shape of `validation`, \(8, 8, 1\), but gave \(8, "):
        data_of(LAYERS.RandomHeight(0.5))


@pytest.mark.parametrize(
    "augment",
    [
        LAYERS.Rescaling(1 / 255),
        LAYERS.RandomBrightness(0.2),  # whose range is 0 to 255
        lambda images, seed: tf.cast(images / 2, tf.uint8),
        lambda images, seed: images + 9,
    ],
)
def test_training_images_of_another_range_are_told(augment: Any) -> None:
    with pytest.warns(UserWarning, match="and leaves those of `validation`: set its range"):
        data_of(augment)


@pytest.mark.parametrize(
    "augment",
    [
        *("standard", "cutout"),
        layers(),
        LAYERS.RandomContrast(0.9),
        lambda images, seed: -images,
        lambda images, seed: images * 0.5,
    ],
)
def test_training_images_of_a_like_range_are_not(augment: Any, recwarn: Any) -> None:
    data_of(augment)
    assert not [one for one in recwarn.list if "range" in str(one.message)]


def test_a_function_that_draws_by_itself_is_told() -> None:
    with pytest.warns(UserWarning, match="gives other images for the same seed"):
        data_of(lambda images, seed: images + tf.random.normal(tf.shape(images)))


@pytest.mark.parametrize("later", [float("nan"), float("inf")])
def test_what_is_not_finite_later_is_traced_to_the_augmentation(later: float) -> None:
    def augment(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return tf.where(seed[1] == 2, later, images)

    train, validation = larq_nas.datasets.load("digits", batch_size=20)
    with pytest.raises(
        DivergenceError, match="`train_binary`, epoch 1: `augment` gave numbers that"
    ):
        larq_nas.train(
            ARCHITECTURE,
            train.take(4),
            validation.take(1),
            epochs=1,
            augment=augment,
            recipe="bnas_v2",
            verbose=0,
        )
