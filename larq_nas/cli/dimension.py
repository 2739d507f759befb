"""The options of `larq-nas search` that are about dimension searches."""

from collections.abc import Callable
from typing import Any

import click

__all__ = ["dimension_options"]

_OPTIONS = (
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
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
