"""The command `larq-nas train`."""

from pathlib import Path
from typing import Any

import click

from larq_nas.architecture import Architecture
from larq_nas.cli.common import one_line_errors, read_space, settings_option
from larq_nas.cli.options import (
    Data,
    choose_recipe,
    data_options,
    load_teacher,
    print_outcome,
    recipe_options,
    run_options,
    verbosity,
)
from larq_nas.layers import ComputedIn
from larq_nas.train import train as run_training

__all__ = ["train"]


@click.command()
@click.argument("architecture")
@click.option(
    "--space", help="Search space of your own it is of: FILE.py:FUNCTION or MODULE:FUNCTION."
)
@settings_option("A setting of the space to change, such as cells=8; repeat for more.")
@recipe_options
@data_options
@click.option("--epochs", type=int, default=100, show_default=True, help="Number of epochs.")
@run_options
@one_line_errors
def train(
    architecture: str,
    space: str | None,
    settings: dict[str, Any],
    recipe: str | None,
    train_learning_rate: float | None,
    precision: ComputedIn | None,
    teacher: Path | None,
    data: Data,
    epochs: int,
    seed: int,
    directory: Path,
    no_resume: bool,
    as_json: bool,
) -> None:
    """Train the network of an architecture and convert it.

    ARCHITECTURE is the directory of a run, a file such as its architecture.json, or the name of
    a published one. DIRECTORY gets what larq-nas search leaves there.

    \b
    larq-nas train runs/digits/architecture.json --set cells=8 --directory runs/deeper
    larq-nas train bnas_cifar --set cells=8 --recipe bnas_v2 --directory runs/bnas
    """
    found = Architecture.read(architecture)
    found = found.with_settings(**settings) if settings else found
    resolved = found.resolve(read_space(space) if space else None)
    datasets = data.load()
    run_training(
        found,
        *datasets,
        space=resolved,
        epochs=epochs,
        recipe=choose_recipe(recipe, train_learning_rate, precision, resolved),
        teacher=load_teacher(teacher),
        classes=data.classes,
        augment=data.augment,
        directory=directory,
        seed=seed,
        resume=not no_resume,
        verbose=verbosity(as_json),
    )
    print_outcome(directory, as_json)
