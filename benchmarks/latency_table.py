"""How well latency tables rank networks that they have not seen."""

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np

import larq_nas
from larq_nas.cost import SpaceCosts
from larq_nas.latency import LatencyTable, build_table
from larq_nas.latency.measure import measure_here
from larq_nas.spaces import Bats, ResNet18Cifar, Space, VggSmall

from record import record  # isort: skip  (beside this file)

SHAPE, CLASSES, KERNEL = (32, 32, 3), 10, "indirect"
SPACES: dict[str, Space] = {
    "bats": Bats(cells=5, channels=32),
    "vgg_small": VggSmall(ratios=(0.25, 0.5, 1, 2)),
    "resnet18_cifar": ResNet18Cifar(),
}


def thousand_candidates(space: Space, table: LatencyTable) -> float:
    """Return the seconds to predict a thousand candidates of a space of widths at once."""
    costs = SpaceCosts(space, SHAPE, CLASSES)
    draw = np.random.default_rng(0)
    widths = {
        name: draw.choice(np.array(asked.options), 1000) for name, asked in costs.expansions.items()
    }
    start = time.perf_counter()
    table.predict(costs.structure({}), widths)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=24)
    parser.add_argument("--checks", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    settings = {"shape": SHAPE, "classes": CLASSES, "kernel": KERNEL, **vars(arguments)}
    measured = {}
    for name, space in SPACES.items():
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            table = build_table(
                space,
                measure_here,
                path=Path(folder) / "table.json",
                input_shape=SHAPE,
                classes=CLASSES,
                kernel=KERNEL,
                networks=arguments.networks,
                checks=arguments.checks,
                seed=arguments.seed,
                on_progress=lambda line, name=name: print(f"{name}: {line}", flush=True),
            )
        minutes = (time.perf_counter() - start) / 60
        times = [check.measured / 1000 for check in table.checks]
        print(table)
        print(f"{name}: {min(times):.2f} to {max(times):.2f} ms, built in {minutes:.1f} minutes")
        measured[name] = {
            "settings": space.settings(),
            "device": table.device,
            "engine": table.engine,
            "minutes": minutes,
            "kendall_tau": table.kendall_tau,
            "median_error": table.error,
            "whole_by_sum": table.whole_by_sum,
            "operations": len(table.operations),
            "left": table.left,
            "networks": [dataclasses.asdict(network) for network in table.networks],
            "checks": [dataclasses.asdict(check) for check in table.checks],
        }
        if not SpaceCosts(space, SHAPE, CLASSES).choices:
            seconds = thousand_candidates(space, table)
            measured[name]["seconds_for_1000_candidates"] = seconds
            print(f"{name}: 1000 candidates predicted in {seconds:.2f} s")
        record("latency_table", settings, measured)


if __name__ == "__main__":
    print(f"larq_nas {larq_nas.__version__}")
    main()
