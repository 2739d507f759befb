"""`larq-nas search`."""

import dataclasses
from pathlib import Path
from typing import Any

import click

from larq_nas.cli.common import one_line_errors, read_space, settings_option
from larq_nas.cli.data import Data, data_options
from larq_nas.cli.dimension import dimension_options
from larq_nas.cli.evolution import evolution_options, launch_workers
from larq_nas.cli.progressive import progressive_options
from larq_nas.cli.recipe import choose_recipe, load_teacher, recipe_options
from larq_nas.cli.run import print_outcome, run_options, verbosity
from larq_nas.cost import BUDGETS
from larq_nas.errors import InputError
from larq_nas.layers import ComputedIn
from larq_nas.search import search as run_search
from larq_nas.searchers import Searcher, resolve_searcher
from larq_nas.spaces import resolve
from larq_nas.tuning import end_with_parent

__all__ = ["search"]


@click.command()
@click.option(
    "--space",
    default="bats",
    show_default=True,
    help="Search space: a name, or your own as FILE.py:FUNCTION or MODULE:FUNCTION.",
)
@settings_option(
    "A setting of the space; repeat for more. bats and bnas: cells, channels, nodes, stem, "
    "operations (NAME,NAME), search_cells, search_channels; bats: groups, activation; bnas: "
    "skips, stem_groups."
)
@click.option(
    "--searcher",
    default="differentiable",
    show_default=True,
    help="Search method: differentiable or progressive for operations; evolution, dimension, dms_a "
    "or dms_b for widths.",
)
@click.option(
    "--temperature",
    type=float,
    help="Temperature of the choice between operations; lower is harder. By default the paper's.",
)
@click.option(
    "--learning-rate", type=float, help="Learning rate of the supernet's weights, the first one."
)
@click.option(
    "--architecture-learning-rate",
    type=float,
    help="Learning rate of the architecture parameters; higher decides in fewer steps.",
)
@click.option(
    "--diversity",
    type=float,
    help="Weight of the entropy that rewards undecided choices early on; by default 1 for bnas, 0 "
    "(none) for others.",
)
@click.option(
    "--diversity-annealing", type=float, help="Epochs in which it falls to 1/e [default: 7.7]."
)
@click.option(
    "--transfer-factor",
    type=float,
    help="By how much the zero operation is weakened at the end, for a network to be trained on "
    "more data than searched.",
)
@click.option(
    "--rematerialize",
    is_flag=True,
    default=None,
    help="Compute each cell again for its gradient: less memory, a quarter to a third more time.",
)
@progressive_options
@evolution_options
@dimension_options
@recipe_options
@data_options
@click.option("--max-memory", help="Most bytes of weights, such as 64KB (1,000 each) or 64KiB.")
@click.option("--max-flatbuffer", help="Most bytes of model.tflite.")
@click.option("--max-activation-memory", help="Most bytes of activations alive at once.")
@click.option("--max-macs", help="Most real multiply-accumulates of an image, such as 1.5M.")
@click.option("--max-binary-macs", help="Most binary multiply-accumulates of an image.")
@click.option("--max-parameters", help="Most weights, of any precision.")
@click.option("--max-latency", help="Longest time of an image by --latency-table, such as 5ms.")
@click.option("--latency-table", help="Table of a device; see larq-nas latency --build-table.")
@click.option(
    "--epochs",
    type=int,
    help="Epochs of the search (dimension: of weights; progressive: of each stage), or "
    "generations; by default the paper's.",
)
@click.option(
    "--train-epochs",
    type=int,
    default=100,
    show_default=True,
    help="Epochs the found network is trained for; 0 leaves it as derived.",
)
@run_options
@one_line_errors
def search(
    space: str,
    settings: dict[str, Any],
    searcher: str,
    workers: int | None,
    precision: ComputedIn | None,
    recipe: str | None,
    train_learning_rate: float | None,
    teacher: Path | None,
    data: Data,
    epochs: int | None,
    train_epochs: int,
    seed: int,
    directory: Path,
    no_resume: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Search a space for a binary network, train it and convert it.

    Leaves in DIRECTORY: architecture.json, history.csv, a record of what was tried, model.keras,
    model.tflite, result.json, checkpoints and TensorBoard logs. Killed at any moment, the same
    command goes on.

    \b
    larq-nas search --data digits --epochs 3 --train-epochs 10 --directory runs/digits
    larq-nas search --data cifar10 --set cells=8 --set search_cells=5 --directory runs/cifar10
    larq-nas search --space my_space.py:my_space --directory runs/mine
    """
    resolved = resolve(read_space(space), settings)
    method = resolve_searcher(searcher)
    limits = {name: options.pop(name) for name in (*BUDGETS, "latency_table")}
    method = _with_settings(method, options, precision)
    end_with_parent()
    launch_workers(workers, method, directory)
    training = choose_recipe(recipe, train_learning_rate, precision, resolved)
    datasets = data.load()
    run_search(
        *datasets,
        resolved,
        method,
        epochs=epochs,
        train_epochs=train_epochs,
        classes=data.classes,
        recipe=training,
        teacher=load_teacher(teacher),
        augment=data.augment,
        directory=directory,
        seed=seed,
        resume=not no_resume,
        **limits,
        verbose=verbosity(as_json),
    )
    print_outcome(directory, as_json)


def _with_settings(
    method: Searcher, given: dict[str, Any], precision: ComputedIn | None
) -> Searcher:
    """Return `method` with what was given, or raise `InputError` for what it does not have."""
    changes = {name: value for name, value in given.items() if value is not None}
    known = {entry.name for entry in dataclasses.fields(method)}  # type: ignore[arg-type]
    for name in changes.keys() - known:
        option = "--shared/--rebuilt" if name == "shared" else f"--{name.replace('_', '-')}"
        raise InputError(f"Searcher `{method.name}` has no setting `{option}`: leave it out.")
    # The network that is found is trained with it, too.
    if precision is not None and "precision" in known:
        changes["precision"] = precision
    changed: Searcher = dataclasses.replace(method, **changes)  # type: ignore[type-var]
    return changed
