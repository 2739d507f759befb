"""Data sets by name: scikit-learn's digits, and those of tensorflow-datasets."""

from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.errors import InputError, first_line, require_whole, unknown_name

__all__ = ["load"]


_CACHE_BYTES = 2**30


def load(
    name: str,
    batch_size: int = 96,
    *,
    data_dir: str | None = None,
    train_split: str | None = None,
    validation_split: str | None = None,
    image_size: int | None = None,
    resize: int | None = None,
) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """Load a data set by name, batched and in a fixed order.

    Images are float32 from -1 to 1, labels whole numbers. `"digits"` is scikit-learn's: 1437
    training and 360 test images of 8x8 pixels, with nothing to download. Any other name is
    one of tensorflow-datasets.

    !!! example
        ```python
        train, validation = larq_nas.datasets.load("digits")
        train, validation = larq_nas.datasets.load("cifar10", train_split="train[:20%]")
        # As BATS has it on ImageNet: search(..., augment="crop") takes 224 of 256 pixels.
        train, validation = larq_nas.datasets.load("imagenet2012", image_size=224, resize=256)
        ```

    # Arguments
        name: `"digits"`, or the name of a data set in tensorflow-datasets.
        batch_size: number of images in a batch.
        data_dir: where tensorflow-datasets keeps its data; by default its own choice, the
            environment variable `TFDS_DATA_DIR` included.
        train_split: what to train on, as tensorflow-datasets writes it; by default `"train"`.
        validation_split: what to measure on; by default `"test"`, or `"validation"`.
        image_size: height and width to resize to, in pixels; needed where images differ.
        resize: resize to this height and width, and take the centre of `image_size` of the
            validation images; an `augment` must crop the training images.

    # Returns
        Two data sets of `(images, labels)`, shapes `(batch, height, width, channels)` and
        `(batch,)`: the training data, and held-out data that is only ever measured on.

    # Raises
        InputError: if the name, a split or a size cannot be used.
    """
    require_whole(batch_size=batch_size)
    sizes = {"image_size": image_size, "resize": resize}
    for given, size in sizes.items():
        if size is not None:
            require_whole(**{given: size})
    if resize is not None and (image_size is None or resize <= image_size):
        raise InputError(
            f"`resize` must be above `image_size`, which is taken of it, but got {resize} and "
            f"{image_size}."
        )
    if name == "digits":
        if train_split or validation_split or data_dir or image_size:
            raise InputError(
                "`digits` has fixed splits and sizes: leave out `data_dir`, `train_split`, "
                "`validation_split`, `image_size` and `resize`."
            )
        return _digits(batch_size)
    loaded = _from_tfds(
        name, batch_size, data_dir, train_split, validation_split, resize or image_size
    )
    if resize is None or image_size is None:
        return loaded
    return loaded[0], _centered(loaded[1], image_size)


def _centered(data: tf.data.Dataset, size: int) -> tf.data.Dataset:
    """Return the data with the middle of each image alone."""

    def take(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        top, left = ((whole - size) // 2 for whole in images.shape[1:3])
        return images[:, top : top + size, left : left + size], labels

    return data.map(take, num_parallel_calls=tf.data.AUTOTUNE)


def _digits(batch_size: int) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) / 8.0 - 1.0).astype("float32")
    parts = train_test_split(
        images, labels.astype("int32"), test_size=360, random_state=0, stratify=labels
    )
    pairs = ((parts[0], parts[2]), (parts[1], parts[3]))
    train, test = (tf.data.Dataset.from_tensor_slices(pair).batch(batch_size) for pair in pairs)
    return train, test


def _from_tfds(
    name: str,
    batch_size: int,
    data_dir: str | None,
    train_split: str | None,
    validation_split: str | None,
    image_size: int | None,
) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    builder = _builder(name, data_dir)
    splits = builder.info.splits
    held_out = "test" if "test" in splits or "validation" not in splits else "validation"
    loaded = []
    for split in (train_split or "train", validation_split or held_out):
        try:
            data = _pairs(builder, split)
            examples = splits[split].num_examples
        except (ValueError, KeyError, AssertionError) as error:
            raise InputError(
                f"Data set `{name}` has no split `{split}`: {first_line(error)}. "
                f"Known: {', '.join(splits)}."
            ) from None
        loaded.append(_prepare(data, name, examples, batch_size, image_size))
    return loaded[0], loaded[1]


def number_of_classes(name: str, data_dir: str | None = None) -> int | None:
    """Return the number of classes that a data set declares, if it does."""
    if name == "digits":
        return 10
    label = dict(_builder(name, data_dir).info.features).get("label")
    return getattr(label, "num_classes", None)


def _builder(name: str, data_dir: str | None) -> Any:
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise InputError(
            f"Data set `{name}` needs tensorflow-datasets: pip install 'larq_nas[datasets]'."
        ) from None
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        known = ["digits", *tfds.list_builders(with_community_datasets=False)]
        error = unknown_name("data set", name, known)
        raise InputError(str(error).partition(" Known:")[0]) from None
    except Exception as error:
        raise InputError(f"Cannot find data set `{name}`: {first_line(error)}.") from error
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


def _prepare(
    data: tf.data.Dataset, name: str, examples: int, batch_size: int, image_size: int | None
) -> tf.data.Dataset:
    shape = data.element_spec[0].shape
    if image_size:
        size = (image_size, image_size)

        def resize(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            resized = tf.image.resize(image, size, antialias=True)
            return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8), label

        data = data.map(resize, num_parallel_calls=tf.data.AUTOTUNE)
        shape = tf.TensorShape((*size, shape[-1]))
    if not shape.is_fully_defined():
        raise InputError(
            f"Images of data set `{name}` differ in size ({shape}): give `image_size` in pixels."
        )
    if examples * int(np.prod(shape)) <= _CACHE_BYTES:
        data = data.cache()
    return data.batch(batch_size).map(_normalize, num_parallel_calls=tf.data.AUTOTUNE)


def _normalize(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.cast(images, tf.float32) / 127.5 - 1.0, labels
