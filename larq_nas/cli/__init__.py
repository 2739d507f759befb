"""The command line, `larq-nas`."""

import sys
from collections.abc import Sequence
from typing import Any

import click

from larq_nas import __version__
from larq_nas.cli.compare import compare
from larq_nas.cli.convert import convert
from larq_nas.cli.cost import cost
from larq_nas.cli.derive import derive
from larq_nas.cli.latency import latency
from larq_nas.cli.report import report
from larq_nas.cli.search import search
from larq_nas.cli.train import train
from larq_nas.provenance import typed

__all__ = ["main"]


class _Commands(click.Group):
    """Commands that a run remembers as they were typed."""

    def main(self, args: Sequence[str] | None = None, *others: Any, **settings: Any) -> Any:
        arguments = sys.argv[1:] if args is None else list(args)
        with typed(arguments):
            return super().main(arguments, *others, **settings)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="larq-nas")
def main() -> None:
    """Search, train and convert binary neural networks.

    A first network, searched on real data in a few minutes:

    \b
      larq-nas search --data digits --batch-size 32 --set space.search_channels=8 \\
          --set searcher.architecture_learning_rate=0.003 --epochs 8 --train-epochs 30 \\
          --directory runs/digits
    """


main.add_command(search)
main.add_command(train)
main.add_command(derive)
main.add_command(compare)
main.add_command(convert)
main.add_command(cost)
main.add_command(latency)
main.add_command(report)
