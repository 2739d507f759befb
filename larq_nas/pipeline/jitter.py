"""Random changes to the colours of images."""

import tensorflow as tf

__all__ = ["color_jitter"]

_STRENGTH, _HUE = 0.4, 0.2


def color_jitter(images: tf.Tensor, seed: tf.Tensor, *, lowest: float, highest: float) -> tf.Tensor:
    """Change brightness, contrast, saturation and hue of each image, as DARTS does.

    Each of the first three is multiplied by a number from 0.6 to 1.4, and the hue turned by
    up to a fifth. Images without three channels keep saturation and hue.

    # Arguments
        images: shape `(batch, height, width, channels)`.
        seed: two integers, shape `(2,)`.
        lowest: the value that stands for black.
        highest: the value that stands for full light.
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
