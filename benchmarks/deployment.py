"""Whether every network of every space runs in binary, and computes what Keras does."""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import tensorflow as tf

from larq_nas.deploy import Kernel
from larq_nas.deploy.parity import predict
from larq_nas.errors import ConversionError
from larq_nas.layers import BinaryConv2D
from larq_nas.spaces import Bats, Bnas, Darts, ResNet18, ResNet18Cifar, Space, Vgg11, VggSmall
from larq_nas.spaces.chooser import Sample

from record import record  # isort: skip  (beside this file)
from trained import calibrate, center, randomize  # isort: skip

ALL: tuple[Kernel, ...] = ("default", "reference", "indirect")
WITHOUT_DEFAULT = ALL[1:]
IMAGES, CLASSES = 64, 10
ROWS = Path("runs/deployment.jsonl")
"""One row for each network: what was measured is not measured again until it is deleted."""

SMALL = (0.125, 0.25, 0.5)
PAPER = {"nodes": 2, "activation": "prelu"}
IMAGENET = {"stem": "imagenet", "nodes": 2}
NETWORKS: list[tuple[Space, tuple[int, int, int], int]] = [
    (Bats(cells=3, channels=8, nodes=2), (16, 16, 3), 6),
    (Bats(cells=5, channels=16), (16, 16, 3), 4),
    (Bats(cells=2, channels=32, nodes=3), (16, 16, 3), 4),
    (Bats(cells=3, channels=32, groups=4, nodes=2), (16, 16, 3), 4),
    (Bats(cells=3, channels=12, groups=3, activation="prelu"), (16, 16, 1), 5),
    (Bats(cells=3, channels=36, groups=12, **PAPER), (16, 16, 3), 7),
    (Bats(cells=2, channels=120, groups=24, **PAPER), (16, 16, 3), 4),
    (Bats(cells=3, channels=8, **IMAGENET), (64, 64, 3), 4),
    (Bats(cells=2, channels=80, groups=16, activation="prelu", **IMAGENET), (64, 64, 3), 3),
    (Bnas(cells=3, channels=8), (16, 16, 3), 6),
    (Bnas(cells=5, channels=36, nodes=2), (16, 16, 3), 4),
    (Bnas(cells=3, channels=8, **IMAGENET), (64, 64, 3), 4),
    (Darts(cells=3, channels=8), (16, 16, 3), 3),
    (Darts(cells=3, channels=4, nodes=2, precision="binary"), (16, 16, 3), 6),
    (Darts(cells=2, channels=36, nodes=2, precision="binary", activation="prelu"), (9, 9, 3), 4),
    (VggSmall(ratios=SMALL), (32, 32, 3), 6),
    (VggSmall(ratios=SMALL, precision="real"), (16, 16, 1), 1),
    (Vgg11(ratios=(0.25, 0.5, 1, 2, 3)), (32, 32, 3), 6),
    (ResNet18Cifar(ratios=(0.25, 0.5, 1, 2)), (32, 32, 3), 7),
    (ResNet18Cifar(downsample="real", ratios=(0.5, 1)), (32, 32, 3), 4),
    (ResNet18(ratios=SMALL), (64, 64, 3), 5),
    (ResNet18(ratios=SMALL, downsample="real"), (64, 64, 3), 3),
]


def main() -> None:
    cases = [(space, shape, seed) for space, shape, seeds in NETWORKS for seed in range(seeds)]
    ROWS.parent.mkdir(exist_ok=True)
    done = [json.loads(row) for row in ROWS.read_text().splitlines()] if ROWS.exists() else []
    assert len(cases) == 100
    for number, (space, shape, seed) in enumerate(cases[len(done) :], len(done) + 1):
        start = time.perf_counter()
        row = measure(space, shape, seed)
        done.append(row)
        with ROWS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{number} {space.name} {seed}: {line(row)}, {time.perf_counter() - start:.0f} s")
        tf.keras.backend.clear_session()
    totals = total(done)
    print(json.dumps(totals, indent=2))
    settings = {"images": IMAGES, "classes": CLASSES, "weights": "random, see trained.py"}
    record("deployment", settings, {"totals": totals, "networks": done})


def measure(space: Space, shape: tuple[int, int, int], seed: int) -> dict[str, Any]:
    choose = Sample.seeded(seed)
    space.build(choose, shape, CLASSES)
    settings = space.settings()
    model = larq_nas.Architecture(space.name, settings, choose.values).build(shape, CLASSES)
    images = np.random.default_rng(seed).normal(size=(2 * IMAGES, *shape)).astype("float32")
    randomize(model, seed)
    calibrate(model, images[:IMAGES])
    center(model, images[:IMAGES])
    row: dict[str, Any] = {
        "space": space.name,
        "settings": settings,
        "shape": shape,
        "seed": seed,
        "choices": choose.values,
        "classes": len(set(predict(model, images[IMAGES:]).argmax(axis=1).tolist())),
        "all_kernels": convert(model, images[IMAGES:], ALL),
    }
    if any(layer.groups > 1 for layer in binary_layers(model)):
        row["without_default"] = convert(model, images[IMAGES:], WITHOUT_DEFAULT)
    return row


def convert(model: tf.keras.Model, images: np.ndarray, kernels: Sequence[Kernel]) -> dict[str, Any]:
    """Return the figures of a conversion, counting by the layers of `model` themselves."""
    try:
        conversion = larq_nas.convert(model, images, kernels=kernels)
    except ConversionError as error:
        return {"failed": str(error)}
    rows = {row.layer: row.runs_as for row in conversion.audit.layers}
    operations = conversion.audit.operations
    binary = binary_layers(model)
    return {
        "bytes": len(conversion.flatbuffer),
        "binary": len(binary),
        "run_in_binary": sum(rows[layer.name] == "LceBconv2d" for layer in binary),
        "binary_operations": operations.get("LceBconv2d", 0),
        "silent_fallbacks": silent_fallbacks(model, operations),
        "not_found": [layer for layer, runs_as in rows.items() if runs_as == "not found"],
        "rewrites": list(conversion.rewrites),
        "warnings": list(conversion.warnings),
        "parity": [dataclasses.asdict(result) for result in conversion.parity],
    }


def binary_layers(model: tf.keras.Model) -> list[BinaryConv2D]:
    return [
        layer
        for layer in model.layers
        if isinstance(layer, BinaryConv2D) and layer.kernel_quantizer is not None
    ]


def silent_fallbacks(model: tf.keras.Model, operations: dict[str, int]) -> int:
    """Return how many float operations no real layer accounts for, and unpacked signs."""
    kinds = {
        "CONV_2D": [layer for layer in model.layers if is_real_conv(layer)],
        "FULLY_CONNECTED": of_type(model, tf.keras.layers.Dense),
        "DEPTHWISE_CONV_2D": of_type(model, tf.keras.layers.DepthwiseConv2D),
    }
    extra = [max(0, operations.get(kind, 0) - len(layers)) for kind, layers in kinds.items()]
    return sum(extra) + operations.get("LceDequantize", 0)


def is_real_conv(layer: tf.keras.layers.Layer) -> bool:
    plain = (tf.keras.layers.DepthwiseConv2D, BinaryConv2D)
    return isinstance(layer, tf.keras.layers.Conv2D) and not isinstance(layer, plain)


def of_type(model: tf.keras.Model, kind: type) -> list[tf.keras.layers.Layer]:
    return [layer for layer in model.layers if isinstance(layer, kind)]


def total(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the totals of all conversions, and for each kernel."""
    conversions = [
        row[key] for row in rows for key in ("all_kernels", "without_default") if key in row
    ]
    good = [one for one in conversions if "failed" not in one]
    padded = [one for one in good if any(": groups padded" in text for text in one["rewrites"])]
    return {
        "networks": len(rows),
        "conversions": len(conversions),
        "median_classes": float(np.median([row["classes"] for row in rows])),
        "refused": len(conversions) - len(good),
        "binary_layers": sum(one["binary"] for one in good),
        "run_in_binary": sum(one["run_in_binary"] for one in good),
        "silent_fallbacks": sum(one["silent_fallbacks"] for one in good),
        "with_padded_groups": len(padded),
        "kernels": {kernel: kernel_total(good, kernel) for kernel in ALL},
    }


def kernel_total(conversions: Sequence[dict[str, Any]], kernel: str) -> dict[str, Any]:
    results = [
        result for one in conversions for result in one["parity"] if result["kernel"] == kernel
    ]
    images = sum(result["examples"] for result in results)
    shares = {
        name: sum(result["examples"] * result[name] for result in results) / images
        for name in ("exact", "agreement")
    }
    return {
        "images": images,
        **shares,
        "least_agreement": min(result["agreement"] for result in results),
        "worst": max(result["worst"] for result in results),
        "median_of_medians": float(np.median([result["median"] for result in results])),
        "not_nearly_exact": sum(result["rounding"] is not None for result in results),
    }


def line(row: dict[str, Any]) -> str:
    texts = []
    for key in ("all_kernels", "without_default"):
        one = row.get(key)
        if one is None:
            continue
        if "failed" in one:
            texts.append(one["failed"])
            continue
        exact = "/".join(f"{result['exact']:.0%}" for result in one["parity"])
        agreement = "/".join(f"{result['agreement']:.0%}" for result in one["parity"])
        texts.append(
            f"{one['run_in_binary']} of {one['binary']} in binary, {one['silent_fallbacks']} "
            f"silent fallbacks, {exact} exact, {agreement} same class"
        )
    return "; ".join(texts)


if __name__ == "__main__":
    main()
