"""Operations, kernels, widths and depths in one space: 6.9 million networks, searched by evolution.

Run `python examples/joint_space.py`, or from a shell:
larq-nas search --space examples/joint_space.py:joint_space --searcher evolution \\
    --set searcher.population=16 --set searcher.rungs=1,4 \\
    --data digits --batch-size 32 --epochs 6 --train-epochs 30 \\
    --budget flatbuffer_bytes=64KB --directory runs/joint_space
"""

from typing import Any

import tensorflow as tf

import larq_nas
from larq_nas.layers import batch_norm, classifier, sign_conv, stem
from larq_nas.spaces.chooser import Chooser

WIDTHS, MOST_BLOCKS = (64, 64, 128), 4


def joint_space(choose: Chooser, input_shape: tuple[int, int, int], classes: int) -> tf.keras.Model:
    """Three sections of residual binary blocks, as QuickNet has them."""
    # Larq Compute Engine packs 32 binary channels to a word: 33 cost what 64 do.
    widths = [
        choose.filters(f"width{section}", filters, (0.5, 1, 1.5, 2), multiple_of=32)
        for section, filters in enumerate(WIDTHS)
    ]
    x = images = tf.keras.Input(input_shape, name="image")
    x = stem(x, widths[0], relu=False)
    for section, filters in enumerate(widths):
        if section:
            x = choose.op(f"transition{section}", x, transitions(filters))
        # Each block asks for its kernel, whether the network has the block or not.
        block = residual_block(choose, filters)
        x = choose.depth(f"section{section}", x, [block] * MOST_BLOCKS)
    return tf.keras.Model(images, classifier(x, classes), name="joint_space")


def transitions(filters: int) -> dict[str, Any]:
    """Between sections: a pool and a real 1x1 convolution, or a binary 3x3 one."""

    def real(x: tf.Tensor, name: str) -> tf.Tensor:
        x = tf.keras.layers.MaxPool2D(2, padding="same", name=f"{name}_pool")(x)
        x = tf.keras.layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_conv")(x)
        return batch_norm(x, f"{name}_bn", affine=True)

    def binary(x: tf.Tensor, name: str) -> tf.Tensor:
        return sign_conv(x, filters, 3, name=name, strides=2)

    return {"real": real, "binary": binary}


def residual_block(choose: Chooser, filters: int) -> Any:
    """Sign, binary convolution and batch norm, added to what they read."""
    kernels = {
        "conv3": lambda x, name: sign_conv(x, filters, 3, name=name),
        "conv5": lambda x, name: sign_conv(x, filters, 5, name=name),
    }

    def block(x: tf.Tensor, name: str) -> tf.Tensor:
        # Always added: with a shortcut at some widths only, costs would not follow from one build.
        y = choose.op(f"{name}_kernel", x, kernels)
        return tf.keras.layers.Add(name=f"{name}_add")([x, y])

    return block


def main(
    directory: str = "runs/joint_space", epochs: int = 6, train_epochs: int = 30, **settings: Any
) -> None:
    train, validation = larq_nas.datasets.load("digits", batch_size=32)
    # All candidates train for 1 epoch, and the best quarter of each generation for 4.
    searcher = larq_nas.searchers.Evolution(population=16, rungs=(1, 4))
    larq_nas.search(
        train,
        validation,
        space=joint_space,
        budget={"flatbuffer_bytes": "64KB"},
        epochs=epochs,
        train_epochs=train_epochs,
        directory=directory,
        **{"searcher": searcher, **settings},
    )


if __name__ == "__main__":
    main()
