"""Outputs of nodes without inputs, and cells without them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf


@tf.keras.utils.register_keras_serializable("larq_nas")
class Zeros(tf.keras.layers.Layer):
    """Give zeros, whatever the inputs: a node whose every input is the zero operation.

    !!! example
        ```python
        x = larq_nas.layers.Zeros((16, 16, 36))(x)
        ```

    # Arguments
        shape: shape of the zeros, without the batch.
        **kwargs: further arguments of `tf.keras.layers.Layer`.
    """

    def __init__(self, shape: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shape = tuple(int(size) for size in shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        batch = inputs.shape[0]
        batch = tf.shape(inputs)[0] if batch is None else batch
        return tf.zeros((batch, *self.shape), self.compute_dtype)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tf.TensorShape:
        return tf.TensorShape((input_shape[0], *self.shape))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "shape": self.shape}


def image_of(x: tf.Tensor) -> tf.Tensor:
    """Return the input of the network that `x` is computed from.

    Zeros that read it keep nothing else of the network alive.
    """
    history = x._keras_history
    while not isinstance(history.layer, tf.keras.layers.InputLayer):
        before = history.layer._inbound_nodes[history.node_index].keras_inputs
        x, history = before[0], before[0]._keras_history
    return x


def reads_image(model: tf.keras.Model) -> bool:
    """Return whether what a network gives depends on what it reads."""
    waiting, seen = list(model.outputs), set()
    while waiting:
        layer, node_index, _ = waiting.pop()._keras_history
        if isinstance(layer, tf.keras.layers.InputLayer):
            return True
        if isinstance(layer, Zeros) or (id(layer), node_index) in seen:
            continue
        seen.add((id(layer), node_index))
        waiting += layer._inbound_nodes[node_index].keras_inputs
    return False


def concatenate(tensors: Sequence[tf.Tensor], *, prefix: str) -> tf.Tensor:
    """Concatenate along the last axis; zeros among images become padding.

    # Arguments
        tensors: shape `(batch, height, width, channels)`, each of its own number of channels,
            or any shapes without zeros.
        prefix: prefix of the layers' names.

    # Returns
        Tensor, shape `(batch, height, width, sum of channels)`.
    """
    zeros = [isinstance(x._keras_history.layer, Zeros) for x in tensors]
    if all(zeros):
        if len(tensors) == 1:
            return tensors[0]
        shape = (*tensors[0].shape[1:-1], sum(x.shape[-1] for x in tensors))
        return Zeros(shape, name=f"{prefix}_zeros")(tensors[0]._keras_history.layer.input)
    if not any(zeros) or len(tensors[0].shape) != 4:
        return _join(tensors, f"{prefix}_concat")
    pieces = pad_plan(zeros, [x.shape[-1] for x in tensors])
    several = len(pieces) > 1
    joined = [
        _padded([tensors[i] for i in piece.members], piece, prefix, str(number) if several else "")
        for number, piece in enumerate(pieces)
    ]
    return _join(joined, f"{prefix}_concat")


@dataclass
class Piece:
    """Tensors side by side in a concatenation, and the channels of zeros around them."""

    members: list[int]
    before: int = 0
    after: int = 0


def pad_plan(zeros: Sequence[bool], channels: Sequence[int]) -> list[Piece]:
    """Return how a concatenation is made of padded pieces, without its zeros; not all are."""
    pieces: list[Piece] = []
    before = 0
    for index, (zero, width) in enumerate(zip(zeros, channels, strict=True)):
        if zero and pieces:
            pieces[-1].after += width
        elif zero:
            before += width
        elif pieces and not pieces[-1].after:
            pieces[-1].members.append(index)
        else:
            pieces.append(Piece([index], before))
            before = 0
    return pieces


def channel_padding(piece: Piece, name: str) -> tf.keras.layers.ZeroPadding2D:
    """Return a layer of Keras that pads the channels."""
    # With the axes named so, the second one it pads is that of the channels.
    paddings = (0, 0), (piece.before, piece.after)
    return tf.keras.layers.ZeroPadding2D(paddings, data_format="channels_first", name=name)


def _padded(tensors: Sequence[tf.Tensor], piece: Piece, prefix: str, number: str) -> tf.Tensor:
    x = _join(tensors, f"{prefix}_concat{number}")
    if not piece.before and not piece.after:
        return x
    return channel_padding(piece, f"{prefix}_pad{number}")(x)


def _join(tensors: Sequence[tf.Tensor], name: str) -> tf.Tensor:
    if len(tensors) == 1:  # Keras cannot reload a concatenation of one tensor
        return tensors[0]
    layer = tf.keras.layers.Concatenate(name=name)
    layer.pads_zeros = True  # for those who predict what is built of a supernet's concatenation
    return layer(tensors)
