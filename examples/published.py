"""A published row of each paper on CIFAR-10: its search, then its training of what was found.

Run `python examples/published.py bats`, or bnas_v2, shen2019, dms_a. Each has all settings of its
paper (`larq-nas search --method bats --settings` lists them); without a GPU it takes days.
The network is runs/bats/model.tflite. docs/papers has each setting beside the paper's words.
"""

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import larq_nas


class Row(NamedTuple):
    """The batches and augmentations of search and training, which are no part of a method."""

    search_batch: int
    batch: int
    search_augment: str | None = None
    augment: str | None = None
    space: Mapping[str, Any] | None = None


ROWS = {
    # BATS names no width of its supernets: these have three channels a group, as its networks.
    "bats": Row(96, 256, augment="cutout", space={"search_channels": 24, "search_groups": 8}),
    "bnas_v2": Row(64, 256, "standard", "standard"),
    "shen2019": Row(100, 100, "standard", "standard"),
    "dms_a": Row(64, 64),
}


def main(
    method: str,
    data: str = "cifar10",
    directory: str | None = None,
    train_epochs: int | None = None,
    **settings: Any,
) -> None:
    """Search and train by a method; `settings`, such as `epochs=1`, go to the search."""
    row, directory = ROWS[method], directory or f"runs/{method}"
    train, validation = larq_nas.datasets.load(data, row.search_batch)
    larq_nas.search(
        train,
        validation,
        method=method,
        augment=row.search_augment,
        train_epochs=0,
        directory=f"{directory}_search",
        **{"space": row.space, **settings},
    )
    train, validation = larq_nas.datasets.load(data, row.batch)
    larq_nas.train(
        f"{directory}_search",
        train,
        validation,
        recipe=method,
        augment=row.augment,
        epochs=train_epochs,
        directory=directory,
    )


if __name__ == "__main__":
    main(*sys.argv[1:3])
