"""Data sets by name, and of a user's own: folders of images, arrays and functions."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.data.arrays import ends_of, parts_of, read_npz, split_arrays
from larq_nas.data.folders import read_folder, read_whole_folder
from larq_nas.data.forms import warn_if_channels_first
from larq_nas.errors import (
    InputError,
    LarqNasError,
    first_line,
    is_number,
    require_count,
    require_whole,
    warn,
)
from larq_nas.imports import load_object

__all__ = ["load"]


_CACHE_BYTES = 2**30
_BATCH_SIZE = 96
_BYTES = (0.0, 255.0)
_Pair = tuple[tf.data.Dataset, tf.data.Dataset]


def load(
    source: str | Path,
    batch_size: int | None = None,
    *,
    data_dir: str | None = None,
    train_split: str | None = None,
    validation_split: str | None = None,
    validation_share: float | None = None,
    image_size: int | None = None,
    resize: int | None = None,
    seed: int = 0,
) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """Load images of your own, or a data set by name, batched and in a fixed order.

    Images are float32 from -1 to 1. What was done to them is `train.preprocessing`, and the names
    of classes, where known, are `train.class_names`, as of Keras's `image_dataset_from_directory`.

    | `source` | what it is |
    | --- | --- |
    | a folder | PNG, JPEG, BMP or GIF, a sub-folder for each class; or `train/`, `val/` |
    | `"FILE.npz"` | `x_train`, `y_train`, `x_test`, `y_test`; or `images` and `labels` |
    | `"FILE.py:FUNCTION"`, `"MODULE:FUNCTION"` | returns two data sets, or arrays as `search` has |
    | `"digits"` | scikit-learn's: 1437 training and 360 test images of 8x8, nothing to download |
    | any other name | one of tensorflow-datasets |

    !!! example
        ```python
        train, validation = larq_nas.datasets.load("flowers", image_size=64)
        train, validation = larq_nas.datasets.load("keras.datasets.mnist:load_data")
        train, validation = larq_nas.datasets.load("cifar10", train_split="train[:20%]")
        # As BATS has it on ImageNet: search(..., augment="crop") takes 224 of 256 pixels.
        train, validation = larq_nas.datasets.load("imagenet2012", image_size=224, resize=256)
        ```

    # Arguments
        source: a folder, a file, a function or a name. `"digits"` is never a folder: that is
            `"./digits"`.
        batch_size: number of images in a batch; by default 96.
        data_dir: where tensorflow-datasets keeps its data; by default its own choice, the
            environment variable `TFDS_DATA_DIR` included.
        train_split: what to train on, as tensorflow-datasets writes it; by default `"train"`.
        validation_split: what to measure on; by default `"test"`, or `"validation"`.
        validation_share: share of each class to hold out of a folder or arrays that have no part
            to validate on; by default 0.2. Copies of an image are all on one side.
        image_size: height and width to resize to, in pixels; needed where images differ.
        resize: resize to this height and width, and take the centre of `image_size` of the
            validation images; an `augment` must crop the training images.
        seed: seed of the share, and of the order of a folder or arrays.

    # Returns
        Two data sets of `(images, labels)`, shapes `(batch, height, width, channels)` and
        `(batch,)`: the training data, and held-out data that is only ever measured on. Labels, and
        sample weights if any, of arrays are as these have them.

    # Raises
        InputError: if the source, a split or a size cannot be used.
    """
    if not isinstance(source, str | Path) or not str(source):
        raise InputError(
            "A data set must be a folder, an .npz file, FILE.py:FUNCTION or a name, but got "
            f"{source!r}; larq_nas.search takes tf.data as they are."
        )
    require_count(seed=seed)
    sizes = {"batch_size": batch_size, "image_size": image_size, "resize": resize}
    for given, size in sizes.items():
        if size is not None:
            require_whole(**{given: size})
    if validation_share is not None and not (
        is_number(validation_share) and 0 < validation_share < 1
    ):
        raise InputError(
            f"`validation_share` must be between 0 and 1, but got {validation_share!r}."
        )
    if resize is not None and (image_size is None or resize <= image_size):
        raise InputError(
            f"`resize` must be above `image_size`, which is taken of it, but got {resize} and "
            f"{image_size}."
        )
    splits = {
        "data_dir": data_dir,
        "train_split": train_split,
        "validation_split": validation_split,
    }
    share = {"validation_share": validation_share}
    resized = {"image_size": image_size, "resize": resize}
    kind, name = _kind(source, data_dir), str(source)
    if kind == "digits":
        _require_none("`digits` has fixed splits and sizes", **splits, **share, **resized)
        return _digits(batch_size or _BATCH_SIZE)
    if kind == "name":
        _require_none(f"`{name}` has splits of its own: give `validation_split`", **share)
        read = _from_tfds(name, data_dir, train_split, validation_split)
    else:
        _require_none(f"`{name}` is not of tensorflow-datasets", **splits)
        if kind == "folder":
            read = _from_folder(Path(source).expanduser(), validation_share, seed, bool(image_size))
        elif kind == "npz":
            arrays, class_names = read_npz(Path(source).expanduser())
            read = _from_arrays(name, arrays, class_names, validation_share, seed)
        else:
            result = _call(name)
            if _are_data_sets(result):
                _require_none(f"`{name}` returns data sets", **share, **resized)
                return _batched(name, result, batch_size)
            read = _from_arrays(name, parts_of(name, result), None, validation_share, seed)
    _warn_if_above(batch_size, read.counts[0])
    return _prepared(read, name, batch_size or _BATCH_SIZE, image_size, resize)


def load_test(
    given: str,
    source: str,
    batch_size: int | None = None,
    *,
    data_dir: str | None = None,
    image_size: int | None = None,
    resize: int | None = None,
) -> tf.data.Dataset:
    """Load data to measure on once, in the form of what `load` returns to validate on.

    # Arguments
        given: a split, if `source` is of tensorflow-datasets; or else a folder with a sub-folder
            for each class, an `.npz` file or a function, of which all images are taken.
        source, batch_size, data_dir, image_size, resize: as given to `load`.

    # Raises
        InputError: if there is no such data.
    """
    of_data = _kind(source, data_dir)
    if of_data == "digits":
        raise InputError("`test` of digits must be a share of its training images, such as 0.1.")
    if of_data == "name":
        read, kind = _from_tfds(source, data_dir, given, given), "name"
    else:
        kind = _kind(given, None)
    if kind == "folder":
        images, names = read_whole_folder(Path(given).expanduser(), bool(image_size))
        read = _Read((images.read(),) * 2, (len(images.paths),) * 2, names)
    elif kind in ("npz", "function"):
        if kind == "npz":
            arrays, class_names = read_npz(Path(given).expanduser())
        else:
            result, class_names = _call(given), None
            if isinstance(result, tf.data.Dataset):
                return _batched(given, (result, result), batch_size)[1]
            arrays = parts_of(given, result)
        read = _from_arrays(given, [arrays[-1]] * 2, class_names, None, 0)
        if read.ends not in ((0, 1), (-1, 1), _BYTES):
            raise InputError(
                f"`test` must hold bytes, or images from 0 to 1 or -1 to 1, but those of `{given}` "
                f"go from {read.ends[0]:g} to {read.ends[1]:g}: scale them as those of `{source}`."
            )
    elif kind != of_data:
        raise InputError(
            f"`test` must be a folder, an .npz file or FILE.py:FUNCTION as `{source}`, or a share "
            f"such as 0.1, but got {given}."
        )
    return _prepared(read, given, batch_size or _BATCH_SIZE, image_size, resize)[1]


def _warn_if_above(batch_size: int | None, examples: int) -> None:
    if batch_size is not None and batch_size > examples:
        warn(
            f"`batch_size` is {batch_size:,}, but there are {examples:,} training images: a batch "
            "holds these."
        )


def _kind(source: str | Path, data_dir: str | None) -> str:
    """Return what kind of source it is: digits, name, folder, npz or function."""
    path, text = Path(source).expanduser(), str(source)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError:  # too long for a path
        is_folder = is_file = False
    if source == "digits":
        if is_folder:
            warn("`digits` is scikit-learn's data set, not the folder: that is `./digits`.")
        return "digits"
    if is_folder and data_dir is None:
        return "folder"
    if path.suffix.lower() == ".npz":
        if not path.exists():
            raise _missing(text)
        return "npz"
    if not is_file and re.fullmatch(r"(.+\.py|[\w.]+):[^\W\d]\w*", text):
        return "function"
    if is_file:
        hint = f"; of a Python file, give {text}:FUNCTION" if path.suffix == ".py" else ""
        raise InputError(f"`{text}` must be a folder of images or an .npz file{hint}.")
    if isinstance(source, Path) or text.startswith((".", "~", os.sep)) or "\\" in text:
        raise _missing(text)
    return "name"


_ALIKE = 0.8


def _missing(text: str) -> InputError:
    """Return the error for what is not there, with what has a name like it beside."""
    path = Path(text).expanduser()
    beside = _names_like(path)
    hint = f"; did you mean `{path.parent / beside[0]}`?" if beside else "."
    return InputError(f"There is no folder or file `{text}`{hint}")


def _names_like(path: Path) -> list[str]:
    """Return the name of the folder or file beside that is most like a path, if one is."""
    try:
        names = [one.name for one in path.parent.iterdir()]
    except OSError:
        return []
    return get_close_matches(path.name, names, n=1, cutoff=_ALIKE)


def _require_none(why: str, **given: object) -> None:
    """Raise `InputError` for options that the source cannot use."""
    names = [f"`{name}`" for name, value in given.items() if value is not None]
    if names:
        raise InputError(f"{why}: leave out {', '.join(names)}.")


@dataclass(frozen=True)
class _Read:
    """Images, labels and perhaps sample weights, one by one, and what is known of them.

    `ends` are the values of an image that become -1 and 1.
    """

    parts: tuple[tf.data.Dataset, tf.data.Dataset]
    counts: tuple[int, int]
    class_names: Sequence[str] | None
    ends: tuple[float, float] = _BYTES
    is_in_memory: bool = False


def _told(parts: Sequence[tf.data.Dataset], names: Sequence[str] | None, done: str) -> _Pair:
    """Return data sets with what is known of them in attributes."""
    for data in parts:
        data.preprocessing = done
        if names is not None:
            data.class_names = list(names)
    return parts[0], parts[1]


def _digits(batch_size: int) -> _Pair:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) / 8.0 - 1.0).astype("float32")
    parts = train_test_split(
        images, labels.astype("int32"), test_size=360, random_state=0, stratify=labels
    )
    pairs = ((parts[0], parts[2]), (parts[1], parts[3]))
    _warn_if_above(batch_size, len(parts[0]))
    loaded = [tf.data.Dataset.from_tensor_slices(pair).batch(batch_size) for pair in pairs]
    return _told(loaded, list(map(str, range(10))), "x / 8 - 1")


def _from_folder(folder: Path, share: float | None, seed: int, resizes: bool) -> _Read:
    train, validation, names = read_folder(folder, share, seed, resizes)
    counts = len(train.paths), len(validation.paths)
    return _Read((train.read(), validation.read()), counts, names)


def _from_arrays(
    name: str,
    given: Sequence[Any],
    class_names: Sequence[str] | None,
    share: float | None,
    seed: int,
) -> _Read:
    train, validation, class_names = split_arrays(name, given, class_names, share, seed)
    parts = tuple(map(tf.data.Dataset.from_tensor_slices, (train, validation)))
    counts = len(train[0]), len(validation[0])
    return _Read(parts, counts, class_names, ends_of(train[0]), is_in_memory=True)


def _call(reference: str) -> Any:
    """Return what a function of the user's own returns."""
    function = load_object(reference, "data")
    try:
        return function()
    except LarqNasError:
        raise
    except Exception as error:
        raise InputError(
            f"`{reference}` must return data when it is called without arguments, but raised "
            f"{type(error).__name__}: {first_line(error)}."
        ) from error


def _are_data_sets(result: Any) -> bool:
    are_two = isinstance(result, tuple | list) and len(result) == 2
    return are_two and all(isinstance(part, tf.data.Dataset) for part in result)


def _batched(name: str, parts: Sequence[tf.data.Dataset], batch_size: int | None) -> _Pair:
    """Return the data sets of a function, those of single images in batches."""
    images = [tf.nest.flatten(part.element_spec)[0] for part in parts]
    if all(getattr(image, "shape", tf.TensorShape(None)).rank == 3 for image in images):
        known = [getattr(part, "class_names", None) for part in parts]
        batches = [part.batch(batch_size or _BATCH_SIZE) for part in parts]
        return _told(batches, known[0], getattr(parts[0], "preprocessing", ""))
    _require_none(f"`{name}` returns batches", batch_size=batch_size)
    return parts[0], parts[1]


def _from_tfds(
    name: str, data_dir: str | None, train_split: str | None, validation_split: str | None
) -> _Read:
    builder = _builder(name, data_dir)
    splits = builder.info.splits
    held_out = "test" if "test" in splits or "validation" not in splits else "validation"
    parts, counts = [], []
    for split in (train_split or "train", validation_split or held_out):
        try:
            parts.append(_pairs(builder, split))
            counts.append(splits[split].num_examples)
        except (ValueError, KeyError, AssertionError) as error:
            raise InputError(
                f"Data set `{name}` has no split `{split}`: {first_line(error)}. "
                f"Known: {', '.join(splits)}."
            ) from None
    label = dict(builder.info.features).get((builder.info.supervised_keys or ("", "label"))[1])
    return _Read((parts[0], parts[1]), (counts[0], counts[1]), getattr(label, "names", None))


def _builder(name: str, data_dir: str | None) -> Any:
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        if "/" in name:
            raise _missing(name) from None
        raise InputError(
            f"There is no folder `{name}`, and a data set of that name needs tensorflow-datasets: "
            "pip install 'larq_nas[datasets]'."
        ) from None
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        # A path, or a misspelt folder, is no misspelt data set.
        if "/" in name or _names_like(Path(name)):
            raise _missing(name) from None
        known = ["digits", *tfds.list_builders(with_community_datasets=False)]
        close = get_close_matches(name, known, n=1, cutoff=_ALIKE)
        hint = f"; did you mean `{close[0]}`?" if close else "."
        raise InputError(
            f"Unknown data set `{name}`{hint} (There is no folder or file `{name}` either.)"
        ) from None
    except Exception as error:
        raise InputError(
            f"There is no folder or file `{name}`, and no data set of that name can be found: "
            f"{first_line(error)}."
        ) from error
    try:
        builder.download_and_prepare()
    except Exception as error:
        raise InputError(
            f"Cannot prepare data set `{name}` in `{builder.data_dir}`: {first_line(error)}."
        ) from error
    if builder.info.supervised_keys is None and not {"image", "label"} <= set(
        builder.info.features
    ):
        raise InputError(f"Data set `{name}` has no (image, label) form; give your own tf.data.")
    return builder


def _pairs(builder: Any, split: str) -> tf.data.Dataset:
    if builder.info.supervised_keys is not None:
        return builder.as_dataset(split=split, as_supervised=True)
    data = builder.as_dataset(split=split)
    return data.map(lambda example: (example["image"], example["label"]))


def _prepared(
    read: _Read, name: str, batch_size: int, image_size: int | None, resize: int | None
) -> _Pair:
    """Return batches of images of one size, from -1 to 1."""
    size = resize or image_size
    if size and read.is_in_memory:
        warn_if_channels_first(name, read.parts[0].element_spec[0].shape)
    loaded = [
        _scaled(_cached(part, name, count, size, read.is_in_memory), read.ends, batch_size)
        for part, count in zip(read.parts, read.counts, strict=True)
    ]
    colors = {1: "gray", 3: "RGB"}.get(read.parts[0].element_spec[0].shape[-1])
    done = [f"{colors} of 0 to 255"] if colors and not read.is_in_memory else []
    done += [f"resized to {size}x{size} with antialiasing"] if size else []
    if resize is not None and image_size is not None:
        loaded[1] = _centered(loaded[1], image_size)
        done.append(f"the middle {image_size}x{image_size} of it")
    return _told(loaded, read.class_names, ", ".join([*done, _formula(*read.ends)]))


def _cached(
    data: tf.data.Dataset, name: str, examples: int, size: int | None, is_in_memory: bool
) -> tf.data.Dataset:
    """Return images of one size, in memory if that is little."""
    image = data.element_spec[0]
    shape = image.shape
    if size:
        is_bytes = image.dtype == tf.uint8

        def resize(image: tf.Tensor, *rest: tf.Tensor) -> tuple[tf.Tensor, ...]:
            resized = tf.image.resize(image, (size, size), antialias=True)
            if is_bytes:
                resized = tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)
            return resized, *rest

        data = data.map(resize, num_parallel_calls=tf.data.AUTOTUNE)
        shape = tf.TensorShape((size, size, shape[-1]))
    if not shape.is_fully_defined():
        raise InputError(
            f"Images of data set `{name}` differ in size ({shape}): give `image_size` in pixels."
        )
    held = examples * int(np.prod(shape)) * image.dtype.size
    return data.cache() if held <= _CACHE_BYTES and (size or not is_in_memory) else data


def _scaled(data: tf.data.Dataset, ends: tuple[float, float], batch_size: int) -> tf.data.Dataset:
    middle, half = _middle_and_half(*ends)

    def scale(images: tf.Tensor, *rest: tf.Tensor) -> tuple[tf.Tensor, ...]:
        numbers = tf.cast(images, tf.float32)
        return numbers / half - 1.0 if middle == half else (numbers - middle) / half, *rest

    return data.batch(batch_size).map(scale, num_parallel_calls=tf.data.AUTOTUNE)


def _middle_and_half(low: float, high: float) -> tuple[float, float]:
    return (high + low) / 2, (high - low) / 2


def _formula(low: float, high: float) -> str:
    """Return in words what `_scaled` computes."""
    middle, half = _middle_and_half(low, high)
    if (low, high) == (-1, 1):
        return "used as they are"
    if middle == half:
        return "x * 2 - 1" if half == 0.5 else f"x / {half:.9g} - 1"
    return f"(x {'-' if middle > 0 else '+'} {abs(middle):.9g}) / {half:.9g}"


def _centered(data: tf.data.Dataset, size: int) -> tf.data.Dataset:
    """Return the data with the middle of each image alone."""

    def take(images: tf.Tensor, *rest: tf.Tensor) -> tuple[tf.Tensor, ...]:
        top, left = ((whole - size) // 2 for whole in images.shape[1:3])
        return images[:, top : top + size, left : left + size], *rest

    return data.map(take, num_parallel_calls=tf.data.AUTOTUNE)
