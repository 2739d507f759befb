"""A network for a Raspberry Pi: searched within a limit of latency, by a table of the device.

Run `python examples/raspberry_pi.py --device ssh://pi@raspberrypi --limit 0.3ms`, with
lce_benchmark_model on the Pi's PATH or given as --tool. The table is measured once, and kept as
raspberry_pi.json; a file of your own is --table. Without --device this machine stands in: its
times say nothing about ARM, but every step is the same.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import larq_nas

SPACE = larq_nas.spaces.Bats(cells=5, channels=32, search_channels=8)


def main(
    device: str = "here",
    limit: str = "0.3ms",
    tool: str | None = None,
    table: str = "raspberry_pi.json",
    data: str = "digits",
    directory: str = "runs/raspberry_pi",
    space: Any = SPACE,
    networks: int = 6,
    checks: int = 5,
    **settings: Any,
) -> larq_nas.latency.Latency:
    """Search, and return what the network that was found takes on the device."""
    train, validation = larq_nas.datasets.load(data, 32)
    measure = partial(larq_nas.latency.measure, device=device, **({"tool": tool} if tool else {}))
    kernel = "indirect" if device == "here" else "default"  # each the fastest on its processor
    if not Path(table).exists():
        Path(table).parent.mkdir(parents=True, exist_ok=True)
        shape = train.element_spec[0].shape[1:]
        larq_nas.latency.build_table(
            space,
            measure,
            path=table,
            input_shape=tuple(shape),
            classes=len(train.class_names),
            kernel=kernel,
            networks=networks,
            checks=checks,
            on_progress=print,
        )
    quick = {"searcher": {"architecture_learning_rate": 0.003}, "epochs": 8, "train_epochs": 30}
    larq_nas.search(
        train,
        validation,
        space=space,
        budget={"latency": limit},
        latency_table=table,
        directory=directory,
        **{**quick, **settings},
    )
    latency = measure(Path(directory) / "model.tflite", kernel=kernel)
    print(latency)
    return latency


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for name in ("device", "limit", "tool", "table", "data", "directory"):
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS)
    main(**vars(parser.parse_args()))
