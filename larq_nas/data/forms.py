"""Forms in which data may be given, and batches of `(images, labels)` of each."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from larq_nas.errors import InputError, first_line, warn

Arrays: TypeAlias = tuple[Any, Any] | tuple[Any, Any, Any]
"""Images and labels, and sample weights if there are any: NumPy arrays, tensors or lists."""

DataLike: TypeAlias = tf.data.Dataset | Arrays
"""A batched `tf.data.Dataset` of `(images, labels)`, or arrays."""

Tell: TypeAlias = Callable[[str], None]
"""Shows a line, if the user wants to read any."""

BATCH, _LEAST_BATCH = 96, 8
IMAGE_KEYS, LABEL_KEYS = ("image", "images"), ("label", "labels")
_PARTS = ("images", "labels", "sample weights")


def read_batches(name: str, given: Any, tell: Tell) -> tf.data.Dataset:
    """Return batches of `(images, labels)` or `(images, labels, weights)`, as the data has them.

    Images have a static shape `(batch, height, width, channels)`, labels and weights a static rank.

    # Raises
        InputError: if the data has another form, or ends never.
    """
    if isinstance(given, Mapping):
        image, label = _keys(name, given)
        given = given[image], given[label]
    if isinstance(given, list | tuple):
        arrays = read_arrays(name, given)
        # An epoch of few images has ten steps or so too.
        size = min(BATCH, max(_LEAST_BATCH, len(arrays[0]) // 10), len(arrays[0]))
        tell(f"`{name}`: arrays of {len(arrays[0]):,} images, in batches of {size}")
        given = tf.data.Dataset.from_tensor_slices(tuple(arrays)).batch(size)
    elif not isinstance(given, tf.data.Dataset):
        share = ", or a share of `train` such as 0.2" if name != "train" else ""
        raise InputError(
            f"`{name}` must be a tf.data.Dataset of (images, labels) batches, or arrays (images, "
            f"labels){share}, but got {type(given).__name__}{_mend_of_type(given)}."
        )
    _require_end(name, given)
    batches = _with_parts(name, given)
    if any(spec.shape.rank is None or None in spec.shape[1:] for spec in batches.element_spec):
        batches = _with_shapes(name, batches)
    check_ranks(name, *batches.element_spec)
    images = batches.element_spec[0]
    if images.shape.rank == 3:
        height, width = images.shape[1:]
        tell(f"`{name}`: {height}x{width} numbers are taken for an image of one channel")
        batches = batches.map(lambda images, *rest: (images[..., None], *rest))
    warn_if_channels_first(name, images.shape[1:])
    return batches


def _mend_of_type(given: Any) -> str:
    if isinstance(given, tf.keras.utils.Sequence):
        return ": give its arrays, or read its files by image_dataset_from_directory of Keras"
    if isinstance(given, np.ndarray) or tf.is_tensor(given):
        return ": give the labels too, as (images, labels)"
    if isinstance(given, str | Path):
        return (
            f': load it, with train, validation = larq_nas.datasets.load("{given}") or '
            "image_dataset_from_directory of Keras"
        )
    if callable(given) or hasattr(given, "__next__"):
        return ": make one with tf.data.Dataset.from_generator"
    return ""


def read_arrays(name: str, given: Any) -> list[np.ndarray]:
    """Return images, labels and sample weights, if any, as NumPy's arrays of one length.

    # Raises
        InputError: if they are no such arrays.
    """
    if len(given) > 1 and all(map(_is_pair, given)):
        raise InputError(
            f"`{name}` must hold all images and all labels, but got {len(given)} pairs of them: "
            "join these, as images, labels = map(np.concatenate, zip(*pairs)) for batches, or with "
            "np.stack for single images."
        )
    if len(given) not in (2, 3):
        raise InputError(
            f"`{name}` must hold (images, labels) or (images, labels, sample weights), but has "
            f"{len(given)} parts."
        )
    if any(isinstance(part, tf.data.Dataset) for part in given):
        raise InputError(
            f"`{name}` must be one tf.data.Dataset, but got several: join them with "
            "tf.data.Dataset.zip((images, labels))."
        )
    arrays = [_array(name, what, part) for what, part in zip(_PARTS, given, strict=False)]
    if arrays[0].ndim < 2:
        swapped = ": labels come second" if arrays[1].ndim > 2 else ""
        raise InputError(
            f"`{name}` must hold (images, labels), but its images have the shape "
            f"{arrays[0].shape}{swapped}."
        )
    for what, array in zip(_PARTS[1:], arrays[1:], strict=False):
        if array.ndim == 0 or len(array) != len(arrays[0]):
            count = len(array) if array.ndim else 1
            raise InputError(
                f"`{name}` must hold as many {what} as images, {len(arrays[0]):,}, but has "
                f"{count:,}."
            )
    if not len(arrays[0]):
        raise InputError(f"`{name}` must hold images, but it is empty.")
    return arrays


def _is_pair(part: Any) -> bool:
    """Return whether it is a pair of images and labels, of a batch or of one image."""
    if not isinstance(part, list | tuple) or len(part) not in (2, 3):
        return False
    images, labels = (len(getattr(one, "shape", ())) for one in part[:2])
    return images > 1 and images > labels


def _array(name: str, what: str, given: Any) -> np.ndarray:
    if isinstance(given, tf.SparseTensor) or hasattr(given, "toarray"):
        raise InputError(
            f"`{name}` must hold {what} in plain arrays, but got a {type(given).__name__}: turn it "
            "with tf.sparse.to_dense, or .toarray() of SciPy."
        )
    if isinstance(given, tf.RaggedTensor):
        raise InputError(
            f"`{name}` must hold {what} of one shape, but got a {type(given).__name__}{_mend(what)}"
        )
    if any(map(np.ma.is_masked, given if isinstance(given, list | tuple) else [given])):
        raise InputError(
            f"`{name}` must hold {what} without a mask, which is not read: put numbers there with "
            ".filled(number), or leave those images out."
        )
    try:
        array = np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(
            f"`{name}` must hold {what} of one shape ({first_line(error)}){_mend(what)}"
        ) from None
    if array.dtype == object and not any(isinstance(one, str | bytes) for one in array.flat):
        array = _of_objects(array)
    if array.dtype.kind in "mMV":
        raise InputError(f"`{name}` must hold {what} of numbers, but got {array.dtype}.")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)  # TensorFlow has no longer ones
    if array.dtype == object:
        if not all(isinstance(value, str | bytes) for value in array.flat):
            kinds = sorted({type(value).__name__ for value in array.flat})
            raise InputError(
                f"`{name}` must hold {what} of one shape and type, but got an array of objects "
                f"({', '.join(kinds[:4])}){_mend(what)}"
            )
        array = array.astype(bytes if isinstance(array.flat[0], bytes) else str)
    if array.dtype.kind == "U":
        array = np.char.encode(array, "utf-8")
    return array


def _of_objects(array: np.ndarray) -> np.ndarray:
    """Return an array of the numbers that objects are, or it as it is."""
    try:
        return np.array(array.tolist())
    except (ValueError, TypeError):
        return array


def _mend(what: str) -> str:
    if what != "images":
        return ": give an array of one number for each image."
    return ": resize the images to one size, with tf.image.resize, and stack them with np.stack."


def _require_end(name: str, data: tf.data.Dataset) -> None:
    cardinality = int(data.cardinality())
    if cardinality == tf.data.INFINITE_CARDINALITY:
        raise InputError(f"`{name}` must end: remove .repeat(), or add .take(batches).")
    if cardinality == 0:
        raise InputError(f"`{name}` must hold images, but it is empty.")


def _with_parts(name: str, data: tf.data.Dataset) -> tf.data.Dataset:
    """Return data whose elements are tuples of two or three tensors."""
    spec = data.element_spec
    if isinstance(spec, Mapping):
        image, label = _keys(name, spec)
        data = data.map(lambda example: (example[image], example[label]))
    elif isinstance(spec, tuple) and any(isinstance(part, Mapping | tuple) for part in spec):
        if any(len(tf.nest.flatten(part)) != 1 for part in spec):
            raise InputError(
                f"`{name}` must hold one tensor of images and one of labels, but holds {_of(spec)}:"
                " add .map(lambda x, y: (...)) that takes one of each; networks have one input and "
                "one output."
            )
        data = data.map(lambda *parts: tuple(tf.nest.flatten(part)[0] for part in parts))
    spec = data.element_spec
    if not isinstance(spec, tuple) or len(spec) < 2:
        raise InputError(
            f"`{name}` must hold (images, labels) pairs, but has no labels: {_of(spec)}."
        )
    if len(spec) > 3:
        raise InputError(
            f"`{name}` must hold (images, labels) or (images, labels, sample weights), but its "
            f"elements have {len(spec)} parts."
        )
    for what, part in zip(_PARTS, spec, strict=False):
        if isinstance(part, tf.RaggedTensorSpec) and what == "images":
            raise InputError(
                f"`{name}` must hold images of one size, but holds ragged ones: before .batch, add "
                ".map(lambda image, label: (tf.image.resize(image, (height, width)), label))."
            )
        if isinstance(part, tf.data.DatasetSpec):
            raise InputError(
                f"`{name}` must hold batches, but holds data sets, as .window makes them: use "
                f".batch({BATCH}) in its place."
            )
        if isinstance(part, tf.SparseTensorSpec):
            raise InputError(
                f"`{name}` must hold {what} in plain tensors, but holds sparse ones: add .map with "
                "tf.sparse.to_dense."
            )
        if not isinstance(part, tf.TensorSpec):
            raise InputError(
                f"`{name}` must hold {what} in a plain tensor, but got {type(part).__name__}: one "
                "label for each image (multi-label data is not supported)."
            )
    return data


def _keys(name: str, given: Mapping[Any, Any]) -> tuple[str, str]:
    """Return what images and labels are called in a dictionary of them."""
    keys = [[key for key in known if key in given] for known in (IMAGE_KEYS, LABEL_KEYS)]
    if any(len(found) != 1 for found in keys):
        are_arrays = not all(isinstance(part, tf.TypeSpec) for part in given.values())
        mend = (
            'give (data["image"], data["label"])'
            if are_arrays
            else 'add .map(lambda d: (d["image"], d["label"]))'
        )
        shown = ", ".join(f'"{key}"' for key in given)
        raise InputError(
            f"`{name}` must hold (images, labels) pairs, but holds "
            f"{'a dictionary' if are_arrays else 'dictionaries'} of {shown}: {mend}, with its own "
            "keys."
        )
    image, label = (found[0] for found in keys)
    return image, label


def _of(spec: Any) -> str:
    return " ".join(str(spec).split())


def read_all(name: str, data: tf.data.Dataset) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield the batches of a pass over the data, or raise `InputError`."""
    try:
        yield from data.as_numpy_iterator()
    except tf.errors.OpError as error:
        raise InputError(f"`{name}` cannot be read: {first_line(error)}.") from error


def _with_shapes(name: str, batches: tf.data.Dataset) -> tf.data.Dataset:
    """Return data with the shapes that its batches have."""
    # TensorFlow's `.cache()` may keep a part that was read for the whole: all is read.
    found = {tuple(np.shape(part) for part in batch) for batch in read_all(name, batches)}
    if not found:
        raise InputError(f"`{name}` must hold images, but it is empty.")
    shapes = min(found)
    if not all(shapes):
        raise _not_batched(name)
    sizes = sorted({images[1:] for images, *_ in found})
    if len(sizes) > 1:
        raise InputError(
            f"`{name}` must hold images of one shape, but its batches differ ({sizes[0]} and "
            f"{sizes[1]}): resize the images to one size, with tf.image.resize."
        )

    def shaped(*parts: tf.Tensor) -> Any:
        return tuple(
            tf.ensure_shape(part, (None, *shape[1:]))
            for part, shape in zip(parts, shapes, strict=True)
        )

    return batches.map(shaped)


def check_ranks(name: str, images: Any, labels: Any, weights: Any = None) -> None:
    """Raise `InputError` for batches of another form than that of images, labels and weights."""
    if images.dtype == tf.string:
        raise InputError(
            f"`{name}` must hold images, but got strings: decode files with tf.io.decode_image, or "
            "read a folder with tf.keras.utils.image_dataset_from_directory."
        )
    rank, of_labels = images.shape.rank, labels.shape.rank
    if of_labels == 0 or (rank == 3 and of_labels == 1 and _is_single(images, labels)):
        raise _not_batched(name)
    if rank in (0, 1) and (of_labels or 0) > 2:
        raise InputError(f"`{name}` must hold (images, labels), but its labels come first: swap.")
    if rank == 2:
        raise InputError(
            f"`{name}` must hold images, but got rows of {images.shape[1]} numbers: reshape them, "
            "with tf.reshape(images, (-1, height, width, channels))."
        )
    if rank is not None and rank > 4:
        is_twice = (of_labels or 0) > 1 and labels.shape[1] == images.shape[1]
        mend = (
            "leave one .batch out, or add .unbatch()"
            if is_twice
            else ("reshape them, or take one picture of each; videos and volumes are not supported")
        )
        raise InputError(
            f"`{name}` must hold images of shape (batch, height, width, channels), but got "
            f"{'batches of batches, ' if is_twice else ''}{images.shape}: {mend}."
        )
    if rank not in (3, 4) or None in images.shape[1:] or 0 in images.shape[1:]:
        raise InputError(
            f"`{name}` must hold images of one shape (batch, height, width, channels), but got "
            f"{images.shape}: resize them, or add .map with tf.ensure_shape."
        )
    # NumPy, which reads the examples, has no bfloat16.
    if not (images.dtype.is_floating or images.dtype.is_integer) or images.dtype == tf.bfloat16:
        raise InputError(
            f"`{name}` must hold images of whole or real numbers, but got "
            f"{images.dtype.name}: turn them with tf.cast(images, tf.float32)."
        )
    if of_labels not in (1, 2):
        raise InputError(
            f"`{name}` must hold one label for each image, but got labels of shape "
            f"{labels.shape}: maps of labels (segmentation) are not supported."
        )
    if weights is not None and (
        weights.shape.rank not in (1, 2)
        or (weights.shape.rank == 2 and weights.shape[1] != 1)
        or not (weights.dtype.is_floating or weights.dtype.is_integer)
    ):
        raise InputError(
            f"`{name}` must hold one sample weight for each image, but got weights of "
            f"{weights.dtype.name} {weights.shape}."
        )


def _not_batched(name: str) -> InputError:
    return InputError(f"`{name}` must be batched: add .batch({BATCH}), it holds single images.")


def _is_single(images: Any, labels: Any) -> bool:
    """Return whether images of rank 3 are single ones, with one-hot labels."""
    whole = images.shape.is_fully_defined() and labels.shape.is_fully_defined()
    return whole and images.shape[0] != labels.shape[0]


def warn_if_channels_first(name: str, shape: tf.TensorShape) -> None:
    """Warn of the shape of an image that has its channels first."""
    if shape.rank == 3 and shape[0] in (1, 3) and shape[1] == shape[2] and shape[2] > 4:
        warn(
            f"`{name}` holds images of shape {tuple(shape)}, {shape[2]} channels for "
            f"{shape[0]}x{shape[1]} pixels: if the channels come first, put them last with "
            "tf.transpose(images, (0, 2, 3, 1))."
        )
