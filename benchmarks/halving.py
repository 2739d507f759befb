"""Successive halving against full training of the same candidates, on a QuickNet's space.

Candidates are those of one generation, of random draws: of one seed they are the same, with rungs
and without. Criterion, set before: rungs take at most 45 % of the epochs of full training, and name
the same candidate the best in at least two of three seeds. The rank correlation (Kendall's tau)
between accuracies at the first rung and after full training is of all candidates. Needs scipy.
"""

import argparse
from pathlib import Path
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
from scipy.stats import kendalltau

from larq_nas.files import read_table
from larq_nas.searchers import Evolution
from larq_nas.spaces import ModelWidths

from quicknet import BATCH_SIZE, IMAGE_SIZE, RECIPE, data, joint, quicknet  # isort: skip
from record import record  # isort: skip

MOST_EPOCHS = 0.45


def searched(
    rungs: tuple[int, ...], seed: int, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Train the candidates of a seed, or go on, and return the rows of its table."""
    several = len(rungs) > 1
    directory = arguments.folder / f"{arguments.space}_{'_'.join(map(str, rungs))}_seed{seed}"
    searcher = Evolution(
        population=arguments.candidates,
        rungs=rungs if several else None,
        candidate_epochs=rungs[-1],
        widest_epochs=arguments.widest_epochs,
        search_split=0.5,
        trade_off=0,
        strategy="random",
        recipe=RECIPE,
        keep=0,
        confirm=0,
    )
    space: Any = joint if arguments.space == "joint" else ModelWidths(quicknet())
    larq_nas.search(
        # Half of the images are trained on, and half of them compare candidates.
        *data(f"train[:{2 * arguments.images}]"),
        space,
        searcher,
        epochs=1,
        train_epochs=0,
        seed=seed,
        directory=directory,
        verbose=2,
    )
    return read_table(directory / "candidates.csv", "candidate", "accuracy")


def compared(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what rungs save, and what they change, for the candidates of a seed."""
    rungs = tuple(arguments.rungs)
    halved = searched(rungs, seed, arguments)
    first = {row["candidate"]: row[f"accuracy_{rungs[0]}"] for row in halved}
    full = {row["candidate"]: row["accuracy"] for row in searched(rungs[-1:], seed, arguments)}
    names = sorted(full)
    tau = kendalltau([first[name] for name in names], [full[name] for name in names])
    promoted = {r["candidate"]: r["accuracy"] for r in halved if r["epochs"] == rungs[-1]}
    spent = sum(row["epochs"] for row in halved)
    best = max(promoted, key=lambda name: (promoted[name], -name))
    return {
        "seed": seed,
        "epochs": spent,
        "share_of_epochs": spent / (rungs[-1] * len(names)),
        "best_with_rungs": best,
        "best_in_full": max(names, key=lambda name: (full[name], -name)),
        "place_in_full": sorted(names, key=lambda name: -full[name]).index(best) + 1,
        "kendall_tau": float(tau.statistic),
        "p_value": float(tau.pvalue),
        "first_rung": [first[name] for name in names],
        "full": [full[name] for name in names],
        "promoted": promoted,
        # A training that stops on a rung and goes on should be the training that does not stop.
        "promoted_equal_full": all(promoted[name] == full[name] for name in promoted),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", default="joint", choices=("joint", "widths"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--rungs", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--images", type=int, default=5000, help="to train on, and to compare on")
    parser.add_argument("--widest-epochs", type=int, default=0)
    parser.add_argument("--name", default="halving", help="of the file in results/")
    parser.add_argument("--folder", type=Path, default=Path("runs/halving"))
    arguments = parser.parse_args()
    rows = []
    for seed in arguments.seeds:
        rows.append(compared(seed, arguments))
        print({name: value for name, value in rows[-1].items() if not isinstance(value, list)})
    summary = {
        "share_of_epochs": max(row["share_of_epochs"] for row in rows),
        "same_best": sum(row["best_with_rungs"] == row["best_in_full"] for row in rows),
        "mean_tau": float(np.mean([row["kendall_tau"] for row in rows])),
    }
    enough = 3 * summary["same_best"] >= 2 * len(rows)
    met = enough and summary["share_of_epochs"] <= MOST_EPOCHS
    print(summary, "criterion met" if met else "criterion not met")
    settings = {k: v for k, v in vars(arguments).items() if k not in ("folder", "name")}
    settings |= {"image_size": IMAGE_SIZE, "batch_size": BATCH_SIZE, "recipe": RECIPE.settings()}
    record(arguments.name, settings, {"criterion_met": met, **summary, "seeds": rows})


if __name__ == "__main__":
    main()
