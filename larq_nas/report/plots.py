"""Plots of searches and comparisons, where matplotlib is installed."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from larq_nas.files import replacing

__all__ = ["plot_comparison", "plot_widths"]


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


_COLORS = 20
"""Colours of matplotlib's `tab20`; they repeat beyond."""


def plot_widths(
    rows: Sequence[Mapping[str, str]],
    uniform: Mapping[str, int],
    found: Mapping[str, int],
    path: Path,
) -> bool:
    """Plot the means and sigma over the epochs, and the widths found (DMS, figure 4).

    # Arguments
        rows: those of `widths.csv`.
        uniform: number of filters of each choice at ratio 1.
        found: number of filters of each choice that was found.
        path: the image, such as `widths.png`.

    # Returns
        Whether it was plotted: without matplotlib it is not.
    """
    if not can_plot():
        return False
    figure = new_figure(10, 7)
    means, bars = figure.subplots(2, 1, height_ratios=(3, 2))
    _plot_means(means, rows, list(uniform))
    _plot_filters(bars, uniform, found)
    save_figure(figure, path)
    return True


def _plot_means(axes: Any, rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> None:
    import matplotlib

    colors = matplotlib.colormaps["tab20"].colors  # type: ignore[attr-defined]
    for place, name in enumerate(names):
        of_choice = [row for row in rows if row["choice"] == name]
        epochs = [int(row["epoch"]) for row in of_choice]
        axes.plot(
            epochs,
            [float(row["mean"]) for row in of_choice],
            label=name,
            color=colors[place % _COLORS],
        )
    one = [row for row in rows if row["choice"] == names[0]]
    sigma = [float(row["sigma"]) for row in one]
    axes.plot([int(row["epoch"]) for row in one], sigma, "k--", label="sigma")
    axes.set_xlabel("epoch")
    axes.set_ylabel("mean of the expansion ratio; sigma")
    axes.legend(ncols=2, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))


def _plot_filters(axes: Any, uniform: Mapping[str, int], found: Mapping[str, int]) -> None:
    places = range(len(uniform))
    for offset, (label, widths) in enumerate((("uniform", uniform), ("found", found))):
        axes.bar([p + 0.4 * offset for p in places], list(widths.values()), 0.4, label=label)
    axes.set_xticks([p + 0.2 for p in places], list(uniform), rotation=30, ha="right")
    axes.set_ylabel("filters")
    axes.legend()


def plot_comparison(rows: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Plot the accuracy of each row, with its spread, over binary MACs.

    # Arguments
        rows: see `larq_nas.compare.summarize`.
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
