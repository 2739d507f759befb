"""A search space of your own: searched, trained and converted to runs/own_space/model.tflite.

Run `python examples/own_space.py`, or from a shell:
larq-nas search --space examples/own_space.py:own_space --directory runs/own_space
"""

import tensorflow as tf

import larq_nas
from larq_nas.layers import binary_conv, classifier, stem
from larq_nas.spaces.chooser import Chooser


def own_space(choose: Chooser, input_shape: tuple[int, int, int], classes: int) -> tf.keras.Model:
    images = tf.keras.Input(input_shape)
    x = stem(images, 32)
    for block in range(3):
        operations = {
            "conv3": lambda x, name: binary_conv(x, 32, 3, name=name),
            "conv5": lambda x, name: binary_conv(x, 32, 5, name=name),
            "dilated3": lambda x, name: binary_conv(x, 32, 3, dilation_rate=2, name=name),
            "skip": lambda x, name: x,
        }
        x = choose.op(f"block{block}", x, operations)
    return tf.keras.Model(images, classifier(x, classes))


def main(directory: str = "runs/own_space", epochs: int = 5, train_epochs: int = 20) -> None:
    train, validation = larq_nas.datasets.load("digits")
    larq_nas.search(
        train,
        validation,
        space=own_space,
        epochs=epochs,
        train_epochs=train_epochs,
        directory=directory,
    )


if __name__ == "__main__":
    main()
