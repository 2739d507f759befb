"""`larq-nas search`."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import click

from larq_nas import datasets
from larq_nas.cli.common import assignments, one_line_errors, read_space
from larq_nas.search import search as run_search
from larq_nas.searchers import Differentiable, resolve_searcher
from larq_nas.spaces import resolve

__all__ = ["search"]


@click.command()
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
    callback=assignments,
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
@click.option("--max-memory", help="Most bytes of weights, such as 64KB (1,000 each) or 64KiB.")
@click.option("--max-flatbuffer", help="Most bytes of model.tflite.")
@click.option("--max-activation-memory", help="Most bytes of activations alive at once.")
@click.option("--max-macs", help="Most real multiply-accumulates of an image, such as 1.5M.")
@click.option("--max-binary-macs", help="Most binary multiply-accumulates of an image.")
@click.option("--max-parameters", help="Most weights, of any precision.")
@click.option("--max-latency", help="Longest time of an image by --latency-table, such as 5ms.")
@click.option("--latency-table", help="Table of a device; see larq-nas latency --build-table.")
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
@one_line_errors
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
    **budget: str | None,
) -> None:
    """Search a space for a binary network, train it and convert it.

    Leaves in DIRECTORY: architecture.json, history.csv, model.keras, model.tflite, result.json,
    checkpoints and TensorBoard logs. Killed at any moment, the same command goes on.

    \b
    larq-nas search --data digits --epochs 3 --train-epochs 10 --directory runs/digits
    larq-nas search --data cifar10 --set cells=8 --set search_cells=5 --directory runs/cifar10
    larq-nas search --space my_space.py:my_space --directory runs/mine
    """
    resolved = resolve(read_space(space), settings)
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
        **budget,  # type: ignore[arg-type]
        verbose=0 if as_json else (1 if sys.stdout.isatty() else 2),
    )
    result = json.loads((directory / "result.json").read_text(encoding="utf-8"))
    if as_json:
        click.echo(json.dumps({"directory": str(directory), **result}, indent=2))
    if "refused" in result:
        raise click.ClickException(result["refused"])
