"""From the call of `search` to a converted network on CIFAR-10, by phase; cells fused and plain.

`--first-step` only goes to the end of the first step of the search, for supernets of 8 and 17
cells.
"""

import argparse
import contextlib
import sys
import time
from typing import Any

from search_step import apart

SPLITS = {"validation_split": "test[:1000]"}
SMALL = {"cells": 3, "channels": 16, "batch": 32, "images": 640, "epochs": 2, "train_epochs": 4}
FIRST = {"channels": 16, "batch": 16, "images": 640, "epochs": 1, "train_epochs": 0}


class FinishedError(Exception):
    """The first step is done."""


def searched(case: dict[str, Any], formulation: str, first_step: bool) -> dict[str, float]:
    """Return the seconds of each phase."""
    import tensorflow as tf

    import larq_nas
    from larq_nas.searchers.differentiable import search as differentiable
    from larq_nas.supernet.fuse import Fuse
    from larq_nas.supernet.relax import Relax

    class Clock(tf.keras.callbacks.Callback):
        """Notes when stages begin, the first step of each ends, and they end."""

        def __init__(self) -> None:
            super().__init__()
            self.times = {"called": time.perf_counter()}
            self.stage = 0

        def on_train_begin(self, logs: Any = None) -> None:
            self.stage += 1
            self._note("begins")

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self._note("first_step")
            if first_step:
                raise FinishedError

        def on_train_end(self, logs: Any = None) -> None:
            self._note("ends")

        def _note(self, what: str) -> None:
            self.times.setdefault(f"stage{self.stage}_{what}", time.perf_counter())

    class Plain(Fuse):
        _answer_cell = Relax._answer_cell

    if formulation == "plain":
        differentiable.Fuse = Plain
    data = larq_nas.datasets.load(
        "cifar10", batch_size=case["batch"], train_split=f"train[:{case['images']}]", **SPLITS
    )
    clock = Clock()
    cells, channels = case["cells"], case["channels"]
    space = larq_nas.spaces.Bnas(
        cells=cells, channels=channels, search_cells=cells, search_channels=channels
    )
    with contextlib.suppress(FinishedError):
        larq_nas.search(
            *data,
            space,
            epochs=case["epochs"],
            train_epochs=case["train_epochs"],
            augment="standard",
            callbacks=[clock],
            verbose=2,
        )
    times = {**clock.times, "done": time.perf_counter()}
    return {name: when - times["called"] for name, when in times.items()}


def main() -> None:
    from record import record

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first-step", action="store_true")
    parser.add_argument("--cells", nargs="+", type=int, default=[8, 17])
    arguments = parser.parse_args()
    cases = [{**FIRST, "cells": n} for n in arguments.cells] if arguments.first_step else [SMALL]
    measured = []
    for case in cases:
        for formulation in ("fused", "plain"):
            phases = apart(case, formulation, arguments.first_step, run=searched)
            print(f"{case['cells']} cells, {formulation}: {told(phases)}", flush=True)
            measured.append({**case, "formulation": formulation, "seconds": phases})
    record("first_step" if arguments.first_step else "end_to_end", SPLITS, measured)


def told(phases: dict[str, float]) -> str:
    return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in phases.items())


if __name__ == "__main__":
    sys.exit(main())
