"""The command `larq-nas search`."""

import sys
from pathlib import Path
from typing import Any

import click

from larq_nas.cli.common import (
    DataOptions,
    StageEpochs,
    assignments_option,
    data_options,
    load_teacher,
    named,
    one_line_errors,
    plan_of,
    print_outcome,
    recipe_options,
    require_directory,
    run_options,
    settings_option,
    settings_table,
    test_option,
    verbosity,
)
from larq_nas.cost import COSTS
from larq_nas.errors import InputError, require_whole
from larq_nas.methods import METHODS, SEARCHERS
from larq_nas.search import search as run_search
from larq_nas.searchers import Searcher
from larq_nas.searchers.evolution.processes import current_role, end_with_parent, launch
from larq_nas.spaces import names

__all__ = ["search"]


@click.command()
@click.option(
    "--method",
    help=f"Published method: {', '.join(METHODS)}. By default the first that has --space, or "
    "default.",
)
@click.option(
    "--space",
    help=f"Search space in place of the method's: {', '.join(names())}, or your own as "
    "FILE.py:FUNCTION or MODULE:FUNCTION.",
)
@click.option(
    "--searcher",
    help=f"Searcher in place of the method's: {', '.join(SEARCHERS)}, or your own as "
    "FILE.py:CLASS.",
)
@recipe_options
@settings_option(
    "A setting of the space, the searcher or the recipe, such as space.cells=8, "
    "searcher.temperature=0.5 or recipe.learning_rate=0.01; repeat for more."
)
@click.option("--settings", "shows", is_flag=True, help="List what --set can change, and end.")
@assignments_option(
    "--budget",
    "budget",
    f"What the found network may cost at most: {', '.join(COSTS)}, such as flatbuffer_bytes=64KB "
    "(1,000 bytes each) or 64KiB, binary_macs=10M, latency=5ms; repeat for more.",
)
@click.option(
    "--latency-table", help="Table of a device, for latency; see larq-nas latency --build-table."
)
@click.option(
    "--epochs",
    type=int,
    help="Epochs of the search (dms: of weights; progressive: of each stage), or generations; by "
    "default the method's.",
)
@click.option(
    "--train-epochs",
    type=StageEpochs(),
    help="Epochs the found network is trained for, 0 for none, of all stages or of each; by "
    "default the method's.",
)
@click.option(
    "--time-limit", help="Time for the search, such as 90min or 2h; the training comes on top."
)
@click.option(
    "--seeds",
    type=int,
    default=1,
    help="Searches by as many seeds; the best goes on, after 5 epochs of training.",
)
@click.option(
    "--retrain",
    type=int,
    default=1,
    help="Best candidates (evolution) that are each trained for all --train-epochs; the best goes "
    "on.",
)
@click.option(
    "--baselines",
    is_flag=False,
    flag_value="uniform",
    help="Train what the found network is held against: uniform (the default), a network of equal "
    "cost whose widths are all the same multiple; random, the best of random candidates; or both "
    "with a comma.",
)
@data_options
@test_option
@click.option(
    "--workers", type=int, help="Processes on this machine that train candidates (evolution)."
)
@run_options
@one_line_errors
def search(
    method: str | None,
    space: str | None,
    searcher: str | None,
    recipe: str | None,
    settings: dict[str, Any],
    shows: bool,
    budget: dict[str, Any],
    latency_table: str | None,
    epochs: int | None,
    train_epochs: int | dict[str, int] | None,
    time_limit: str | None,
    seeds: int,
    retrain: int,
    baselines: str | None,
    teacher: Path | None,
    data: DataOptions,
    test: str | None,
    workers: int | None,
    seed: int,
    directory: Path | None,
    no_resume: bool,
    as_json: bool,
) -> None:
    """Search a space for a binary network, train it and convert it.

    Leaves in DIRECTORY: architecture.json, history.csv, a record of what was tried, model.keras,
    model.tflite, result.json, checkpoints and TensorBoard logs. Killed at any moment, the same
    command goes on.

    \b
    larq-nas search --data digits --batch-size 32 --set space.search_channels=8 \\
        --set searcher.architecture_learning_rate=0.003 --epochs 8 --train-epochs 30 \\
        --directory runs/digits
    larq-nas search --data photos --image-size 32 --batch-size 32 --set space.search_channels=8 \\
        --set searcher.architecture_learning_rate=0.005 --epochs 6 --train-epochs 10 \\
        --directory runs/quick
    larq-nas search --method bnas_v2 --data cifar10 --set space.cells=8 --directory runs/cifar10
    larq-nas search --space my_space.py:my_space --budget flatbuffer_bytes=64KB \\
        --directory runs/mine
    larq-nas search --method dms_a --settings
    """
    plan = plan_of(method, space, searcher, recipe, settings)
    if shows:
        click.echo(settings_table(plan))
        return
    directory = require_directory(directory)
    end_with_parent()
    _launch_workers(workers, plan.searcher, directory)
    datasets = data.load()
    test_data = data.load_test(test)
    run_search(
        *datasets,
        method=plan,
        budget=budget,
        latency_table=latency_table,
        epochs=epochs,
        train_epochs=train_epochs,
        time_limit=time_limit,
        seeds=seeds,
        retrain=retrain,
        baselines=named(baselines) if baselines else False,
        test=test_data,
        classes=data.classes,
        class_weight=data.class_weight,
        augment=data.augment,
        teacher=load_teacher(teacher),
        directory=directory,
        seed=seed,
        resume=not no_resume,
        verbose=verbosity(as_json),
    )
    print_outcome(directory, as_json)


def _launch_workers(workers: int | None, searcher: Searcher, directory: Path) -> None:
    """Run this command again as a chief and workers, and end with the chief's status."""
    if workers is None or current_role() != "alone":
        return
    require_whole(workers=workers)
    if not searcher.several_processes:
        raise InputError(
            f"`--workers` needs a searcher that trains candidates, such as evolution, but got "
            f"{searcher.name}."
        )
    command = [sys.executable, "-m", "larq_nas.cli", *sys.argv[1:]]
    raise SystemExit(launch(command, workers, directory))
