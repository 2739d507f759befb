"""How long a grouped convolution trains: natively, and as `BinaryConv2D` does it."""

import statistics
from collections.abc import Callable

import larq as lq
import tensorflow as tf

import larq_nas

from record import record, timed  # isort: skip  (beside this file)

CHANNELS, GROUPS, SIZE, BATCH, REPEATS = 36, 12, 32, 64, 5


def training_step(layer: tf.keras.layers.Layer) -> Callable[[], object]:
    images = tf.random.stateless_normal((BATCH, SIZE, SIZE, CHANNELS), (0, 1))
    layer.build(images.shape)

    @tf.function
    def step() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_sum(layer(images) ** 2)
        return tape.gradient(loss, [images, *layer.trainable_weights])

    return step


def main() -> None:
    settings = {"padding": "same", "pad_values": 1.0, "use_bias": False, "groups": GROUPS}
    layers = {
        "native": lq.layers.QuantConv2D(CHANNELS, 3, input_quantizer="ste_sign", **settings),
        "BinaryConv2D": larq_nas.layers.BinaryConv2D(
            CHANNELS, 3, groups=GROUPS, kernel_quantizer=None
        ),
    }
    measured = {name: timed(training_step(layer), REPEATS) for name, layer in layers.items()}
    medians = {name: statistics.median(times) for name, times in measured.items()}
    ratio = medians["native"] / medians["BinaryConv2D"]
    print(f"native takes {ratio:.1f} times as long")
    shape = {"channels": CHANNELS, "groups": GROUPS, "size": SIZE, "batch": BATCH, "kernel": 3}
    record("grouped_conv", shape, {"seconds": measured, "native_over_emulated": ratio})


if __name__ == "__main__":
    main()
