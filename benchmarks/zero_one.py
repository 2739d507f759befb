"""Networks on activations of 0 and 1, as Shen et al. and DMS have: before and after rewriting."""

import larq_nas  # isort: skip  (it prepares TensorFlow)
import larq as lq
import numpy as np
import tensorflow as tf
from record import record

from larq_nas.latency.measure import measure_all_here
from larq_nas.latency.table import randomize
from larq_nas.quantizers import LearnedStep, StandardizedSign

layers = tf.keras.layers
WIDTHS, POOLED = (128, 128, 256, 256, 512, 512), (1, 3, 5)


def network(style: str) -> tf.keras.Model:
    """Return VGG-small with the binarization of a paper."""
    x = inputs = tf.keras.Input((32, 32, 3))
    x = layers.Conv2D(WIDTHS[0], 3, padding="same", use_bias=False, name="conv0")(x)
    x = layers.BatchNormalization()(x)
    for number, width in enumerate(WIDTHS[1:], 1):
        shen = style == "shen2019"
        x = lq.layers.QuantConv2D(
            width,
            3,
            padding="same",
            use_bias=False,
            input_quantizer=lq.quantizers.DoReFa(1) if shen else LearnedStep(),
            kernel_quantizer="magnitude_aware_sign" if shen else StandardizedSign(),
            kernel_constraint="weight_clip",
            name=f"conv{number}",
        )(x)
        x = layers.MaxPool2D(2)(x) if number in POOLED else x
        x = layers.BatchNormalization()(x)
    return tf.keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))


def main() -> None:
    rows = []
    images = np.random.default_rng(0).normal(size=(32, 32, 32, 3)).astype("float32")
    for style in ("shen2019", "dms"):
        model = network(style)
        randomize(model, 0)
        names = [f"conv{number}" for number in range(1, len(WIDTHS))]
        kernels = ("default", "reference", "indirect")
        after = larq_nas.convert(model, images, kernels=kernels)
        before = larq_nas.convert(model, images, rewrite=False, allow_float=names)
        measured = measure_all_here([before.flatbuffer, after.flatbuffer], kernel="indirect")
        rows.append(
            {
                "network": style,
                "binary": after.audit.operations["LceBconv2d"],
                "bytes": [len(before.flatbuffer), len(after.flatbuffer)],
                "milliseconds": [latency.milliseconds for latency in measured],
                "operations": [before.audit.operations, after.audit.operations],
                "worst": {parity.kernel: parity.worst for parity in after.parity},
                "agreement": {parity.kernel: parity.agreement for parity in after.parity},
            }
        )
        print(rows[-1], flush=True)
    record("zero_one", {"widths": WIDTHS, "kernel": "indirect", "images": len(images)}, rows)


if __name__ == "__main__":
    main()
