"""The options of `larq-nas search` that are about progressive searches."""

from collections.abc import Callable
from typing import Any

import click

__all__ = ["progressive_options"]


class Numbers(click.ParamType):
    """Whole numbers, separated by commas."""

    name = "N,N,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        try:
            return tuple(int(number) for number in str(value).split(","))
        except ValueError:
            self.fail(f"expected whole numbers such as 5,11,17, but got {value!r}", param, ctx)


_OPTIONS = (
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
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
