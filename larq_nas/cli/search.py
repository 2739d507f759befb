"""The command `larq-nas search`, with the options of each searcher."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from larq_nas.cli.common import named, one_line_errors, read_space, settings_option
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
from larq_nas.cost import BUDGETS
from larq_nas.errors import InputError, require_whole
from larq_nas.layers import ComputedIn
from larq_nas.search import search as run_search
from larq_nas.searchers import Searcher, resolve_searcher
from larq_nas.searchers.evolution.processes import current_role, end_with_parent, launch
from larq_nas.spaces import resolve

__all__ = ["search"]


_DIMENSION_OPTIONS = (
    click.option(
        "--initial-ratio", type=float, help="Mean of each width at the start [default: 1.5]."
    ),
    click.option(
        "--memory-target",
        type=float,
        help="MiB above which widths are charged, as larq-nas cost --convention dms counts.",
    ),
    click.option(
        "--weight-epochs",
        type=int,
        help="Epochs for the weights before each for the widths [default: 5].",
    ),
    click.option(
        "--mean-learning-rate",
        type=float,
        help="Learning rate of the widths; higher moves them in fewer steps.",
    ),
    click.option(
        "--budget-weight",
        type=float,
        help="Loss for a limit that is exceeded by its own size.",
    ),
)


def dimension_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give `command` the options of a dimension search."""
    for option in reversed(_DIMENSION_OPTIONS):
        command = option(command)
    return command


_EVOLUTION_OPTIONS = (
    click.option("--population", type=int, help="Candidates of a generation [default: 32]."),
    click.option(
        "--candidate-epochs", type=int, help="Epochs each candidate is trained for [default: 10]."
    ),
    click.option(
        "--widest-epochs",
        type=int,
        help="Epochs of the widest network, which candidates start from [default: 150].",
    ),
    click.option("--subset", type=int, help="Images that candidates train on; by default all."),
    click.option(
        "--trade-off",
        type=float,
        help="Evolution: points of accuracy given for the operations of the original network "
        "[default: 4]; dimension: loss for each MiB above --memory-target [default: 0.01].",
    ),
    click.option("--strategy", help="genetic, aging or random [default: genetic]."),
    click.option(
        "--objectives",
        callback=lambda _, __, text: None if text is None else tuple(named(text)),
        help="What to maximize, such as accuracy,memory for a Pareto front [default: fitness].",
    ),
    click.option("--keep", type=int, help="Candidates whose weights are kept [default: 3]."),
    click.option(
        "--shared/--rebuilt",
        default=None,
        help="One trace for all candidates, or a network for each: the same results, slower.",
    ),
    click.option(
        "--worker-timeout",
        type=float,
        help="Seconds after which a silent worker's candidate is given to another [default: 60].",
    ),
    click.option(
        "--workers",
        type=int,
        help="Processes on this machine that train candidates at the same time.",
    ),
)


def evolution_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give `command` the options of an evolution."""
    for option in reversed(_EVOLUTION_OPTIONS):
        command = option(command)
    return command


def launch_workers(workers: int | None, searcher: Searcher, directory: Path) -> None:
    """Run this command again as a chief and workers, and end with the chief's status.

    # Arguments
        workers: number of workers; `None` goes on in this process.
        searcher: must be one that many processes can run.
        directory: directory of the run.
    """
    if workers is None or current_role() != "alone":
        return
    require_whole(workers=workers)
    if searcher.name != "evolution":
        raise InputError(f"`--workers` needs `--searcher evolution`, but got {searcher.name}.")
    command = [sys.executable, "-m", "larq_nas.cli", *sys.argv[1:]]
    raise SystemExit(launch(command, workers, directory))


class Numbers(click.ParamType):
    """Whole numbers, separated by commas."""

    name = "N,N,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        try:
            return tuple(int(number) for number in str(value).split(","))
        except ValueError:
            self.fail(f"expected whole numbers such as 5,11,17, but got {value!r}", param, ctx)


_PROGRESSIVE_OPTIONS = (
    click.option(
        "--stage-cells",
        type=Numbers(),
        help="Cells of the supernet in each stage, such as 5,11,17.",
    ),
    click.option(
        "--stage-operations",
        type=Numbers(),
        help="Operations of each edge in each stage, such as 8,5,3.",
    ),
    click.option(
        "--weights",
        type=click.Choice(["binary", "real"]),
        help="What weights are while searched; by default as in the space's paper.",
    ),
    click.option(
        "--activations",
        type=click.Choice(["binary", "real"]),
        help="What the convolutions' inputs are while searched.",
    ),
)


def progressive_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give `command` the options of a progressive search."""
    for option in reversed(_PROGRESSIVE_OPTIONS):
        command = option(command)
    return command


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
