"""Options that several commands share: data, recipes, runs."""

import dataclasses
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, get_args

import click
import tensorflow as tf

from larq_nas.cli.common import load_model, model_path
from larq_nas.data import datasets
from larq_nas.layers import ComputedIn
from larq_nas.spaces import Space
from larq_nas.training.recipe import RECIPES, Recipe, resolve_recipe

__all__ = [
    "Data",
    "choose_recipe",
    "data_options",
    "load_teacher",
    "print_outcome",
    "recipe_options",
    "run_options",
    "verbosity",
]


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


_RECIPE_OPTIONS = (
    click.option(
        "--recipe",
        help=f"How the network is trained: {', '.join(sorted(RECIPES))}; by default as the space's "
        "paper does.",
    ),
    click.option(
        "--train-learning-rate",
        type=float,
        help="Learning rate of that training [default: the recipe's].",
    ),
    click.option(
        "--precision",
        type=click.Choice(get_args(ComputedIn)),
        help="What binary convolutions are computed in, searched and trained [default: float32]; "
        "bfloat16 may be faster on processors with AMX and on GPUs.",
    ),
    click.option(
        "--teacher",
        type=click.Path(exists=True, path_type=Path),
        help="Trained model to learn from as well: a run, a .keras or .h5 file, or a SavedModel.",
    ),
)


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give `command` the options of training."""
    for option in reversed(_RECIPE_OPTIONS):
        command = option(command)
    return command


def choose_recipe(
    name: str | None, learning_rate: float | None, precision: ComputedIn | None, space: Space
) -> Recipe:
    """Return the recipe that the options describe."""
    recipe = space.recipe() if name is None else resolve_recipe(name)
    given: dict[str, Any] = {"learning_rate": learning_rate, "precision": precision}
    changes = {key: value for key, value in given.items() if value is not None}
    return dataclasses.replace(recipe, **changes)


def load_teacher(path: Path | None) -> tf.keras.Model | None:
    """Return the model that the option names."""
    return None if path is None else load_model(model_path(path))


_RUN_OPTIONS = (
    click.option(
        "--seed", type=int, default=0, show_default=True, help="Seed of everything random."
    ),
    click.option(
        "--directory",
        required=True,
        type=click.Path(path_type=Path),
        help="Where the run is kept. The same command again goes on where the run was.",
    ),
    click.option("--no-resume", is_flag=True, help="Refuse to go on with a run that is there."),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, nothing else."),
)


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give `command` the options `seed`, `directory`, `no_resume` and `as_json`."""
    for option in reversed(_RUN_OPTIONS):
        command = option(command)
    return command


def verbosity(as_json: bool) -> int:
    """Return Keras's `verbose`: nothing beside JSON, no bars into a file."""
    return 0 if as_json else (1 if sys.stdout.isatty() else 2)


def print_outcome(directory: Path, as_json: bool) -> None:
    """Print the result as JSON if asked to, and fail if the conversion was refused."""
    result = json.loads((directory / "result.json").read_text(encoding="utf-8"))
    if as_json:
        click.echo(json.dumps({"directory": str(directory), **result}, indent=2))
    if "refused" in result:
        raise click.ClickException(result["refused"])
