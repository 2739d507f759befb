"""Images to convert with, as a user gives them: arrays, by name, or a data set."""

from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.deploy.export import input_shapes
from larq_nas.errors import InputError

__all__ = ["first_images", "read_images"]


def first_images(data: tf.data.Dataset, examples: int) -> np.ndarray:
    """Return the first images of a batched data set, float32."""
    return _first(data, examples)[0][0].astype("float32")


def read_images(
    data: Any, model: tf.keras.Model, examples: int, argument: str = "data"
) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Return images, one array for each input of a model, and their labels, if known.

    # Arguments
        data: an array, a list of arrays or a dictionary for several inputs, or a batched data set
            of images or `(image, label)`; `None` for random numbers.
        model: a functional model of static shapes.
        examples: number of images, at most.
        argument: name of the argument that the user gave, for errors.

    # Raises
        InputError: if these are no images for the model.
    """
    shapes = input_shapes(model)
    dtypes = [tf.as_dtype(tensor.dtype).as_numpy_dtype for tensor in model.inputs]
    if data is None:
        # An embedding takes no numbers above its own.
        sizes = [getattr(layer, "input_dim", None) or 128 for layer in model._flatten_layers()]
        below = min(sizes)
        pairs = zip(shapes, dtypes, strict=True)
        return [_random(examples, *pair, below) for pair in pairs], None
    labels = None
    if isinstance(data, tf.data.Dataset):
        data, labels = _first(data, examples, model, argument)
    if isinstance(data, dict):
        data = _in_order(data, model, argument)
    given = list(data) if isinstance(data, list | tuple) and len(shapes) == len(data) else [data]
    if len(given) != len(shapes):
        raise InputError(
            f"`{argument}` must hold an array for each of the {len(shapes)} inputs, but got "
            f"{len(given)}."
        )
    found = [_images(*each, examples, argument) for each in zip(given, shapes, dtypes, strict=True)]
    if len({len(images) for images in found}) > 1:
        raise InputError(
            f"`{argument}` must hold as many images for each input, but got "
            f"{', '.join(str(len(images)) for images in found)}."
        )
    return found, labels


def _first(
    data: tf.data.Dataset,
    examples: int,
    model: tf.keras.Model | None = None,
    argument: str = "data",
) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Return the first images of a batched data set, one array for each input, and their labels."""
    batches: list[list[np.ndarray]] = []
    labels: list[np.ndarray] = []
    for batch in data:
        images = batch[0] if isinstance(batch, tuple) else batch
        named = isinstance(images, dict) and model is not None
        given = _in_order(images, model, argument) if named else tf.nest.flatten(images)
        if not given or not all(isinstance(image, tf.Tensor) for image in given):
            raise InputError(
                f"`{argument}` must hold images or (image, label), but got {type(batch)}."
            )
        batches.append([image.numpy() for image in given])
        if isinstance(batch, tuple) and len(batch) > 1 and isinstance(batch[1], tf.Tensor):
            labels.append(batch[1].numpy())
        if sum(len(images[0]) for images in batches) >= examples:
            break
    if not batches:
        raise InputError(f"`{argument}` must hold images, but it is empty.")
    known = len(labels) == len(batches)
    found = [np.concatenate(parts)[:examples] for parts in zip(*batches, strict=True)]
    return found, np.concatenate(labels)[:examples] if known else None


def _in_order(data: dict[str, Any], model: tf.keras.Model, argument: str) -> list[Any]:
    """Return data that is given by name in the order of the model's inputs."""
    own = model._nested_inputs
    # A model that takes a dictionary is given by its keys; Keras orders these by the alphabet.
    names = sorted(own) if isinstance(own, dict) else model.input_names
    if set(data) != set(names):
        raise InputError(
            f"`{argument}` must hold {', '.join(f'`{name}`' for name in names)}, but holds "
            f"{', '.join(f'`{name}`' for name in data)}."
        )
    return [data[name] for name in names]


def _random(examples: int, shape: tuple[int, ...], dtype: Any, below: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    if np.issubdtype(dtype, np.integer):
        return generator.integers(0, below, (examples, *shape)).astype(dtype)
    images: np.ndarray = generator.standard_normal((examples, *shape)).astype(dtype)
    return images


def _images(
    data: Any, shape: tuple[int, ...], dtype: Any, examples: int, argument: str
) -> np.ndarray:
    try:
        numbers = np.asarray(data)
        images: np.ndarray = numbers.astype(dtype)
    except (TypeError, ValueError):
        numbers = images = np.zeros(())
    if np.iscomplexobj(numbers) or (
        np.issubdtype(dtype, np.integer) and not np.array_equal(numbers, images)
    ):
        raise InputError(
            f"`{argument}` must hold numbers of type {np.dtype(dtype).name}, as the model reads "
            f"them, but holds others ({numbers.dtype}): give the images as the model is given them."
        )
    if images.ndim != len(shape) + 1:
        raise InputError(
            f"`{argument}` must be an array of images of shape {shape}, or a tf.data.Dataset of "
            f"batches of them, but got {type(data).__name__}"
            f"{f' of shape {data.shape}' if isinstance(data, np.ndarray) else ''}."
        )
    images = images[:examples]
    if images.shape[1:] != shape or not len(images):
        raise InputError(
            f"`{argument}` must hold images of shape {shape}, but got {len(images)} of shape "
            f"{images.shape[1:]}."
        )
    if not np.isfinite(images).all():
        raise InputError(f"`{argument}` must be finite, but holds NaN or Inf: mend the images.")
    return images
