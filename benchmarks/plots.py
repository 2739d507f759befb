"""Plots of results, beside them; needs matplotlib."""

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

RESULTS = Path(__file__).parent / "results"
OPERATIONS = {
    "convolutions": ("conv_3x3", "conv_5x5", "dilated_conv_3x3", "dilated_conv_5x5"),
    "pools": ("max_pool_3x3", "average_pool_3x3"),
    "zero": ("zero",),
}


def diversity() -> None:
    """What would be chosen, and how probable it is, epoch by epoch, with and without it."""
    runs = read("diversity")["measured"]
    figure, axes = plt.subplots(2, 2, figsize=(10, 6.4), sharey="row", sharex=True)
    for column, weight in enumerate((0.0, 1.0)):
        alike = [run for run in runs if run["diversity"] == weight]
        for row, (key, whole) in enumerate((("operations", 16), ("probabilities", 1))):
            for color, (label, names) in zip("brk", OPERATIONS.items(), strict=True):
                shares = np.array(
                    [[sum(e.get(n, 0) for n in names) / whole for e in run[key]] for run in alike]
                )
                band(axes[row, column], np.arange(1, shares.shape[1] + 1), shares, color, label)
        axes[0, column].set_title(f"lambda = {weight:g}")
        axes[1, column].set_xlabel("epoch")
    axes[0, 0].set_ylabel("share of chosen operations")
    axes[1, 0].set_ylabel("mean probability on an edge")
    axes[0, 1].legend()
    save(figure, "diversity")


def comparison() -> None:
    """Plot the accuracy of each row, with its spread, over binary MACs."""
    figure, axes = plt.subplots(figsize=(8, 5))
    for row in read("comparison")["measured"]:
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
    save(figure, "comparison")


def skips() -> None:
    """Gradient norms at the first cells in training, with skips and without."""
    result = read("skips")
    columns = result["settings"]["columns"]
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), sharey=True)
    for axis, column in zip(
        axes, ("norm of cell 0", "norm of cell 1", "norm of cell 2"), strict=True
    ):
        for color, kind in (("b", True), ("r", False)):
            alike = [run["rows"] for run in result["measured"] if run["skips"] == kind]
            norms = np.array(alike)[:, :, columns.index(column)]
            steps = result["settings"]["every"] * np.arange(norms.shape[1])
            band(axis, steps, norms, color, "with skips" if kind else "without")
        axis.set(title=column, xlabel="step", yscale="log")
    axes[0].set_ylabel("gradient norm")
    axes[2].legend()
    save(figure, "skips")


def search_step() -> None:
    """What a step takes, formulation by formulation, and what its memory is."""
    names = ("search_step", "search_step_bats", "search_step_growth")
    found = [name for name in names if (RESULTS / f"{name}.json").exists()]
    rows = [row for name in found for row in read(name)["measured"]]
    cases = list(dict.fromkeys(row["case"] for row in rows))
    formulations = list(dict.fromkeys(row["formulation"] for row in rows))
    figure, axes = plt.subplots(2, 1, figsize=(11, 6.4), sharex=True)
    width = 0.8 / len(formulations)
    for index, formulation in enumerate(formulations):
        alike = [row for row in rows if row["formulation"] == formulation]
        places = [cases.index(row["case"]) + index * width for row in alike]
        axes[0].bar(places, [row["median_seconds"] for row in alike], width, label=formulation)
        axes[1].bar(places, [row["peak_bytes"] / 2**30 for row in alike], width)
    axes[0].set(ylabel="seconds of a step", yscale="log")
    axes[1].set(ylabel="peak memory, GiB")
    axes[1].set_xticks(range(len(cases)), cases, rotation=30, ha="right")
    axes[0].legend()
    save(figure, "search_step")


def ablations() -> None:
    """What is found at each temperature and in each domain: how much has no weights, how good."""
    names = ("ablation_temperature", "ablation_domain")
    found = [name for name in names if (RESULTS / f"{name}.json").exists()]
    figure, axes = plt.subplots(2, len(found), figsize=(6 * len(found), 6), squeeze=False)
    for column, name in enumerate(found):
        rows = read(name)["measured"]
        labels = list(dict.fromkeys(row["label"] for row in rows))
        for row, (key, title) in enumerate(
            (("parameter_free", "share without weights"), ("accuracy", "test accuracy"))
        ):
            figures = [[run[key] for run in rows if run["label"] == label] for label in labels]
            axes[row, column].bar(range(len(labels)), [np.mean(f) for f in figures], alpha=0.4)
            for place, seeds in enumerate(figures):
                axes[row, column].plot([place] * len(seeds), seeds, "k.")
            shown = [label.replace(", ", ",\n") for label in labels]
            axes[row, column].set_xticks(range(len(labels)), shown, fontsize=7)
            axes[row, column].set_ylabel(title)
    save(figure, "ablations")


def cells_evolution() -> None:
    """Plot the best accuracy so far over trials, with the range of seeds, by strategy."""
    figure, axes = plt.subplots(figsize=(7, 4.4))
    runs = read("cells_evolution")["measured"]["runs"]
    for color, strategy in (("b", "aging"), ("r", "random")):
        best = [run["best"] for run in runs if run["strategy"] == strategy]
        trials = np.arange(1, min(map(len, best)) + 1)
        shown = 100 * np.array([one[: len(trials)] for one in best])
        band(axes, trials, shown, color, f"{strategy}, {len(best)} seeds")
    axes.set(xlabel="trials", ylabel="best accuracy on held-out images (%)")
    axes.legend()
    save(figure, "cells_evolution")


def band(axis: Any, x: np.ndarray, runs: np.ndarray, color: str, label: str) -> None:
    """Plot the mean of runs, and what they range over."""
    axis.plot(x, runs.mean(axis=0), color, label=label)
    axis.fill_between(x, runs.min(0), runs.max(0), color=color, alpha=0.15)


def read(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return result


def save(figure: Any, name: str) -> None:
    figure.tight_layout()
    figure.savefig(RESULTS / f"{name}.png", dpi=120)
    print(f"written: {RESULTS / f'{name}.png'}")


if __name__ == "__main__":
    for plot in (diversity, skips, search_step, cells_evolution):
        if (RESULTS / f"{plot.__name__}.json").exists():
            plot()
    if list(RESULTS.glob("ablation_*.json")):
        ablations()
    if (RESULTS / "comparison.json").exists():
        comparison()
