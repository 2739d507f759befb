"""DMS on CIFAR-10: best effort initialization, the memory hinge, and the found network."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import larq_nas
from larq_nas.methods import recipe as recipe_of
from larq_nas.searchers import Dms
from larq_nas.searchers.dms.search import read_widths
from larq_nas.spaces import Vgg11
from larq_nas.training.loop import read_history

from record import record  # isort: skip  (beside this file)

UNIFORM_RATIOS = {"1x": 1.0, "2x": 2.0}
SPACE = Vgg11(binarization="dms")
UNIFORM = 0.0777  # MiB of the network whose ratios are 1, as the paper counts them


def data(images: int) -> Any:
    return larq_nas.datasets.load("cifar10", batch_size=64, train_split=f"train[:{images}]")


def search(searcher: Dms, seed: int, arguments: argparse.Namespace) -> Path:
    """Search, or go on, and return where it was done."""
    kept = "" if searcher.best_effort else "_anew"
    directory: Path = arguments.folder / f"search_{searcher.memory_target}{kept}_seed{seed}"
    larq_nas.search(
        *data(arguments.images),
        SPACE,
        searcher,
        epochs=arguments.turns * searcher.weight_epochs,
        train_epochs=0,
        augment="standard",
        seed=seed,
        directory=directory,
        verbose=2,
    )
    return directory


def best_effort(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the training loss of each epoch, with what was learned kept and without (Fig. 3)."""
    rows = []
    for seed in arguments.seeds:
        for kept in (True, False):
            searcher = dataclasses.replace(_searcher(arguments), best_effort=kept)
            directory = search(searcher, seed, arguments)
            history = read_history(directory / "history.csv")
            losses = [float(row["loss"]) for row in history if row.get("loss")]
            rows.append({"seed": seed, "best_effort": kept, "losses": losses})
            print(rows[-1])
    return rows


def hinge(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the memory that searches end at, for several targets."""
    rows = []
    for target in arguments.targets:
        searcher = dataclasses.replace(_searcher(arguments), memory_target=target)
        directory = search(searcher, arguments.seeds[0], arguments)
        rows.append({"target": target, **_found(directory)})
        print(rows[-1])
    return rows


def table(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a found network beside uniform ones, trained alike (Table 1)."""
    rows = []
    seed = arguments.seeds[0]
    for name in arguments.networks:
        ratios = _ratios(name, seed, arguments)
        space = dataclasses.replace(SPACE, expansion=tuple(ratios))
        model = larq_nas.train(
            larq_nas.Architecture(space.name, space.settings(), {}),
            *data(arguments.train_images),
            space=space,
            epochs=arguments.train_epochs,
            recipe=recipe_of("dms_a"),
            augment="standard",
            seed=seed,
            directory=arguments.folder / f"trained_{name}_seed{seed}",
            verbose=2,
        )
        test = larq_nas.datasets.load("cifar10", batch_size=64)[1]
        accuracy = model.evaluate(test, verbose=0, return_dict=True)["accuracy"]
        counted = larq_nas.cost.by_convention("dms", larq_nas.cost.profile(model))
        rows.append({"name": name, "ratios": ratios, "accuracy": accuracy, **counted})
        print(rows[-1])
    return rows


def _ratios(name: str, seed: int, arguments: argparse.Namespace) -> list[float]:
    if name in UNIFORM_RATIOS:
        return [UNIFORM_RATIOS[name]] * 8
    directory = search(_searcher(arguments), seed, arguments)
    choices = larq_nas.Architecture.load(directory / "architecture.json").choices
    return [float(ratio) for ratio in choices.values()]


def _searcher(arguments: argparse.Namespace) -> Dms:
    return Dms(
        memory_target=arguments.targets[0],
        trade_off=arguments.trade_off,
        weight_epochs=arguments.weight_epochs,
        mean_learning_rate=arguments.mean_learning_rate,
    )


def _found(directory: Path) -> dict[str, Any]:
    choices = larq_nas.Architecture.load(directory / "architecture.json").choices
    model = SPACE.build(larq_nas.spaces.Fix(choices), (32, 32, 3), 10)
    counted = larq_nas.cost.by_convention("dms", larq_nas.cost.profile(model))
    means = {row["choice"]: float(row["mean"]) for row in read_widths(directory / "widths.csv")}
    return {"choices": dict(choices), "means": means, **counted}


def main() -> None:
    parts = {"best_effort": best_effort, "hinge": hinge, "table": table}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=parts)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--targets", nargs="+", type=float, default=[UNIFORM, 0.06, 0.12])
    parser.add_argument("--turns", type=int, default=50)
    parser.add_argument("--weight-epochs", type=int, default=5)
    parser.add_argument("--mean-learning-rate", type=float, default=2e-3)
    parser.add_argument("--trade-off", type=float, default=0.01)
    parser.add_argument("--train-epochs", type=int, default=300)
    networks = ["1x", "dms_a", "2x"]
    parser.add_argument("--networks", nargs="+", default=networks, choices=networks)
    parser.add_argument("--train-images", type=int, default=50_000)
    parser.add_argument("--folder", type=Path, default=Path("runs/dimension"))
    arguments = parser.parse_args()
    measured = parts[arguments.part](arguments)
    settings = {name: value for name, value in vars(arguments).items() if name != "folder"}
    record(f"dimension_{arguments.part}", settings, measured)


if __name__ == "__main__":
    main()
