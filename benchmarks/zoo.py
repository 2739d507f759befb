"""What becomes of larq-zoo's networks: binary layers, bytes, and how exactly they compute."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import larq_compute_engine
import larq_zoo
import numpy as np
import tensorflow as tf
from larq_zoo.literature.dorefanet import DoReFaNetFactory

from larq_nas.deploy.flatbuffer import operators
from larq_nas.deploy.parity import predict
from larq_nas.errors import ConversionError, first_line

from record import record  # isort: skip  (beside this file)
from trained import calibrate  # isort: skip

KERNELS = ("default", "reference", "indirect")
CALIBRATION, COMPARED, SEED = 32, 32, 0
FLOAT_LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def one_bit_dorefa(weights: None) -> tf.keras.Model:
    """Return DoReFaNet with the activations that Larq Compute Engine can compute with."""
    factory = DoReFaNetFactory(
        input_shape=None,
        input_tensor=None,
        weights=weights,
        include_top=True,
        num_classes=1000,
        activations_k_bit=1,
    )
    return factory.build()


NETWORKS: dict[str, Callable[..., tf.keras.Model]] = {
    "BinaryAlexNet": larq_zoo.literature.BinaryAlexNet,
    "BinaryDenseNet28": larq_zoo.literature.BinaryDenseNet28,
    "BiRealNet": larq_zoo.literature.BiRealNet,
    "BinaryResNetE18": larq_zoo.literature.BinaryResNetE18,
    "QuickNetSmall": larq_zoo.sota.QuickNetSmall,
    "QuickNet": larq_zoo.sota.QuickNet,
    "XNORNet": larq_zoo.literature.XNORNet,
    "DoReFaNet": larq_zoo.literature.DoReFaNet,
    "DoReFaNet, 1 bit": one_bit_dorefa,
    "RealToBinaryNet": larq_zoo.literature.RealToBinaryNet,
    "MeliusNet22": larq_zoo.literature.MeliusNet22,
}


def main() -> None:
    names = sys.argv[1:] or list(NETWORKS)
    rows = {}
    for name in names:
        rows[name] = measure(NETWORKS[name])
        print(line(name, rows[name]), flush=True)
        tf.keras.backend.clear_session()
    settings = {
        "larq_zoo": "2.4.0",
        "larq_compute_engine": larq_compute_engine.__version__,
        "weights": "random",
        "seed": SEED,
        "calibration_images": CALIBRATION,
        "compared_images": COMPARED,
    }
    if names == list(NETWORKS):
        record("zoo", settings, rows)


def measure(build: Callable[..., tf.keras.Model]) -> dict[str, Any]:
    tf.keras.utils.set_random_seed(SEED)
    model = build(weights=None)
    generator = np.random.default_rng(SEED)
    shape = (CALIBRATION + COMPARED, *model.input_shape[1:])
    images = generator.uniform(-1, 1, shape).astype("float32")
    calibrate(model, images[:CALIBRATION])
    row: dict[str, Any] = {"shape": model.input_shape[1:], "parameters": model.count_params()}
    try:
        conversion = larq_nas.convert(model, images[CALIBRATION:], kernels=KERNELS)
        row |= figures(conversion)
        row["keras_in_double"] = in_double(build, model, images[CALIBRATION:])
    except ConversionError as error:
        row["refused"] = str(error)
    classes = predict(model, images[CALIBRATION:]).argmax(axis=1)
    row["classes"] = len(set(classes.tolist()))
    row["plain"] = plain(model)
    return row


def figures(conversion: larq_nas.Conversion) -> dict[str, Any]:
    rows = conversion.audit.layers
    binary = [row for row in rows if row.binary]
    return {
        "bytes": len(conversion.flatbuffer),
        "binary_layers": len(binary),
        "run_in_binary": len(binary) - len(conversion.audit.fallbacks),
        "real_layers": {row.layer: row.runs_as for row in rows if not row.binary},
        "float_operations": count(conversion.audit.operations, FLOAT_LAYERS),
        "operations": conversion.audit.operations,
        "rewrites": conversion.rewrites,
        "warnings": conversion.warnings,
        "parity": [dataclasses.asdict(result) for result in conversion.parity],
    }


def in_double(
    build: Callable[..., tf.keras.Model], model: tf.keras.Model, images: np.ndarray
) -> dict[str, Any]:
    """Return how Keras compares with Keras in double precision: what rounding alone does."""
    expected = predict(model, images)
    tf.keras.backend.set_floatx("float64")
    try:
        double = build(weights=None)
        double.set_weights(model.get_weights())
        got = predict(double, images)
    finally:
        tf.keras.backend.set_floatx("float32")
    worst = np.abs(got - expected).max(axis=1)
    return {
        "exact": float(np.mean(worst <= 1e-4 * expected.std())),
        "agreement": float(np.mean(got.argmax(axis=1) == expected.argmax(axis=1))),
    }


def plain(model: tf.keras.Model) -> dict[str, Any]:
    """Return what Larq Compute Engine's own converter gives."""
    try:
        flatbuffer = larq_compute_engine.convert_keras_model(model)
    except Exception as error:  # noqa: BLE001 - whatever the converter raises is its answer
        return {"failed": first_line(error)}
    kinds = [operator.kind for operator in operators(flatbuffer)]
    operations = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    return {
        "bytes": len(flatbuffer),
        "LceBconv2d": operations.get("LceBconv2d", 0),
        "float_operations": count(operations, FLOAT_LAYERS),
        "operations": operations,
    }


def count(operations: dict[str, int], kinds: tuple[str, ...]) -> int:
    return sum(operations.get(kind, 0) for kind in kinds)


def line(name: str, row: dict[str, Any]) -> str:
    if "refused" in row:
        return f"{name}: {row['refused']}"
    exact = ", ".join(
        f"{result['kernel']} {result['exact']:.0%} exact {result['agreement']:.0%} same class"
        for result in row["parity"]
    )
    double = row["keras_in_double"]
    return (
        f"{name}: {row['bytes']:,} bytes, {row['run_in_binary']} of {row['binary_layers']} binary "
        f"layers run in binary, {row['float_operations']} in float, "
        f"{len(row['rewrites'])} rewritten; {exact}; Keras in double "
        f"{double['exact']:.0%} exact {double['agreement']:.0%} same class; plain {row['plain']}"
    )


if __name__ == "__main__":
    main()
