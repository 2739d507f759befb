"""What a search will need, before it starts."""

import numpy as np
import tensorflow as tf

from larq_nas.layers import BinaryConv2D

__all__ = ["estimate"]

_ADAM_COPIES = 4
_RUNTIME_BYTES = 0.6 * 2**30
# A binary convolution keeps its signs and their padding beside its output.
_COPIES: dict[type, int] = {BinaryConv2D: 3}


def estimate(model: tf.keras.Model, batch_size: int, steps: int) -> str:
    """Return one line with the parameters, memory and steps of training a supernet.

    # Arguments
        model: the supernet.
        batch_size: images in a batch.
        steps: number of batches.
    """
    parameters = model.count_params()
    memory = _RUNTIME_BYTES + 4 * (_ADAM_COPIES * parameters + batch_size * _activations(model))
    return (
        f"Supernet: {parameters:,} parameters, about {memory / 2**30:.1f} GiB of memory, "
        f"{steps:,} steps of {batch_size} images from each half."
    )


def _activations(model: tf.keras.Model) -> int:
    """Return the numbers that one image leaves behind for the backward pass."""
    count = 0
    for nodes in model._nodes_by_depth.values():
        for node in nodes:
            size = sum(int(np.prod(tensor.shape[1:])) for tensor in tf.nest.flatten(node.outputs))
            count += _COPIES.get(type(node.layer), 1) * size
    return count
