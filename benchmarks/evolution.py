"""Whether evolution finds better widths than random search, and what the found network is worth."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import larq_nas
from larq_nas.searchers import Evolution
from larq_nas.spaces import VggSmall
from larq_nas.training import Recipe

from record import record  # isort: skip  (beside this file)

DATA = {"image_size": 16, "batch_size": 100, "validation_split": "test[:5000]"}
SUBSET, GENERATIONS, POPULATION = 5000, 10, 12
RECIPE = Recipe(0.01, stages=("binary",))
STRATEGIES = ("genetic", "aging", "random")


@dataclass(frozen=True)
class Narrow(VggSmall):
    """VGG-small with a sixteenth of its channels."""

    name: ClassVar[str] = "vgg_small_narrow"
    filters: ClassVar[tuple[int, ...]] = (8, 8, 16, 16, 32, 32)


def evolve(strategy: str, seed: int, folder: Path, widest_epochs: int) -> dict[str, Any]:
    data = larq_nas.datasets.load("cifar10", train_split="train[:20000]", **DATA)
    directory = folder / f"{strategy}_seed{seed}"
    searcher = Evolution(
        population=POPULATION,
        candidate_epochs=1,
        widest_epochs=widest_epochs,
        subset=SUBSET,
        strategy=strategy,
        recipe=RECIPE,
        confirm=0,
        keep=1,
    )
    larq_nas.search(
        *data,
        Narrow(),
        searcher,
        epochs=GENERATIONS,
        train_epochs=0,
        seed=seed,
        directory=directory,
        verbose=2,
    )
    rows = np.genfromtxt(directory / "candidates.csv", delimiter=",", names=True)
    best = [
        float(rows["fitness"][rows["generation"] <= n].max()) for n in range(1, GENERATIONS + 1)
    ]
    mean = [
        float(np.mean(rows["fitness"][rows["generation"] == n])) for n in range(1, GENERATIONS + 1)
    ]
    architecture = larq_nas.Architecture.load(directory / "architecture.json")
    return {
        "strategy": strategy,
        "seed": seed,
        "candidates": len(rows),
        "best": best,
        "mean": mean,
        "choices": dict(architecture.choices),
    }


def train(name: str, ratios: list[float], seed: int, folder: Path, epochs: int) -> dict[str, Any]:
    data = larq_nas.datasets.load("cifar10", train_split="train[:20000]", **DATA)
    space = Narrow(expansion=tuple(ratios))
    architecture = larq_nas.Architecture(space.name, space.settings(), {})
    model = larq_nas.train(
        architecture,
        *data,
        space=space,
        epochs=epochs,
        recipe=RECIPE,
        seed=seed,
        directory=folder / f"trained_{name}_seed{seed}",
        verbose=2,
    )
    test = larq_nas.datasets.load("cifar10", **{**DATA, "validation_split": "test"})[1]
    accuracy = model.evaluate(test, verbose=0, return_dict=True)["accuracy"]
    costs = larq_nas.cost.profile(model)
    counted = larq_nas.cost.by_convention("shen2019", costs)
    return {"name": name, "seed": seed, "ratios": ratios, "accuracy": accuracy, **counted}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--strategies", nargs="+", default=STRATEGIES, choices=STRATEGIES)
    parser.add_argument("--widest-epochs", type=int, default=20)
    parser.add_argument("--train-epochs", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=Path("runs/evolution"))
    arguments = parser.parse_args()
    searched = [
        evolve(strategy, seed, arguments.folder, arguments.widest_epochs)
        for seed in arguments.seeds
        for strategy in arguments.strategies
    ]
    for strategy in arguments.strategies:
        last = [one["best"][-1] for one in searched if one["strategy"] == strategy]
        print(
            strategy, np.round(last, 2), f"mean {np.mean(last):.2f}, deviation {np.std(last):.2f}"
        )
    trained = []
    for one in searched:
        if one["strategy"] == "genetic":
            seed, folder = one["seed"], arguments.folder
            found = list(one["choices"].values())
            trained.append(train("found", found, seed, folder, arguments.train_epochs))
            trained.append(train("uniform", [1] * len(found), seed, folder, arguments.train_epochs))
            print(trained[-2:])
    settings = {**DATA, "subset": SUBSET, "generations": GENERATIONS, "population": POPULATION}
    settings |= {name: value for name, value in vars(arguments).items() if name != "folder"}
    record("evolution", settings, {"searched": searched, "trained": trained})


if __name__ == "__main__":
    main()
