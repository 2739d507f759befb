"""Bytes of the smallest network of each space, for microcontrollers and other small memories."""

import argparse
from typing import Any

from larq_nas.cost import Budget, SpaceCosts
from larq_nas.cost.budget import _lightest
from larq_nas.errors import InputError
from larq_nas.spaces import resolve

from record import record  # isort: skip  (beside this file)

SHAPES = ((8, 8, 1), (16, 16, 1), (32, 32, 3), (96, 96, 1))
CELLS = {"cells": 3, "channels": 8, "nodes": 2}
RATIOS = {"ratios": (0.125, 0.25, 0.5)}
SPACES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("resnet18_cifar", {}),
    ("resnet18_cifar", RATIOS),
    ("resnet18", {}),
    ("resnet18", RATIOS),
    ("vgg_small", {}),
    ("vgg_small", RATIOS),
    ("vgg11", {}),
    ("vgg11", RATIOS),
    ("bats", {}),
    ("bats", CELLS),
    ("bats", {**CELLS, "stem": "imagenet"}),
    ("bnas", CELLS),
    ("darts", CELLS),
)


def smallest(name: str, settings: dict[str, Any], shape: tuple[int, int, int]) -> str:
    """Return bytes of the flatbuffer and of activations, for the network with fewest of these."""
    try:
        costs = SpaceCosts(resolve(name, settings), shape, 10)
        lightest = _lightest(costs, Budget({"activation_bytes": 1}))
    except InputError:
        return "too small"
    found = costs.of(lightest, costs.narrowest)
    return f"{int(found['flatbuffer_bytes']):,} / {int(found['activation_bytes']):,}"


def row(name: str, settings: dict[str, Any]) -> str:
    """Return a line of the table in docs/budgets.md."""
    changed = " ".join(
        f"{setting}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
        for setting, value in settings.items()
    )
    figures = [smallest(name, settings, shape) for shape in SHAPES]
    return f"| `{name}` | {changed and f'`{changed}`'} | {' | '.join(figures)} |"


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    shapes = ["x".join(map(str, shape)) for shape in SHAPES]
    lines = []
    print(f"| space | settings | {' | '.join(shapes)} |\n{'| --- ' * 6}|")
    for name, settings in SPACES:
        lines.append(row(name, settings))
        print(lines[-1], flush=True)
    record("small_networks", {"classes": 10, "shapes": shapes}, lines)


if __name__ == "__main__":
    main()
