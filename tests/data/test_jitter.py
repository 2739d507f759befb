import numpy as np
import pytest
import tensorflow as tf

from larq_nas.data.augmentation import color_jitter

SEED = tf.constant([3, 4], tf.int64)


def photographs(channels: int = 3, lowest: float = 0.0, highest: float = 1.0) -> np.ndarray:
    shape = (16, 8, 8, channels)
    return np.random.default_rng(0).uniform(lowest, highest, shape).astype("float32")


def jitter(images: np.ndarray, lowest: float = 0.0, highest: float = 1.0, seed=SEED) -> np.ndarray:
    return color_jitter(images, seed, lowest=lowest, highest=highest).numpy()


@pytest.mark.parametrize(("lowest", "highest"), [(0, 1), (-1, 1), (0, 255), (-2.1, 2.6)])
def test_the_range_is_kept_and_used(lowest: float, highest: float) -> None:
    changed = jitter(photographs(3, lowest, highest), lowest, highest)
    span = highest - lowest
    assert changed.min() >= lowest - 1e-5 * span
    assert changed.max() <= highest + 1e-5 * span
    assert changed.max() - changed.min() > 0.9 * span


def test_other_ranges_are_changed_alike() -> None:
    unit = photographs()
    expected = jitter(unit)
    for lowest, highest in ((-1.0, 1.0), (0.0, 255.0)):
        span = highest - lowest
        changed = jitter(unit * span + lowest, lowest, highest)
        np.testing.assert_allclose((changed - lowest) / span, expected, atol=2e-5)


def test_the_same_seed_changes_the_same_way() -> None:
    images = photographs()
    np.testing.assert_array_equal(jitter(images), jitter(images))
    assert not np.allclose(jitter(images), jitter(images, seed=SEED + 1), atol=1e-2)


def test_images_of_a_batch_change_differently() -> None:
    images = np.repeat(photographs()[:1], 16, axis=0)
    changed = jitter(images)
    assert changed.shape == images.shape
    for i in range(1, 16):
        assert not np.allclose(changed[0], changed[i], atol=1e-3)


def test_brightness_and_contrast_of_gray_images() -> None:
    """Each image is scaled about its mean by two numbers from 0.6 to 1.4, then cut off."""
    images = photographs(channels=1, lowest=0.3, highest=0.5)
    brightness, contrast = [], []
    for image, changed in zip(images, jitter(images), strict=True):
        slope, offset = np.polyfit(image.ravel(), changed.ravel(), 1)
        np.testing.assert_allclose(changed, slope * image + offset, atol=1e-5)
        brightness.append(changed.mean() / image.mean())
        contrast.append(slope / brightness[-1])
    for factors in (brightness, contrast):
        assert min(factors) >= 0.6 - 1e-4
        assert max(factors) <= 1.4 + 1e-4
        assert max(factors) - min(factors) > 0.4


def test_hue_and_saturation_of_colours_change() -> None:
    """A gray image in three channels has neither, and stays gray; a coloured one does not."""
    gray = np.repeat(photographs(1, 0.3, 0.5), 3, axis=-1)
    changed = jitter(gray)
    np.testing.assert_allclose(changed[..., 0], changed[..., 1], atol=1e-5)
    red = np.broadcast_to(np.float32([0.5, 0.3, 0.3]), (16, 8, 8, 3))
    hues = tf.image.rgb_to_hsv(jitter(red)).numpy()[:, 0, 0, 0]
    turned = (hues + 0.5) % 1 - 0.5
    assert np.abs(turned).max() <= 0.2 + 1e-4
    assert turned.max() - turned.min() > 0.2


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_numbers_of_channels_keep_their_shape(channels: int) -> None:
    images = photographs(channels)
    assert jitter(images).shape == images.shape


def test_it_runs_in_a_pipeline_of_unknown_batch_size() -> None:
    data = tf.data.Dataset.from_tensor_slices(photographs()).batch(5)
    changed = data.map(lambda images: color_jitter(images, SEED, lowest=0.0, highest=1.0))
    assert changed.element_spec.shape[1:] == (8, 8, 3)
    assert [len(batch) for batch in changed] == [5, 5, 5, 1]
