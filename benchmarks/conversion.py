"""How long converting takes, beside `larq_compute_engine.convert_keras_model`, in one run."""

import time

import larq_compute_engine
import tensorflow as tf
from record import record

from larq_nas.deploy.export import export
from larq_nas.deploy.flatbuffer import operators
from larq_nas.layers import BinaryConv2D, classifier, stem

CONVOLUTIONS, ROUNDS = 28, 3


def network() -> tf.keras.Model:
    """Return a residual network of 28 binary convolutions."""
    x = inputs = tf.keras.Input((32, 32, 3))
    x = stem(x, 64)
    for number in range(CONVOLUTIONS):
        y = tf.keras.layers.BatchNormalization()(BinaryConv2D(64, 3, name=f"conv{number}")(x))
        x = tf.keras.layers.Add()([x, y])
    return tf.keras.Model(inputs, classifier(x, 10))


def seconds(convert, model: tf.keras.Model) -> tuple[float, int]:
    start = time.perf_counter()
    flatbuffer = convert(model)
    taken = time.perf_counter() - start
    return taken, sum(operator.kind == "LceBconv2d" for operator in operators(flatbuffer))


def main() -> None:
    rows = []
    for _ in range(ROUNDS):
        model = network()
        ours, binary = seconds(export, model)
        theirs, others = seconds(larq_compute_engine.convert_keras_model, model)
        if binary != CONVOLUTIONS or others != CONVOLUTIONS:
            raise SystemExit(f"{binary} and {others} of {CONVOLUTIONS} convolutions are binary")
        rows.append({"larq_nas": ours, "convert_keras_model": theirs, "ratio": ours / theirs})
        print(f"{ours:.1f} s against {theirs:.1f} s: {ours / theirs:.2f}", flush=True)
    record("conversion", {"convolutions": CONVOLUTIONS, "rounds": ROUNDS}, rows)


if __name__ == "__main__":
    main()
