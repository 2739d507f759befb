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
    """Operations that would be chosen, epoch by epoch, with the regularizer and without."""
    runs = read("diversity")["measured"]
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True)
    for axis, weight in zip(axes, (0.0, 1.0), strict=True):
        alike = [run["operations"] for run in runs if run["diversity"] == weight]
        for color, (label, names) in zip("brk", OPERATIONS.items(), strict=True):
            counts = np.array(
                [[sum(e.get(n, 0) for n in names) for e in epochs] for epochs in alike]
            )
            shares = counts / 16
            epochs = np.arange(1, counts.shape[1] + 1)
            axis.plot(epochs, shares.mean(axis=0), color, label=label)
            axis.fill_between(epochs, shares.min(0), shares.max(0), color=color, alpha=0.15)
        axis.set(title=f"lambda = {weight:g}", xlabel="epoch")
    axes[0].set_ylabel("share of chosen operations")
    axes[1].legend()
    save(figure, "diversity")


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
            label = "with skips" if kind else "without"
            axis.semilogy(steps, norms.mean(axis=0), color, label=label)
            axis.fill_between(steps, norms.min(0), norms.max(0), color=color, alpha=0.15)
        axis.set(title=column, xlabel="step")
    axes[0].set_ylabel("gradient norm")
    axes[2].legend()
    save(figure, "skips")


def read(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return result


def save(figure: Any, name: str) -> None:
    figure.tight_layout()
    figure.savefig(RESULTS / f"{name}.png", dpi=120)
    print(f"written: {RESULTS / f'{name}.png'}")


if __name__ == "__main__":
    for plot in (diversity, skips):
        if (RESULTS / f"{plot.__name__}.json").exists():
            plot()
