"""The command `larq-nas compare`."""

import json
from pathlib import Path
from typing import Any

import click

from larq_nas.cli.common import (
    DataOptions,
    Numbers,
    StageEpochs,
    data_options,
    one_line_errors,
    read_space,
    settings_option,
    space_settings,
    verbosity,
)
from larq_nas.compare import compare as run_comparison
from larq_nas.methods import METHODS

__all__ = ["compare"]


@click.command()
@click.argument("architectures", nargs=-1, required=True)
@settings_option("A setting of the spaces, such as cells=8, for each that has it; repeat for more.")
@click.option(
    "--space",
    help="Where random architectures are drawn from; by default the space of the first run or file "
    "to compare, or else bats.",
)
@click.option(
    "--recipe",
    default="bats",
    show_default=True,
    help=f"Method whose recipe all are trained by: {', '.join(sorted(METHODS))}.",
)
@data_options
@click.option(
    "--epochs",
    type=StageEpochs(),
    help="Epochs of each training, of all stages or of each; by default those of the recipe.",
)
@click.option(
    "--seeds", type=Numbers(), default="0,1,2", show_default=True, help="A training for each."
)
@click.option("--no-latency", is_flag=True, help="Do not time the flatbuffers on this machine.")
@click.option(
    "--directory",
    required=True,
    type=click.Path(path_type=Path),
    help="Where all is kept. The same command again goes on where it was.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON, nothing else.")
@one_line_errors
def compare(
    architectures: tuple[str, ...],
    settings: dict[str, Any],
    space: str | None,
    recipe: str,
    data: DataOptions,
    epochs: int | dict[str, int] | None,
    seeds: tuple[int, ...],
    no_latency: bool,
    directory: Path,
    as_json: bool,
) -> None:
    """Train architectures alike, several times each, and compare them.

    ARCHITECTURES are directories of runs, files, published names, backbones such as
    resnet18_cifar, or random:5 for five random ones of a space. Real ones are binarized.

    \b
    larq-nas compare bats darts_second_order random:5 resnet18_cifar --set cells=5 \\
        --set channels=24 --epochs 20 --directory runs/comparison
    """
    rows = run_comparison(
        list(architectures),
        *data.load(),
        directory=directory,
        seeds=seeds,
        epochs=epochs,
        recipe=recipe,
        settings=space_settings(settings),
        space=read_space(space) if space else None,
        classes=data.classes,
        class_weight=data.class_weight,
        augment=data.augment,
        latency=not no_latency,
        verbose=verbosity(as_json),
    )
    if as_json:
        click.echo(json.dumps({"directory": str(directory), "rows": rows}, indent=2))
