"""Whether an evolution of a QuickNet's widths returns a network that is worse than the QuickNet.

The QuickNet keeps to the budget. What is found and the QuickNet are trained alike, and measured on
images that neither the search nor the training had. Criterion, set before: the found network is at
least as accurate as the QuickNet in every seed. What ranks candidates is measured too: the
accuracies of ten of them in the search beside those after full training. Needs scipy.
"""

import argparse
from pathlib import Path
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
from scipy.stats import kendalltau, spearmanr

from larq_nas.files import read_table
from larq_nas.searchers import Evolution
from larq_nas.spaces import ModelWidths

from quicknet import BATCH_SIZE, IMAGE_SIZE, RECIPE, correct, data, quicknet  # isort: skip
from record import record  # isort: skip

SPLITS = ("train[:10000]", "test[:5000]")
BUDGET = {"flatbuffer_bytes": "112KB", "binary_macs": "17M"}


def searched(seed: int, arguments: argparse.Namespace) -> Path:
    """Search, or go on, and return where."""
    directory: Path = arguments.folder / f"search_seed{seed}"
    searcher = Evolution(
        population=arguments.population,
        candidate_epochs=arguments.candidate_epochs,
        widest_epochs=arguments.widest_epochs,
        subset=arguments.subset,
        trade_off=0,
        recipe=RECIPE,
        keep=0,
        confirm=arguments.confirm,
        confirm_epochs=arguments.confirm_epochs,
    )
    larq_nas.search(
        *data(*SPLITS),
        _space(arguments),
        searcher,
        budget=BUDGET,
        epochs=arguments.candidates // arguments.population,
        train_epochs=0,
        seed=seed,
        directory=directory,
        verbose=2,
    )
    return directory


def trained(choices: dict[str, Any], seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train a network, and return which of the other images it is right about, and its costs."""
    space, images = _space(arguments), data(*SPLITS)
    ratios = "_".join(f"{ratio:g}" for ratio in choices.values())
    directory = arguments.folder / f"trained_{ratios}_seed{seed}"
    model = larq_nas.train(
        larq_nas.Architecture(space.name, space.settings(), choices),
        *images,
        space=space,
        epochs=arguments.train_epochs,
        recipe=RECIPE,
        seed=seed,
        directory=directory,
        verbose=2,
    )
    size = (directory / "model.tflite").stat().st_size
    binary = int(larq_nas.cost.profile(model).summary()["binary_macs"])
    right = correct(model, images[1])
    return {"right": right, "accuracy": float(right.mean()), "binary_macs": binary, "bytes": size}


def compared(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the found network beside the one that was given."""
    space = _space(arguments)
    directory = searched(seed, arguments)
    found = dict(larq_nas.Architecture.load(directory / "architecture.json").choices)
    mine = trained(found, seed, arguments)
    theirs = trained(dict.fromkeys(space.widths, 1.0), seed, arguments)
    difference = mine.pop("right") - 1.0 * theirs.pop("right")
    confirmed = directory / "confirmed.csv"
    return {
        "seed": seed,
        "choices": found,
        "is_incumbent": all(float(ratio) == 1 for ratio in found.values()),
        "found": mine,
        "incumbent": theirs,
        "difference": float(difference.mean()),
        "standard_error": float(difference.std(ddof=1) / len(difference) ** 0.5),
        "confirmed": read_table(confirmed) if confirmed.exists() else [],
    }


def ranked(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return how accuracies in the search agree with those after full training."""
    rows = read_table(searched(seed, arguments) / "candidates.csv", "candidate")
    names = list(_space(arguments).widths)
    rows = [row for row in rows if "accuracy" in row][: arguments.ranked]
    final = [trained({n: float(row[n]) for n in names}, seed, arguments) for row in rows]
    brief, full = [row["accuracy"] for row in rows], [one["accuracy"] for one in final]
    return {
        "seed": seed,
        "candidates": [{name: row[name] for name in names} for row in rows],
        "in_search": brief,
        "trained": full,
        "spearman": float(spearmanr(brief, full).statistic),
        "kendall_tau": float(kendalltau(brief, full).statistic),
    }


def _space(arguments: argparse.Namespace) -> ModelWidths:
    return ModelWidths(quicknet(), ratios=tuple(arguments.ratios))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    ratios = [0.5, 0.75, 1.0, 1.25, 1.5, 2.0]
    parser.add_argument("--ratios", nargs="+", type=float, default=ratios)
    parser.add_argument("--candidates", type=int, default=12)
    parser.add_argument("--population", type=int, default=6)
    parser.add_argument("--candidate-epochs", type=int, default=2)
    parser.add_argument("--widest-epochs", type=int, default=2)
    parser.add_argument("--subset", type=int, default=5000)
    parser.add_argument("--confirm", type=int, default=3)
    parser.add_argument("--confirm-epochs", type=int)
    parser.add_argument("--train-epochs", type=int, default=12)
    parser.add_argument(
        "--ranked", type=int, default=10, help="candidates that are trained in full"
    )
    parser.add_argument("--name", default="incumbent", help="of the file in results/")
    parser.add_argument("--folder", type=Path, default=Path("runs/incumbent"))
    arguments = parser.parse_args()
    rows = []
    for seed in arguments.seeds:
        rows.append(compared(seed, arguments))
        print(rows[-1])
    ranks = ranked(arguments.seeds[0], arguments)
    print(ranks)
    met = all(row["difference"] >= 0 for row in rows)
    mean = float(np.mean([row["difference"] for row in rows]))
    print(f"difference {mean:+.4f} in the mean:", "criterion met" if met else "criterion not met")
    settings = {k: v for k, v in vars(arguments).items() if k not in ("folder", "name")}
    settings |= {"image_size": IMAGE_SIZE, "batch_size": BATCH_SIZE, "splits": SPLITS}
    settings |= {"budget": BUDGET, "recipe": RECIPE.settings()}
    record(arguments.name, settings, {"criterion_met": met, "seeds": rows, "ranking": ranks})


if __name__ == "__main__":
    main()
