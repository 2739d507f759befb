"""Resident memory over hundreds of candidates in one process."""

import argparse
from pathlib import Path

import larq_nas
from larq_nas.searchers import Evolution
from larq_nas.searchers.evolution.candidates import Shared
from larq_nas.training import Recipe

from record import record  # isort: skip  (beside this file)


def resident_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=300)
    parser.add_argument("--folder", type=Path, default=Path("runs/many_trials"))
    arguments = parser.parse_args()
    memory: list[int] = []
    plain = Shared.measure

    def watched(*args, **kwargs):
        result = plain(*args, **kwargs)
        memory.append(resident_bytes())
        return result

    Shared.measure = watched
    larq_nas.search(
        *larq_nas.datasets.load("digits", batch_size=50),
        larq_nas.spaces.VggSmall(ratios=(0.03125, 0.0625, 0.09375, 0.125)),
        Evolution(
            population=30,
            candidate_epochs=1,
            widest_epochs=1,
            subset=100,
            recipe=Recipe(stages=("binary",)),
            confirm=0,
        ),
        epochs=arguments.candidates // 30,
        train_epochs=0,
        directory=arguments.folder,
        verbose=2,
    )
    print(f"after 30: {memory[29] / 2**20:.0f} MiB; at the end: {memory[-1] / 2**20:.0f} MiB")
    print(f"{memory[-1] / memory[29] - 1:+.1%} in {len(memory)} candidates")
    record("many_trials", {"candidates": arguments.candidates}, {"resident_bytes": memory})


if __name__ == "__main__":
    main()
