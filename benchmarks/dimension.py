"""DMS on CIFAR-10: best effort initialization, size of shares, memory hinge, found network."""

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import tensorflow as tf

from larq_nas.choices import at
from larq_nas.methods import recipe as recipe_of
from larq_nas.searchers import Dms
from larq_nas.searchers.dms.record import read_widths
from larq_nas.searchers.dms.search import DimensionModel
from larq_nas.searchers.dms.supernet import Masks
from larq_nas.searchers.dms.widths import channel_shares
from larq_nas.spaces import Vgg11
from larq_nas.training.loop import read_history

from record import record  # isort: skip  (beside this file)

UNIFORM_RATIOS = {"1x": 1.0, "2x": 2.0}
SPACE = Vgg11(binarization="dms")
UNIFORM = 0.0777  # MiB of the network whose ratios are 1, as the paper counts them


def data(images: int) -> Any:
    return larq_nas.datasets.load("cifar10", batch_size=64, train_split=f"train[:{images}]")


def _sampled(masks: Masks, part: int, name: str) -> tf.Tensor:
    """Return the shares of channels as they are sampled, whose size varies."""
    place = masks.dimensions.names.index(name)
    widths = at(part, {name: masks.dimensions.widths[place]})
    return channel_shares(masks.shares[place], widths)


def _without_size(masks: Masks, part: int, name: str) -> tf.Tensor:
    """Return the shares as they are sampled, and gradients that do not change their size."""
    shares = _sampled(masks, part, name)
    size = tf.reduce_mean(shares)
    return shares * tf.stop_gradient(size) / size


SHARES: dict[str, Callable[[Masks, int, str], tf.Tensor]] = {
    "kept": Masks._part,  # adding up to the middle width, as larq_nas has them
    "sampled": _sampled,
    "without_size": _without_size,
}
"""How large the shares are that a layer reads."""


def search(
    searcher: Dms,
    seed: int,
    arguments: argparse.Namespace,
    shares: str = "kept",
    callbacks: tuple[tf.keras.callbacks.Callback, ...] = (),
) -> Path:
    """Search, or go on, and return where it was done."""
    kept = "" if searcher.best_effort else "_anew"
    size = "" if shares == "kept" else f"_{shares}"
    directory: Path = arguments.folder / f"search_{searcher.memory_target}{kept}{size}_seed{seed}"
    with patch.object(Masks, "_part", SHARES[shares]):
        larq_nas.search(
            *data(arguments.images),
            SPACE,
            searcher,
            epochs=arguments.turns * searcher.weight_epochs,
            train_epochs=0,
            augment="standard",
            seed=seed,
            directory=directory,
            callbacks=list(callbacks),
            verbose=2,
        )
    return directory


class Gradients(tf.keras.callbacks.Callback):
    """Gradients of the means before each epoch that trains them, by the size of the shares.

    On the same weights, images and samples. They are kept in a file, a line for each turn.
    """

    model: DimensionModel

    def __init__(self, path: Path, every: int, batches: tf.data.Dataset) -> None:
        super().__init__()
        self._path, self._every, self._batches = path, every, batches
        self._computed: dict[str, Any] = {}

    @property
    def rows(self) -> list[dict[str, Any]]:
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        return [json.loads(line) for line in lines]

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        turn, rest = divmod(epoch + 1, self._every)
        if rest or turn in [row["turn"] for row in self.rows]:
            return
        model, step = self.model, int(self.model.dimensions.step)
        before = [weight.numpy() for weight in model.non_trainable_weights]
        gradients: dict[str, Any] = {}
        for name, part in SHARES.items():
            model.dimensions.step.assign(step)
            with patch.object(Masks, "_part", part):
                compute = self._computed.setdefault(name, tf.function(self._gradient))
                found = np.array([compute(*batch).numpy() for batch in self._batches], np.float64)
            error = found.std(axis=0, ddof=1) / len(found) ** 0.5
            gradients[name] = {"mean": found.mean(axis=0).tolist(), "error": error.tolist()}
        model.dimensions.step.assign(step)
        for weight, value in zip(model.non_trainable_weights, before, strict=True):
            weight.assign(value)
        means = dict(
            zip(model.dimensions.names, model.dimensions.mean.numpy().tolist(), strict=True)
        )
        with self._path.open("a") as file:
            file.write(json.dumps({"turn": turn, "means": means, "gradients": gradients}) + "\n")

    def _gradient(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        mean = self.model.dimensions.mean
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(mean)
            _, loss = self.model._loss(images, labels)
        return tape.gradient(loss, mean)


def shares(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return gradients of the means, and what is found, by the size of the shares trained with."""
    rows = []
    searcher = _searcher(arguments)
    batches = data(arguments.images)[1].take(arguments.batches)
    for seed in arguments.seeds:
        for size in ("sampled", "kept"):
            path = arguments.folder / f"gradients_{size}_seed{seed}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            gradients = Gradients(path, searcher.weight_epochs + 1, batches)
            directory = search(searcher, seed, arguments, size, (gradients,))
            rows.append({"seed": seed, "shares": size, "turns": gradients.rows})
            rows[-1] |= _found(directory)
            for row in gradients.rows:
                last = {name: one["mean"][-1] for name, one in row["gradients"].items()}
                print(seed, size, row["turn"], {name: round(g, 4) for name, g in last.items()})
    return rows


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
        directory = search(searcher, arguments.seeds[0], arguments, arguments.shares)
        rows.append({"target": target, "shares": arguments.shares, **_found(directory)})
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
        profile = larq_nas.cost.profile(model)
        counted = larq_nas.cost.by_convention("dms", profile)
        counted["binary_macs"] = profile.summary()["binary_macs"]
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
    parts = {"best_effort": best_effort, "shares": shares, "hinge": hinge, "table": table}
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
    parser.add_argument("--shares", default="kept", choices=("kept", "sampled"))
    parser.add_argument("--batches", type=int, default=32)
    parser.add_argument("--name", help="of the file in results/; dimension_PART by default")
    parser.add_argument("--folder", type=Path, default=Path("runs/dimension"))
    arguments = parser.parse_args()
    measured = parts[arguments.part](arguments)
    settings = {
        name: value for name, value in vars(arguments).items() if name not in ("folder", "name")
    }
    record(arguments.name or f"dimension_{arguments.part}", settings, measured)


if __name__ == "__main__":
    main()
