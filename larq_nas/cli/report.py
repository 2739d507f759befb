"""The command `larq-nas report`."""

from pathlib import Path

import click

from larq_nas.cli.common import one_line_errors, read_searcher
from larq_nas.errors import InputError
from larq_nas.report.report import report as write_report

__all__ = ["report"]


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write; by default report.html in the directory of a single run.",
)
@click.option("--searcher", help="Searcher of your own that the runs are of: FILE.py:CLASS.")
@one_line_errors
def report(runs: tuple[Path, ...], output: Path | None, searcher: str | None) -> None:
    """Write an HTML report of RUNS: how good each is, what it costs, and why it is so.

    RUNS are directories of searches, trainings and comparisons; one that still goes on is shown as
    far as it is. The file needs no internet connection.

    \b
    larq-nas report runs/digits
    larq-nas report runs/bats runs/bnas runs/comparison --output report.html
    """
    own = read_searcher(searcher) if searcher else None
    if isinstance(own, str):
        raise InputError(f"`searcher` must be FILE.py:CLASS or MODULE:CLASS, but got {own!r}.")
    click.echo(f"written: {write_report(*runs, output=output, searcher=own)}")
