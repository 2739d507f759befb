"""`larq-nas`: the same from a shell."""

import dataclasses
import json
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
import numpy as np
import tensorflow as tf

from larq_nas import __version__, datasets
from larq_nas.deploy import convert as convert_model
from larq_nas.errors import InputError, LarqNasError, first_line
from larq_nas.run import read_settings
from larq_nas.search import search as run_search
from larq_nas.searchers import Differentiable, resolve_searcher
from larq_nas.spaces import SpaceLike, resolve
from larq_nas.spaces.space import load_function

__all__ = ["main"]


def _one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn expected errors and warnings into one line each."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                command(*args, **kwargs)
            except LarqNasError as error:
                raise click.ClickException(str(error)) from None

    return wrapped


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"Warning: {message}", err=True)


def _assignments(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    settings = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals:
            raise click.BadParameter(f"expected NAME=VALUE, but got {value!r}")
        try:
            settings[name] = json.loads(text)
        except json.JSONDecodeError:
            settings[name] = text
        if name == "operations" and isinstance(settings[name], str):
            settings[name] = text.split(",")
    return settings


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="larq-nas")
def main() -> None:
    """Search, train and convert binary neural networks.

    A first network, searched on real data in a few minutes:

      larq-nas search --data digits --epochs 3 --train-epochs 10 --directory runs/digits
    """


@main.command()
@click.option(
    "--space",
    default="bats",
    show_default=True,
    help="Search space: a name, or your own as FILE.py:FUNCTION or MODULE:FUNCTION.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_assignments,
    help="A setting of the space; repeat for more. bats: cells, channels, groups, nodes, "
    "activation, operations, search_cells, search_channels.",
)
@click.option("--searcher", default="differentiable", show_default=True, help="Search method.")
@click.option(
    "--temperature",
    type=float,
    help="Temperature of the choice between operations; lower is harder. By default the paper's.",
)
@click.option(
    "--learning-rate", type=float, help="Learning rate of the supernet's weights [default: 0.001]."
)
@click.option(
    "--architecture-learning-rate",
    type=float,
    help="Learning rate of the architecture parameters; higher decides in fewer steps "
    "[default: 0.0006].",
)
@click.option(
    "--train-learning-rate",
    type=float,
    help="Learning rate the found network's training starts with [default: 0.001].",
)
@click.option(
    "--data",
    default="digits",
    show_default=True,
    help="Data set: digits (embedded), or any name of tensorflow-datasets.",
)
@click.option("--data-dir", help="Where tensorflow-datasets keeps its data [env: TFDS_DATA_DIR].")
@click.option("--train-split", help="What to train on, such as 'train[:20%]'.")
@click.option("--validation-split", help="What to measure on, such as 'test'.")
@click.option("--classes", type=int, help="Number of classes; by default what the data says.")
@click.option("--image-size", type=int, help="Resize images to this height and width, in pixels.")
@click.option("--batch-size", type=int, default=96, show_default=True, help="Images in a batch.")
@click.option("--augment", help="Random changes to training images: standard (shift, mirror).")
@click.option("--epochs", type=int, default=25, show_default=True, help="Epochs of the search.")
@click.option(
    "--train-epochs",
    type=int,
    default=100,
    show_default=True,
    help="Epochs the found network is trained for; 0 leaves it as derived.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything random.")
@click.option(
    "--directory",
    required=True,
    type=click.Path(path_type=Path),
    help="Where the run is kept. The same command again goes on where the run was.",
)
@click.option("--no-resume", is_flag=True, help="Refuse to go on with a run that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, nothing else.")
@_one_line_errors
def search(
    space: str,
    settings: dict[str, Any],
    searcher: str,
    temperature: float | None,
    learning_rate: float | None,
    architecture_learning_rate: float | None,
    train_learning_rate: float | None,
    data: str,
    data_dir: str | None,
    train_split: str | None,
    validation_split: str | None,
    classes: int | None,
    image_size: int | None,
    batch_size: int,
    augment: str | None,
    epochs: int,
    train_epochs: int,
    seed: int,
    directory: Path,
    no_resume: bool,
    as_json: bool,
) -> None:
    """Search a space for a binary network, train it and convert it.

    Leaves in DIRECTORY: architecture.json, history.csv, model.keras, model.tflite, result.json,
    checkpoints and TensorBoard logs. Killed at any moment, the same command goes on.

    \b
    larq-nas search --data digits --epochs 3 --train-epochs 10 --directory runs/digits
    larq-nas search --data cifar10 --set cells=8 --set search_cells=5 --directory runs/cifar10
    larq-nas search --space my_space.py:my_space --directory runs/mine
    """
    resolved = resolve(_space(space), settings)
    method = resolve_searcher(searcher)
    given = {
        "temperature": temperature,
        "learning_rate": learning_rate,
        "architecture_learning_rate": architecture_learning_rate,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if changes and isinstance(method, Differentiable):
        method = dataclasses.replace(method, **changes)  # type: ignore[arg-type]
    recipe = resolved.recipe()
    if train_learning_rate is not None:
        recipe = dataclasses.replace(recipe, learning_rate=train_learning_rate)
    loading = {
        "data_dir": data_dir,
        "train_split": train_split,
        "validation_split": validation_split,
        "image_size": image_size,
    }
    train, validation = datasets.load(data, batch_size, **loading)  # type: ignore[arg-type]
    run_search(
        train,
        validation,
        resolved,
        method,
        epochs=epochs,
        train_epochs=train_epochs,
        classes=datasets.number_of_classes(data, data_dir) if classes is None else classes,
        recipe=recipe,
        augment=augment,
        directory=directory,
        seed=seed,
        resume=not no_resume,
        verbose=0 if as_json else (1 if sys.stdout.isatty() else 2),
    )
    result = json.loads((directory / "result.json").read_text(encoding="utf-8"))
    if as_json:
        click.echo(json.dumps({"directory": str(directory), **result}, indent=2))
    if "refused" in result:
        raise click.ClickException(result["refused"])


@main.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="File to write; by default a .tflite of the same name beside the model.",
)
@click.option(
    "--examples", type=int, default=512, show_default=True, help="Images to compare on, at most."
)
@click.option(
    "--kernel",
    "kernels",
    multiple=True,
    default=("default", "reference"),
    show_default=True,
    help="Kernel that must agree with Keras: default, reference or indirect; repeat for more.",
)
@click.option("--allow-float", multiple=True, help="Binary layer that may run in float.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, nothing else.")
@_one_line_errors
def convert(
    source: Path,
    output: Path | None,
    examples: int,
    kernels: tuple[str, ...],
    allow_float: tuple[str, ...],
    as_json: bool,
) -> None:
    """Convert the model of a run, or any saved Keras or Larq model, for Larq Compute Engine.

    SOURCE is the directory of a run, a .keras or .h5 file, or a SavedModel. Outputs are compared
    with those of Keras on the run's validation images, otherwise on random ones. Nothing is
    written if a binary layer would run in float, or if outputs differ.

    \b
    larq-nas convert runs/digits
    larq-nas convert model.keras --output model.tflite --kernel indirect
    """
    path = _model_path(source)
    images = _sample(path) if path != source else None
    if images is None:
        click.echo("No images at hand: comparing on random numbers", err=True)
    conversion = convert_model(
        _load_model(path),
        images,
        examples=examples,
        kernels=kernels,  # type: ignore[arg-type]
        allow_float=allow_float,
    )
    target = output or path.with_suffix(".tflite")
    conversion.save(target)
    if as_json:
        click.echo(json.dumps({"output": str(target), **conversion.summary()}, indent=2))
    else:
        click.echo(f"{conversion}\nwritten: {target}")


def _space(reference: str) -> SpaceLike:
    return load_function(reference) if ":" in reference else reference


def _model_path(source: Path) -> Path:
    if not source.is_dir() or (source / "saved_model.pb").exists():
        return source
    model = source / "model.keras"
    if not model.exists():
        read_settings(source)
        raise InputError(f"The run in `{source}` has no model yet: finish it with larq-nas search.")
    return model


def _sample(path: Path) -> np.ndarray | None:
    """Return the validation images that a run kept."""
    sample = path.with_name("sample.npy")
    if not sample.exists():
        return None
    try:
        images: np.ndarray = np.load(sample)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"`{sample}` is damaged ({first_line(error)}): delete it.") from error
    return images


def _load_model(path: Path) -> tf.keras.Model:
    try:
        return tf.keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"Cannot load a Keras model from `{path}`: {first_line(error)}."
        ) from error
