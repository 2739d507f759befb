"""Whether a network goes for other widths, found out before it is trained."""

import numpy as np
import tensorflow as tf

from larq_nas.dimension.dimensions import Dimensions
from larq_nas.dimension.supernet import Supernet
from larq_nas.errors import InputError, first_line
from larq_nas.expansion import at
from larq_nas.pipeline.check import DataFacts
from larq_nas.resizing import latent

__all__ = ["require_widths"]

_IMAGES = 2
_TOLERANCE = 1e-4


def require_widths(supernet: Supernet, dimensions: Dimensions, facts: DataFacts) -> None:
    """Raise `InputError` for a network that does not go for widths that differ.

    Each choice is given a width of its own for a moment, and the network is computed; then
    what is not sampled is changed, which must change no output.

    # Arguments
        supernet: the network, not traced yet.
        dimensions: its widths.
        facts: the images.
    """
    _require_use(supernet, dimensions)
    weights = [latent(part.weight) for part in supernet.parts]
    kept, widths = [weight.numpy() for weight in weights], dimensions.widths.numpy()
    generator = np.random.default_rng(0)
    images = tf.constant(generator.normal(size=(_IMAGES, *facts.input_shape)), tf.float32)
    try:
        # No two as wide, where they were; half of the channels of each are not sampled.
        high = widths.max(axis=1) + np.arange(len(widths))
        dimensions.widths.assign(np.stack([high - high // 2, high, high], axis=1))
        supernet.resize(0)
        compute = tf.function(lambda: _narrowest(supernet, images))
        before = compute().numpy()
        _disturb(supernet, dimensions, generator)
        after = compute().numpy()
    except (TypeError, ValueError, tf.errors.InvalidArgumentError) as error:
        raise InputError(
            "The network cannot be computed for widths that differ; where what a layer needs is "
            f"tied to another's width, ask for both by one name. {first_line(error)}."
        ) from error
    finally:
        dimensions.widths.assign(widths)
        supernet.follow()
        for weight, value in zip(weights, kept, strict=True):
            weight.assign(value)
    # Written so that what is not a number is refused too.
    if not np.abs(after - before).max() <= _TOLERANCE * max(1.0, float(np.abs(before).max())):
        raise InputError(
            "A layer that is no convolution or dense layer mixes channels whose number is searched "
            "(as LayerNormalization does, or a softmax over them): leave it out, or give what it "
            "reads a fixed width."
        )


def _require_use(supernet: Supernet, dimensions: Dimensions) -> None:
    usual = dimensions.widest()
    for name in dimensions.names:
        other = {**usual, name: usual[name] + 64}
        made = (one for part in supernet.parts for axis in part.axes.values() for one in axis.parts)
        if all(at(one, other) == at(one, usual) for one in made):
            raise InputError(
                f"Choice `{name}` must set the width of a layer, but no weight follows from it."
            )


def _narrowest(supernet: Supernet, images: tf.Tensor) -> tf.Tensor:
    shares = tf.one_hot(tf.zeros(len(supernet.masks.dimensions.names), tf.int32), 3)
    with supernet.masks.using(shares):
        # What is drawn at random would differ.
        return supernet.network(images, training=False)


def _disturb(supernet: Supernet, dimensions: Dimensions, generator: np.random.Generator) -> None:
    """Change what makes the channels that the narrowest widths do not have."""
    widest = dimensions.widest()
    narrow = dict(zip(dimensions.names, dimensions.widths.numpy()[:, 0].tolist(), strict=True))
    for part in supernet.parts:
        if not part.axes:
            continue
        axis, weight = max(part.axes), latent(part.weight)
        values = weight.numpy()
        beyond = np.setdiff1d(np.arange(values.shape[axis]), part.axes[axis].taken(narrow, widest))
        # Of what reads alone, the last axis is not searched, and nothing is beyond.
        index = (*[slice(None)] * axis, beyond)
        # Upwards: a variance stays one.
        values[index] += np.abs(generator.normal(size=values[index].shape))
        weight.assign(values)
