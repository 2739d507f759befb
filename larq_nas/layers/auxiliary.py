"""A second classifier in the middle of a network, for the time of its training."""

import tensorflow as tf

from larq_nas.layers.blocks import batch_norm

__all__ = ["auxiliary_classifier"]

_POOLED = 5
_CHANNELS = (128, 768)


def auxiliary_classifier(x: tf.Tensor, classes: int, *, name: str = "auxiliary") -> tf.Tensor:
    """Classify by what a cell in the middle gives, with real weights, as DARTS does.

    Its loss is added to that of the network, and trains the first cells more directly.

    # Arguments
        x: tensor, shape `(batch, height, width, channels)`.
        classes: number of classes.
        name: prefix of the layers' names.

    # Returns
        Logits (no softmax), shape `(batch, classes)`.

    # References
        - [Going Deeper with Convolutions](https://arxiv.org/abs/1409.4842)
    """
    layers = tf.keras.layers
    x = layers.ReLU(name=f"{name}_relu")(x)
    sizes, strides = zip(*map(_pool, x.shape[1:3]), strict=True)
    x = layers.AveragePooling2D(sizes, strides, name=f"{name}_pool")(x)
    few, many = _CHANNELS
    x = layers.Conv2D(few, 1, use_bias=False, name=f"{name}0_conv")(x)
    x = layers.ReLU(name=f"{name}0_relu")(batch_norm(x, f"{name}0_bn", affine=True))
    rest = x.shape[1:3]
    x = layers.Conv2D(many, rest, use_bias=False, name=f"{name}1_conv")(x)
    x = layers.ReLU(name=f"{name}1_relu")(batch_norm(x, f"{name}1_bn", affine=True))
    x = layers.Flatten(name=f"{name}_flatten")(x)
    return layers.Dense(classes, name=f"{name}_dense")(x)


def _pool(size: int) -> tuple[int, int]:
    """Return the size and the strides of a pool that leaves two places, or the one there is.

    Of 8 pixels they are DARTS' on CIFAR, 5 and 3; of 7 those on ImageNet, 5 and 2.
    """
    if _POOLED < size <= 2 * _POOLED:
        return _POOLED, size - _POOLED
    return (size - size // 2, size // 2) if size > 1 else (1, 1)
