"""Whether what the operations of a network take adds up to what the network takes."""

import statistics

import larq_nas
from larq_nas.deploy.export import export
from larq_nas.latency.measure import measure_here
from larq_nas.latency.table import randomize

from record import record  # isort: skip  (beside this file)

KERNELS, RUNS, CLASSES = ("indirect", "reference"), 50, 10
IMAGES = (32, 32, 3)


def networks() -> dict[str, tuple[larq_nas.Architecture, tuple[int, int, int]]]:
    published = larq_nas.Architecture.published
    bats = published("bats").with_settings(cells=5, channels=32, groups=1, activation="relu")
    return {
        "bats": (bats, IMAGES),
        "bnas": (published("bnas_cifar").with_settings(cells=5, channels=32), IMAGES),
        "darts": (published("darts_second_order").with_settings(cells=5, channels=32), IMAGES),
        "vgg_small": (larq_nas.Architecture("vgg_small", {"expansion": 1}), IMAGES),
        "resnet18": (larq_nas.Architecture("resnet18", {"expansion": 1}), (96, 96, 3)),
    }


def main() -> None:
    measured = []
    for name, (architecture, shape) in networks().items():
        flatbuffer = export(randomize(architecture.build(shape, CLASSES)))
        for kernel in KERNELS:
            latency = measure_here(flatbuffer, kernel=kernel, runs=RUNS, per_operation=True)
            times = [operation.microseconds for operation in latency.operations]
            ratio = sum(times) / latency.microseconds
            print(
                f"{name}, {kernel}: {len(times)} operations, sum {sum(times) / 1000:.2f} ms, "
                f"whole {latency.milliseconds:.2f} ms, ratio {ratio:.3f}",
                flush=True,
            )
            row = {"network": name, "shape": shape, "settings": architecture.settings}
            figures = latency.summary()
            figures["operations"] = [[o.kind, round(o.microseconds, 3)] for o in latency.operations]
            measured.append({**row, "ratio": ratio, **figures})
    ratios = [row["ratio"] for row in measured]
    print(f"ratios from {min(ratios):.3f} to {max(ratios):.3f}, {statistics.median(ratios):.3f}")
    record("operations", {"kernels": KERNELS, "runs": RUNS, "classes": CLASSES}, measured)


if __name__ == "__main__":
    main()
