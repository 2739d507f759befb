"""The options of commands that make a run, and what they print at its end."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

__all__ = ["print_outcome", "run_options", "verbosity"]

_OPTIONS = (
    click.option(
        "--seed", type=int, default=0, show_default=True, help="Seed of everything random."
    ),
    click.option(
        "--directory",
        required=True,
        type=click.Path(path_type=Path),
        help="Where the run is kept. The same command again goes on where the run was.",
    ),
    click.option("--no-resume", is_flag=True, help="Refuse to go on with a run that is there."),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, nothing else."),
)


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give `command` the options `seed`, `directory`, `no_resume` and `as_json`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def verbosity(as_json: bool) -> int:
    """Return Keras's `verbose`: nothing beside JSON, no bars into a file."""
    return 0 if as_json else (1 if sys.stdout.isatty() else 2)


def print_outcome(directory: Path, as_json: bool) -> None:
    """Print the result as JSON if asked to, and fail if the conversion was refused."""
    result = json.loads((directory / "result.json").read_text(encoding="utf-8"))
    if as_json:
        click.echo(json.dumps({"directory": str(directory), **result}, indent=2))
    if "refused" in result:
        raise click.ClickException(result["refused"])
