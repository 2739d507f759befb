"""Accuracies of architectures over what they cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from larq_nas.report.figures import can_plot, new_figure, save_figure

__all__ = ["plot_comparison"]


def plot_comparison(rows: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Plot the accuracy of each row, with its spread, over binary MACs.

    # Arguments
        rows: see `larq_nas.comparing.summarize`.
        path: the image, such as `comparison.png`.

    # Returns
        Whether it was plotted: without matplotlib it is not.
    """
    if not can_plot():
        return False
    figure = new_figure(8, 5)
    axes = figure.subplots()
    for row in rows:
        if "accuracy" in row:
            lost = f" ({row['diverged']} diverged)" if row.get("diverged") else ""
            axes.errorbar(
                row["binary_macs"] / 1e6,
                100 * row["accuracy"],
                yerr=100 * (row["spread"] or 0),
                fmt="o",
                capsize=4,
                label=row["architecture"] + lost,
            )
    axes.set_xlabel("binary MACs of an image (millions)")
    axes.set_ylabel("accuracy on validation data (%)")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    save_figure(figure, path)
    return True
