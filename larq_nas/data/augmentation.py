"""Random changes to training images, repeatable by their seed."""

import functools
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import tensorflow as tf

from larq_nas.errors import DivergenceError, InputError, first_line, unknown_name, warn

Augment: TypeAlias = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""Takes images `(batch, height, width, channels)` and a seed `(2,)`; returns new images."""

AugmentLike: TypeAlias = str | Augment | Sequence[tf.keras.layers.Layer]
"""The name of an augmentation, a function, or layers of Keras."""


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


_AREA, _ASPECT, _TRIALS = (0.08, 1.0), (3 / 4, 4 / 3), 10


def resized_crop(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Take a part of each image, resized to 7/8 of height and width, and mirror every other one.

    Its area is 8 to 100 % of the image's, and its width 3/4 to 4/3 of its height: of images of 256
    pixels it makes 224, as on ImageNet (BNAS as released, PyTorch's `RandomResizedCrop`).
    """
    sizes = [images.shape[axis] * 7 // 8 for axis in (1, 2)]
    cropping, mirroring = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    boxes = resized_boxes(tf.shape(images)[0], images.shape[1], images.shape[2], cropping)
    # Corners are the centres of pixels, in shares of the last. One pixel more holds what rounding
    # puts behind the image, which would be black.
    padded = tf.pad(images, [[0, 0], [0, 1], [0, 1], [0, 0]], "SYMMETRIC")
    last = tf.constant([images.shape[1], images.shape[2]] * 2, tf.float32)
    ends = tf.concat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:] - 1], axis=1)
    taken = tf.image.crop_and_resize(padded, ends / last, tf.range(tf.shape(images)[0]), sizes)
    mirrored = tf.random.stateless_uniform([tf.shape(images)[0], 1, 1, 1], mirroring) < 0.5
    return tf.where(mirrored, tf.reverse(taken, [2]), taken)


def resized_boxes(batch: tf.Tensor, height: int, width: int, seed: tf.Tensor) -> tf.Tensor:
    """Return top, left, height and width of a part of each image, shape `(batch, 4)`.

    Of ten drawn the first that fits into the image; the whole image if none does.
    """
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
    drawn = [batch, _TRIALS]
    area = height * width * tf.random.stateless_uniform(drawn, seeds[0], *_AREA)
    aspect = tf.exp(tf.random.stateless_uniform(drawn, seeds[1], *map(math.log, _ASPECT)))
    whole = tf.broadcast_to(tf.constant([[[height, width]]], tf.float32), [batch, 1, 2])
    sizes = tf.round(tf.stack([tf.sqrt(area / aspect), tf.sqrt(area * aspect)], axis=-1))
    sizes = tf.concat([sizes, whole], axis=1)
    fits = tf.reduce_all((sizes >= 1) & (sizes <= whole), axis=-1)
    size = tf.gather(sizes, tf.argmax(tf.cast(fits, tf.int32), axis=1), batch_dims=1)
    free = tf.squeeze(whole, 1) - size + 1
    return tf.concat([tf.floor(free * tf.random.stateless_uniform([batch, 2], seeds[2])), size], 1)


_BY_NAME: dict[str, Augment] = {
    "crop": crop,
    "cutout": cutout,
    "resized_crop": resized_crop,
    "standard": pad_crop_flip,
}


class KeyedGenerator:
    """The random generator of a Keras layer, drawing by a key in place of a state of its own."""

    def __init__(self, key: tf.Tensor) -> None:
        self._key, self._count = key, 0

    def _maybe_init(self) -> None:
        """Nothing: there is no state."""

    def make_legacy_seed(self) -> None:
        """Nothing: where there is a seed for stateless operations, it is not used."""

    def make_seed_for_stateless_op(self) -> tf.Tensor:
        """Return the next seed."""
        self._count += 1
        return tf.random.experimental.stateless_fold_in(self._key, self._count)

    def random_uniform(
        self,
        shape: Any,
        minval: Any = 0.0,
        maxval: Any = None,
        dtype: Any = None,
        nonce: Any = None,
    ) -> tf.Tensor:
        seed, highest = self.make_seed_for_stateless_op(), 1 if maxval is None else maxval
        return tf.random.stateless_uniform(shape, seed, minval, highest, dtype or tf.float32)

    def random_normal(
        self, shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = None, nonce: Any = None
    ) -> tf.Tensor:
        seed = self.make_seed_for_stateless_op()
        return tf.random.stateless_normal(shape, seed, mean, stddev, dtype or tf.float32)

    def truncated_normal(
        self, shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = None, nonce: Any = None
    ) -> tf.Tensor:
        seed = self.make_seed_for_stateless_op()
        return tf.random.stateless_truncated_normal(shape, seed, mean, stddev, dtype or tf.float32)

    def dropout(self, inputs: tf.Tensor, rate: Any, noise_shape: Any = None) -> tf.Tensor:
        seed = self.make_seed_for_stateless_op()
        return tf.nn.experimental.stateless_dropout(inputs, rate, seed, noise_shape=noise_shape)


@dataclass(frozen=True)
class LayerAugment:
    """A Keras layer, or a model of them, such as `RandomFlip`, as an augmentation."""

    layer: tf.keras.layers.Layer

    def __call__(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        drawing = [one for one in self.layer._flatten_layers() if hasattr(one, _GENERATOR)]
        with ExitStack() as stack:
            for place, one in enumerate(drawing):
                key = tf.random.experimental.stateless_fold_in(seed, place)
                # Set as Keras sets attributes, it would be tracked.
                own = getattr(one, _GENERATOR)
                object.__setattr__(one, _GENERATOR, KeyedGenerator(key))
                stack.callback(object.__setattr__, one, _GENERATOR, own)
            return _called(self.layer, images)

    def describe(self) -> str:
        """Return its kind, and a digest of its settings but for names, which Keras numbers."""
        config = json.dumps(self.layer.get_config(), sort_keys=True, default=str)
        digest = hashlib.sha256(_NAME.sub("", config).encode()).hexdigest()[:8]
        return f"{type(self.layer).__name__} {digest}"


def _called(layer: tf.keras.layers.Layer, images: tf.Tensor) -> tf.Tensor:
    # A model of a sequence calls its layers once more whenever the shape of images is a new one.
    if isinstance(layer, tf.keras.Sequential):
        return functools.reduce(lambda made, one: _called(one, made), layer.layers, images)
    return layer(images, training=True) if layer._expects_training_arg else layer(images)


_GENERATOR = "_random_generator"
_NAME = re.compile(r'"name": "[^"]*"')


def resolve_augment(augment: Any) -> Augment | None:
    """Return the augmentation that a name, a Keras layer or a function stands for."""
    listed = list(augment) if isinstance(augment, list | tuple) else [augment]
    for one in listed:
        if isinstance(one, type) and issubclass(one, tf.keras.layers.Layer):
            raise InputError(f"`augment` must be an instance, such as {one.__name__}(...).")
    if listed and all(isinstance(one, tf.keras.layers.Layer) for one in listed):
        try:
            return LayerAugment(augment if augment is listed[0] else tf.keras.Sequential(listed))
        except ValueError as error:
            raise InputError(f"`augment` cannot be a sequence: {first_line(error)}.") from error
    if augment is None or callable(augment):
        found: Augment | None = augment
        return found
    if not isinstance(augment, str):
        raise InputError(
            f"`augment` must be a name, a Keras layer or several, a function or None, but got "
            f"{augment!r}."
        )
    if augment not in _BY_NAME:
        raise InputError(
            f"{unknown_name('augmentation', augment, _BY_NAME)} In Python it may be a Keras layer, "
            'such as tf.keras.layers.RandomFlip("horizontal").'
        )
    return _BY_NAME[augment]


_CHECKED, _KEYS = 8, 4


def check_augment(
    augment: Augment | None, input_shape: tuple[int, int, int], images: tf.Tensor
) -> None:
    """Raise `InputError` if `augment` fails on images, gives another shape, or what is not finite.

    It warns if the same seed gives other images the next time.
    """
    if augment is None:
        return
    images = tf.cast(images[:_CHECKED], tf.float32)
    keys = [tf.constant([number, 1], tf.int64) for number in range(_KEYS)]
    # Traced, as it is in a pipeline.
    traced = tf.function(lambda batch, key: tf.convert_to_tensor(augment(batch, key)))
    made = []
    for key in keys:
        try:
            made.append(traced(images, key))
        except Exception as error:
            raise InputError(
                f"`augment` must take images and a seed and return images: {first_line(error)}."
            ) from error
        if made[-1].shape != (len(images), *input_shape):
            raise InputError(
                f"`augment` must give as many images of the shape of `validation`, {input_shape}, "
                f"but gave {tuple(made[-1].shape)} for those of `train`, {tuple(images.shape)}."
            )
        if not tf.reduce_all(tf.math.is_finite(tf.cast(made[-1], tf.float32))):
            raise InputError(f"{AUGMENT_GAVE} for images of `train`, which are finite: mend it.")
    if isinstance(augment, LayerAugment):
        _require_nothing_to_train(augment.layer)
    _warn_of_another_range(augment, images, tf.cast(tf.stack(made), tf.float32))
    if tf.reduce_all(made[0] == traced(images, keys[0])):
        return
    told = (
        f"`augment` ({describe(augment)}) gives other images for the same seed, so the run cannot "
        "be repeated or resumed with the same result: draw by tf.random.stateless_uniform(..., "
        "seed)"
    )
    if isinstance(augment, LayerAugment):
        raise InputError(f"{told}, in a function of (images, seed) that calls the layer.")
    warn(f"{told}.")


def _require_nothing_to_train(layer: tf.keras.layers.Layer) -> None:
    """Raise `InputError` for a layer with weights that nothing would train."""
    trained = [one for one in layer._flatten_layers() if one._trainable_weights]
    if trained:
        kind = type(trained[0]).__name__
        raise InputError(
            f"`augment` must have nothing to train, but has `{trained[0].name}` ({kind}): make it "
            "a part of the network."
        )


def _warn_of_another_range(augment: Augment, images: tf.Tensor, made: tf.Tensor) -> None:
    """Warn of training images that `augment` brings out of the range of those measured on."""
    lowest, highest = float(tf.reduce_min(images)), float(tf.reduce_max(images))
    least, most = float(tf.reduce_min(made)), float(tf.reduce_max(made))
    width = highest - lowest
    # Black or gray around an image is in no range of its own.
    inside = min(lowest - 2 * width, 0) <= least and most <= max(highest + 2 * width, 0)
    if width > 0 and not (inside and most - least >= width / 4):
        warn(
            f"`augment` ({describe(augment)}) brings images of {lowest:.4g} to {highest:.4g} to "
            f"{least:.4g} to {most:.4g}, and leaves those of `validation`: set its range "
            "(`value_range` of Keras's layers), or give `preprocessing` what is for both."
        )


AUGMENT_GAVE = "`augment` gave numbers that are not finite"


def finite(images: tf.Tensor, augment: Augment) -> tf.Tensor:
    """Return images, of which an augmentation of one's own may not have made NaN or infinity."""
    if augment in _BY_NAME.values():
        return images
    return tf.debugging.check_numerics(images, AUGMENT_GAVE)


@contextmanager
def naming_augment(
    error_of: Callable[[str], DivergenceError] = DivergenceError,
) -> Iterator[None]:
    """Raise `DivergenceError`, as `error_of` words it, where `finite` found NaN or infinity."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        if AUGMENT_GAVE not in str(error):
            raise
        raise error_of(AUGMENT_GAVE) from error


def describe(augment: Augment | None) -> str | None:
    """Return what tells one augmentation from another in a run's settings."""
    if isinstance(augment, LayerAugment):
        return augment.describe()
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
