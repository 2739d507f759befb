"""The command `larq-nas derive`."""

from pathlib import Path

import click

from larq_nas.cli.common import one_line_errors, read_space
from larq_nas.errors import InputError
from larq_nas.select import derive as derive_architecture

__all__ = ["derive"]


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--transfer-factor",
    type=float,
    help="By how much the zero operation is weakened, for a network to be trained on more data; by "
    "default as in the search.",
)
@click.option("--epoch", type=int, help="Epoch to derive, from 1 on; by default the last.")
@click.option(
    "--space", help="Search space of your own it is of: FILE.py:FUNCTION or MODULE:FUNCTION."
)
@click.option(
    "--output", type=click.Path(path_type=Path), help="File to write; by default it is printed."
)
@one_line_errors
def derive(
    run: Path,
    transfer_factor: float | None,
    epoch: int | None,
    space: str | None,
    output: Path | None,
) -> None:
    """Derive another architecture from a search, without searching again.

    \b
    larq-nas derive runs/cifar10 --transfer-factor 3 --output imagenet.json
    larq-nas train imagenet.json --data imagenet2012 --image-size 224 --set stem=imagenet \\
        --directory runs/imagenet
    """
    found = derive_architecture(
        run,
        transfer_factor=transfer_factor,
        epoch=epoch,
        space=read_space(space) if space else None,
    )
    if output is None:
        click.echo(found.to_json(), nl=False)
        return
    try:
        found.save(output)
    except OSError as error:
        raise InputError(f"Cannot write `{output}`: {error.strerror}.") from None
    click.echo(f"written: {output}")
