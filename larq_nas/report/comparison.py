"""Accuracies of architectures over what they cost."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from larq_nas.files import replacing

__all__ = ["plot_comparison"]


def plot_comparison(rows: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Plot the accuracy of each row, with its spread, over binary MACs.

    # Arguments
        rows: see `larq_nas.comparing.summarize`.
        path: the image, such as `comparison.png`.

    # Returns
        Whether it was plotted: without matplotlib it is not.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return False
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        if "accuracy" in row:
            axes.errorbar(
                row["binary_macs"] / 1e6,
                100 * row["accuracy"],
                yerr=100 * (row["spread"] or 0),
                fmt="o",
                capsize=4,
                label=row["architecture"],
            )
    axes.set_xlabel("binary MACs of an image (millions)")
    axes.set_ylabel("accuracy on validation data (%)")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
    return True
