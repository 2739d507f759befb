"""The command `larq-nas train`."""

from pathlib import Path
from typing import Any

import click

from larq_nas.architecture import Architecture
from larq_nas.cli.common import (
    DataOptions,
    StageEpochs,
    data_options,
    load_teacher,
    one_line_errors,
    print_outcome,
    read_space,
    recipe_options,
    require_directory,
    run_options,
    settings_by_part,
    settings_option,
    shaped,
    test_option,
    verbosity,
)
from larq_nas.errors import InputError
from larq_nas.methods import resolve
from larq_nas.train import train as run_training

__all__ = ["train"]


@click.command()
@click.argument("architecture")
@click.option(
    "--space", help="Search space of your own it is of: FILE.py:FUNCTION or MODULE:FUNCTION."
)
@settings_option(
    "A setting of the space or the recipe to change, such as space.cells=8 or "
    "recipe.learning_rate=0.01; repeat for more."
)
@recipe_options
@data_options
@test_option
@click.option(
    "--epochs",
    type=StageEpochs(),
    help="Number of epochs, of all stages or of each; by default those of the recipe.",
)
@run_options
@one_line_errors
def train(
    architecture: str,
    space: str | None,
    settings: dict[str, Any],
    recipe: str | None,
    teacher: Path | None,
    data: DataOptions,
    test: str | None,
    epochs: int | dict[str, int] | None,
    seed: int,
    directory: Path | None,
    no_resume: bool,
    as_json: bool,
) -> None:
    """Train the network of an architecture and convert it.

    ARCHITECTURE is the directory of a run, a file such as its architecture.json, or the name of
    a published one. DIRECTORY gets what larq-nas search leaves there.

    \b
    larq-nas train runs/digits/architecture.json --set space.cells=8 --directory runs/deeper
    larq-nas train bnas_cifar --set space.cells=8 --recipe bnas_v2 --directory runs/bnas
    """
    directory = require_directory(directory)
    changes = settings_by_part(settings)
    if changes["searcher"]:
        raise InputError("`--set searcher.NAME=VALUE` is for larq-nas search: leave it out.")
    found = Architecture.read(architecture)
    found = found.with_settings(**changes["space"]) if changes["space"] else found
    plan = resolve(None, found.resolve(read_space(space) if space else None), recipe=recipe)
    if changes["recipe"]:
        plan = resolve(plan, recipe=shaped(plan.recipe, changes["recipe"]))
    datasets = data.load()
    test_data = data.load_test(test)
    run_training(
        found,
        *datasets,
        space=plan.space,
        epochs=epochs,
        recipe=plan.recipe,
        teacher=load_teacher(teacher),
        test=test_data,
        classes=data.classes,
        class_weight=data.class_weight,
        augment=data.augment,
        directory=directory,
        seed=seed,
        resume=not no_resume,
        verbose=verbosity(as_json),
    )
    print_outcome(directory, as_json)
