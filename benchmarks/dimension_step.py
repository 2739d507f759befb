"""A step of a dimension search beside one of the plain network that is as wide, and of all widths.

Each formulation runs in a process of its own, whose memory is nothing else's.
"""

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

# The narrowest and the widest number of filters, of a layer whose own number is the widest.
RANGES = {"range_30": (1010, 1040), "range_1000": (40, 1040)}
VGG = {"space": "vgg11", "batch": 64, "ratio": 1.5, "scale": 1.0}
CASES: dict[str, dict[str, Any]] = {
    "vgg11": {**VGG, "formulations": ("plain", "clustered")},
    **{
        name: {"space": "two", "batch": 16, "range": widths, "formulations": ("plain", "clustered")}
        for name, widths in RANGES.items()
    },
    **{
        f"all_{count}": {
            **{"space": "two", "batch": 16, "range": (65 - count, 64)},
            "formulations": ("plain", "clustered", "all"),
        }
        for count in (10, 30)
    },
}


def two_convolutions(choose: Any, shape: Any, classes: int) -> Any:
    """A binary convolution between a real one and a classifier, each width searched."""
    import tensorflow as tf

    from larq_nas.layers import sign_conv

    layers = tf.keras.layers
    x = images = tf.keras.Input(shape)
    width = WIDEST[0]
    x = layers.Conv2D(choose.filters("first", width, (1,)), 3, padding="same", name="first")(x)
    x = layers.BatchNormalization(name="first_bn")(x)
    x = sign_conv(x, choose.filters("second", width, (1,)), 3, name="second", binarization="dms")
    x = layers.GlobalAveragePooling2D()(x)
    return tf.keras.Model(images, layers.Dense(classes, name="dense")(x), name="two")


WIDEST = [0]


def build(case: dict[str, Any], formulation: str) -> Any:
    """Return a compiled model, and what it trains on."""
    import tensorflow as tf

    sys.path.append(str(Path(__file__).parents[1] / "tests" / "searchers" / "dms"))
    from reference import AllWidths, Separate

    from larq_nas.data.validation import DataFacts
    from larq_nas.layers import DEPLOYED
    from larq_nas.searchers.dms.search import DimensionModel
    from larq_nas.searchers.dms.supernet import Masks, Supernet
    from larq_nas.searchers.dms.widths import Dimensions
    from larq_nas.spaces import Vgg11, resolve
    from larq_nas.spaces.chooser import Survey, Widest
    from larq_nas.supernet.resizable import resizable_optimizer
    from larq_nas.training.recipe import Recipe
    from larq_nas.training.trainer import Trainee

    tf.keras.utils.set_random_seed(0)
    shape = (32, 32, 3) if case["space"] == "vgg11" else (8, 8, 3)
    low, high = case.get("range", (0, 0))
    WIDEST[0] = high
    space = Vgg11(binarization="dms") if case["space"] == "vgg11" else resolve(two_convolutions)
    survey = Survey()
    space.build(survey, shape, 10)
    ratio = case.get("ratio", (low + high) / 2 / max(high, 1))
    scale = case.get("scale", (high - low) / 1.6 / max(high, 1))
    settings = {"half_step": 0.4, "least_mean": 0.01, "least_ratio": 0.01}
    clusters = Dimensions(survey.expansions, initial_ratio=ratio, scale=scale, **settings)
    if formulation == "plain":
        network = space.build(Widest(clusters.widest()), shape, 10)
        model = Trainee(network, Recipe(stages=("binary",), optimizer="sgd", weight_decay=1e-4))
        model.compile(tf.keras.optimizers.SGD(0.05, momentum=0.9))
        return model, shape, 1
    every = {name: range(low, high + 1) for name in survey.expansions}
    one_by_one = formulation == "all"
    dimensions = (
        AllWidths(survey.expansions, every, mean=ratio, scale=scale) if one_by_one else clusters
    )
    facts = DataFacts(shape, 10, case["batch"], 2, 2, "")
    masks = Separate if one_by_one else Masks
    supernet = Supernet(space, facts, DEPLOYED, dimensions, 0, masks)
    model = DimensionModel(supernet, dimensions, 1e-4, {})
    model.compile(resizable_optimizer("sgd", 0.05), tf.keras.optimizers.Adam(2e-3))
    return model, shape, dimensions.widths.shape[1]


def measure(name: str, formulation: str, repeats: int) -> dict[str, Any]:
    """Return what steps and memory take."""
    import larq_nas  # isort: skip  (it prepares TensorFlow)
    import numpy as np
    import tensorflow as tf

    case = CASES[name]
    assert larq_nas.__version__
    model, shape, widths = build(case, formulation)
    rng = np.random.default_rng(0)
    images = tf.constant(rng.normal(size=(case["batch"], *shape)), tf.float32)
    batch = images, tf.constant(rng.integers(0, 10, case["batch"]))
    data = batch if formulation == "plain" else (batch, batch)
    step = tf.function(model.train_step)
    row: dict[str, Any] = {"case": name, "formulation": formulation, "widths": widths}
    for kind in ("weights",) if formulation == "plain" else ("weights", "means"):
        if formulation != "plain":
            model.searching.assign(kind == "means")
        step(data)
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            step(data)["accuracy"].numpy()
            times.append(time.perf_counter() - start)
        row[f"{kind}_seconds"] = times
    row["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    rows = []
    for name in arguments.cases:
        for formulation in CASES[name]["formulations"]:
            # A fresh process: what TensorFlow has allocated it keeps.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                row = pool.apply(measure, (name, formulation, arguments.repeats))
            rows.append(row)
            median = statistics.median(row["weights_seconds"])
            plain = statistics.median(next(r for r in rows if r["case"] == name)["weights_seconds"])
            print(
                f"{name:12s} {formulation:10s} {1000 * median:8.1f} ms, {median / plain:.2f} of "
                f"plain, {row['peak_bytes'] / 2**30:.2f} GiB, {row['widths']} widths computed",
                flush=True,
            )
    from record import record

    record("dimension_step", {"cases": CASES, "repeats": arguments.repeats}, rows)


if __name__ == "__main__":
    main()
