"""Figures of matplotlib, which need not be installed."""

import importlib.util
from pathlib import Path
from typing import Any

from larq_nas.files import replacing

__all__ = ["can_plot", "new_figure", "save_figure"]


def can_plot() -> bool:
    """Return whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure of that size, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
