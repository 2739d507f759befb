"""What commands that end in a run print at their end."""

import json
import sys
from pathlib import Path

import click

__all__ = ["print_outcome", "verbosity"]


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
