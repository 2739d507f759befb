"""Regularized evolution of cells against random search, at equal trials, on BATS' space.

Criterion, set before: regularized evolution is above random search in the mean over seeds, both of
the best accuracy of a search, on images held out of its training data, and of the test accuracy of
what each found, all trained alike. Test images choose nothing.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np

from larq_nas.files import read_table
from larq_nas.searchers import Evolution
from larq_nas.searchers.evolution import Aging, Strategy
from larq_nas.spaces import Bats
from larq_nas.training import Recipe

from quicknet import IMAGE_SIZE, correct, data  # isort: skip  (beside this file)
from record import record  # isort: skip

RECIPE, BATCH_SIZE = Recipe(5e-3, stages=("binary",)), 32
STRATEGIES = ("aging", "random")


def searched(strategy: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Search, or go on, and return the accuracy of each candidate in turn and what was found."""
    directory = arguments.folder / f"{strategy}_seed{seed}"
    chosen: Strategy | str = Aging(arguments.sample) if strategy == "aging" else strategy
    searcher = Evolution(
        population=arguments.population,
        candidate_epochs=arguments.candidate_epochs,
        widest_epochs=0,
        search_split=arguments.search_split,
        trade_off=0,
        strategy=chosen,
        recipe=RECIPE,
        keep=0,
        confirm=0,
    )
    larq_nas.search(
        *_data(arguments),
        _space(arguments),
        searcher,
        epochs=arguments.trials // arguments.population,
        train_epochs=0,
        seed=seed,
        directory=directory,
        verbose=2,
    )
    rows = sorted(
        read_table(directory / "candidates.csv", "candidate"), key=lambda row: row["candidate"]
    )
    found = larq_nas.Architecture.load(directory / "architecture.json")
    return {
        "strategy": strategy,
        "seed": seed,
        "accuracies": [row.get("accuracy") for row in rows],
        "choices": dict(found.choices),
    }


def trained(run: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Train what a search found, and return what it is worth on the test images."""
    space = _space(arguments)
    images = _data(arguments)
    model = larq_nas.train(
        larq_nas.Architecture(space.name, space.settings(), run["choices"]),
        *images,
        epochs=arguments.train_epochs,
        recipe=RECIPE,
        seed=run["seed"],
        directory=arguments.folder / f"trained_{run['strategy']}_seed{run['seed']}",
        verbose=2,
    )
    costs = larq_nas.cost.profile(model).summary()
    used = {name: costs[name] for name in ("binary_macs", "macs", "parameters")}
    return {"test_accuracy": float(correct(model, images[1]).mean()), **used}


def _data(arguments: argparse.Namespace) -> Any:
    return data(f"train[:{arguments.images}]", batch_size=BATCH_SIZE)


def _space(arguments: argparse.Namespace) -> Bats:
    return Bats(cells=arguments.cells, channels=arguments.channels)


def best_so_far(accuracies: Sequence[float | None]) -> list[float]:
    """Return the best accuracy after each trial; one that failed has none."""
    return np.maximum.accumulate([accuracy or 0.0 for accuracy in accuracies]).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=80)
    parser.add_argument("--population", type=int, default=10)
    parser.add_argument("--sample", type=int, default=5)
    parser.add_argument("--cells", type=int, default=3)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--search-split", type=float, default=0.5)
    parser.add_argument("--candidate-epochs", type=int, default=2)
    parser.add_argument("--train-epochs", type=int, default=20)
    parser.add_argument("--name", default="cells_evolution", help="of the file in results/")
    parser.add_argument("--folder", type=Path, default=Path("runs/cells_evolution"))
    arguments = parser.parse_args()
    runs = []
    for seed in arguments.seeds:
        for strategy in STRATEGIES:
            run = searched(strategy, seed, arguments)
            run |= {"best": best_so_far(run["accuracies"]), **trained(run, arguments)}
            runs.append(run)
            print(strategy, seed, f"held out {run['best'][-1]:.4f}", f"{run['test_accuracy']:.4f}")
    means: dict[str, dict[str, float]] = {}
    for strategy in STRATEGIES:
        own = [run for run in runs if run["strategy"] == strategy]
        means[strategy] = {
            "held_out": float(np.mean([run["best"][-1] for run in own])),
            "test": float(np.mean([run["test_accuracy"] for run in own])),
        }
    aging, drawn = (means[strategy] for strategy in STRATEGIES)
    above = all(aging[name] > drawn[name] for name in aging)
    print(means, "criterion met" if above else "criterion not met")
    settings = {k: v for k, v in vars(arguments).items() if k not in ("folder", "name")}
    settings |= {"image_size": IMAGE_SIZE, "batch_size": BATCH_SIZE, "recipe": RECIPE.settings()}
    record(arguments.name, settings, {"means": means, "aging_above_random": above, "runs": runs})


if __name__ == "__main__":
    main()
