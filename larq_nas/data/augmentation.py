"""Random changes to training images, repeatable by their seed."""

import functools
from collections.abc import Callable
from typing import TypeAlias

import tensorflow as tf

from larq_nas.errors import InputError, first_line, require_known

Augment: TypeAlias = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""Takes images `(batch, height, width, channels)` and a seed `(2,)`; returns new images."""


def pad_crop_flip(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Shift each image by up to an eighth of its size, and mirror every other one.

    Images are of shape `(batch, height, width, channels)`, as those of all augmentations, and
    seeds are two integers.
    """
    batch = tf.shape(images)[0]
    height, width = images.shape[1], images.shape[2]
    margins = height // 8, width // 8
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
    padding = [[0, 0], [margins[0]] * 2, [margins[1]] * 2, [0, 0]]
    padded = tf.pad(images, padding)
    for axis, size in ((1, height), (2, width)):
        limit = 2 * margins[axis - 1] + 1
        start = tf.random.stateless_uniform([batch, 1], seeds[axis - 1], 0, limit, tf.int32)
        padded = tf.gather(padded, start + tf.range(size), axis=axis, batch_dims=1)
    mirrored = tf.random.stateless_uniform([batch, 1, 1, 1], seeds[2]) < 0.5
    return tf.where(mirrored, tf.reverse(padded, [2]), padded)


def cutout(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Shift and mirror, and set a square of half the image's size to 0, anywhere in it.

    Of 32 pixels these are 16; its centre is in the image, and what is outside is left
    ([DeVries and Taylor](https://arxiv.org/abs/1708.04552)).
    """
    shifting, *seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
    images = pad_crop_flip(images, shifting)
    batch, (height, width) = tf.shape(images)[0], images.shape[1:3]
    reach = min(height, width) // 4
    inside = []
    for key, size in zip(seeds, (height, width), strict=True):
        centre = tf.random.stateless_uniform([batch, 1], key, 0, size, tf.int32)
        distance = tf.range(size)[None] - centre
        inside.append((distance >= -reach) & (distance < reach))
    hole = inside[0][:, :, None, None] & inside[1][:, None, :, None]
    return tf.where(hole, tf.zeros_like(images), images)


def crop(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Take a part of 7/8 of the height and width of each image, anywhere in it.

    Of 256 pixels these are 224, as on ImageNet; for training images that are so much larger than
    those of the validation data (BATS, section 6.2).
    """
    batch = tf.shape(images)[0]
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    for axis, key in enumerate(seeds, 1):
        size = images.shape[axis] * 7 // 8
        start = tf.random.stateless_uniform(
            [batch, 1], key, 0, images.shape[axis] - size + 1, tf.int32
        )
        images = tf.gather(images, start + tf.range(size), axis=axis, batch_dims=1)
    return images


_BY_NAME: dict[str, Augment] = {"crop": crop, "cutout": cutout, "standard": pad_crop_flip}


def resolve_augment(augment: str | Augment | None) -> Augment | None:
    """Return the augmentation a name or a function stands for."""
    if augment is None or callable(augment):
        return augment
    if not isinstance(augment, str):
        raise InputError(f"`augment` must be a name, a function or None, but got {augment!r}.")
    require_known("augmentation", augment, _BY_NAME)
    return _BY_NAME[augment]


def check_augment(
    augment: Augment | None,
    input_shape: tuple[int, int, int],
    train_shape: tuple[int, int, int] | None = None,
) -> None:
    """Raise `InputError` if `augment` fails on two images, or gives another shape."""
    if augment is None:
        return
    images = tf.zeros((2, *(train_shape or input_shape)))
    try:
        shape = tf.convert_to_tensor(augment(images, tf.constant([0, 1], tf.int64))).shape
    except Exception as error:
        raise InputError(
            f"`augment` must take images and a seed and return images: {first_line(error)}."
        ) from error
    if shape != (len(images), *input_shape):
        raise InputError(
            f"`augment` must give as many images of the shape of `validation`, {input_shape}, but "
            f"gave {tuple(shape)} for those of `train`, {tuple(images.shape)}."
        )


def describe(augment: Augment | None) -> str | None:
    """Return what tells one augmentation from another in a run's settings."""
    if isinstance(augment, functools.partial):
        return f"{describe(augment.func)}{augment.args}{augment.keywords}"
    if augment is None:
        return None
    named = augment if hasattr(augment, "__qualname__") else type(augment)
    return f"{named.__module__}.{named.__qualname__}"


_STRENGTH, _HUE = 0.4, 0.2


def color_jitter(images: tf.Tensor, seed: tf.Tensor, *, lowest: float, highest: float) -> tf.Tensor:
    """Change brightness, contrast, saturation and hue of each image, as DARTS does.

    Each of the first three is multiplied by a number from 0.6 to 1.4, and the hue turned by
    up to a fifth. Images without three channels keep saturation and hue. `lowest` and `highest`
    are the values of black and of full light.
    """
    span = max(highest - lowest, 1e-7)
    seeds = tf.random.experimental.stateless_split(seed, tf.shape(images)[0])
    unit = (images - lowest) / span
    changed = tf.map_fn(_changed, (unit, seeds), fn_output_signature=images.dtype)
    return tf.ensure_shape(changed, images.shape) * span + lowest


def _changed(image_and_seed: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
    image, seed = image_and_seed
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4))
    least, most = 1 - _STRENGTH, 1 + _STRENGTH
    image *= tf.random.stateless_uniform((), seeds[0], least, most)
    image = tf.image.stateless_random_contrast(image, least, most, seeds[1])
    image = tf.clip_by_value(image, 0, 1)
    if image.shape[-1] == 3:
        image = tf.image.stateless_random_saturation(image, least, most, seeds[2])
        image = tf.image.stateless_random_hue(image, _HUE, seeds[3])
    return tf.clip_by_value(image, 0, 1)
