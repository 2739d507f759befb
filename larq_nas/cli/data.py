"""The options of commands that read a data set."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import click
import tensorflow as tf

from larq_nas import datasets

__all__ = ["Data", "data_options"]

_OPTIONS = (
    click.option(
        "--data",
        default="digits",
        show_default=True,
        help="Data set: digits (embedded), or any name of tensorflow-datasets.",
    ),
    click.option(
        "--data-dir", help="Where tensorflow-datasets keeps its data [env: TFDS_DATA_DIR]."
    ),
    click.option("--train-split", help="What to train on, such as 'train[:20%]'."),
    click.option("--validation-split", help="What to measure on, such as 'test'."),
    click.option("--classes", type=int, help="Number of classes; by default what the data says."),
    click.option(
        "--image-size", type=int, help="Resize images to this height and width, in pixels."
    ),
    click.option(
        "--resize",
        type=int,
        help="Resize to this first, and take the centre of --image-size; of training images "
        "--augment crop takes any part.",
    ),
    click.option(
        "--batch-size", type=int, default=96, show_default=True, help="Images in a batch."
    ),
    click.option(
        "--augment",
        help="Random changes to training images: standard (shift, mirror), cutout (a square of "
        "zeros, too) or crop (see --resize).",
    ),
)


@dataclass(frozen=True)
class Data:
    """A data set as the options describe it."""

    name: str
    data_dir: str | None
    train_split: str | None
    validation_split: str | None
    declared: int | None
    image_size: int | None
    resize: int | None
    batch_size: int
    augment: str | None

    def load(self) -> tuple[tf.data.Dataset, tf.data.Dataset]:
        """Return training and validation data."""
        return datasets.load(
            self.name,
            self.batch_size,
            data_dir=self.data_dir,
            train_split=self.train_split,
            validation_split=self.validation_split,
            image_size=self.image_size,
            resize=self.resize,
        )

    @property
    def classes(self) -> int | None:
        """The number of classes, if it is given or known."""
        if self.declared is not None:
            return self.declared
        return datasets.number_of_classes(self.name, self.data_dir)


def data_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the options, as one argument `data`."""

    @wraps(command)
    def wrapped(
        *args: Any,
        data: str,
        data_dir: str | None,
        train_split: str | None,
        validation_split: str | None,
        classes: int | None,
        image_size: int | None,
        resize: int | None,
        batch_size: int,
        augment: str | None,
        **kwargs: Any,
    ) -> None:
        described = Data(
            data,
            data_dir,
            train_split,
            validation_split,
            classes,
            image_size,
            resize,
            batch_size,
            augment,
        )
        command(*args, data=described, **kwargs)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped
