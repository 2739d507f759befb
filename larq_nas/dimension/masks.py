"""What of each channel is computed, while widths are searched."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import tensorflow as tf

from larq_nas.dimension.dimensions import Dimensions, channel_shares
from larq_nas.errors import InputError
from larq_nas.expansion import Filters, at
from larq_nas.quantizers import quantized_scope
from larq_nas.resizing.channels import Channels

__all__ = ["Computed", "Masks"]

Computed: TypeAlias = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""Computes the output of a layer from inputs and kernel."""

_Compute = Callable[[Computed, tf.Tensor, tf.Tensor], tf.Tensor]


class Masks:
    r"""Lets the layers of a network read so much of each channel as is sampled.

    By the linearity of convolution (DMS, equation 11) the outputs of all three widths are
    added by adding their kernels, those of fewer channels filled up with zeros:

    \\[ \sum_i \pi_i (W_i * X) = \left( \sum_i \pi_i W_i \right) * X \\]

    The kernels are those of the layers that read the channels. Behind the layer that makes
    them follow batch norm, which would undo what they are multiplied with, and the sign, which
    would make ones of zeros.

    # Arguments
        dimensions: the widths.

    # Attributes
        shares: those that are used, shape `(choices, 3)`; without, channels are read whole.
    """

    def __init__(self, dimensions: Dimensions) -> None:
        self.dimensions = dimensions
        self.shares: tf.Tensor | None = None

    @contextmanager
    def using(self, shares: tf.Tensor) -> Iterator[None]:
        """Compute with these shares of the three ratios within a `with` block.

        # Arguments
            shares: shape `(choices, 3)`.
        """
        before, self.shares = self.shares, shares
        try:
            yield
        finally:
            self.shares = before

    def apply(self, layer: tf.keras.layers.Layer, reads: Channels) -> None:
        """Let a layer read its inputs in the shares that are used.

        # Arguments
            layer: a convolution or a dense layer, not traced yet.
            reads: the channels of its inputs.

        # Raises
            InputError: if a number of channels depends on several choices.
        """
        if not any(isinstance(part, Filters) for part in reads.parts):
            return
        names = [_choice(part, self.dimensions.widest(), layer.name) for part in reads.parts]

        def compute(whole: Computed, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
            return self.compute(whole, inputs, kernel, reads, names)

        if isinstance(layer, tf.keras.layers.Dense):
            _compute_dense(layer, compute)
        else:
            _compute_conv(layer, compute)

    def compute(
        self,
        layer: Computed,
        inputs: tf.Tensor,
        kernel: tf.Tensor,
        reads: Channels,
        names: Sequence[str | None],
    ) -> tf.Tensor:
        """Return the output of a layer.

        # Arguments
            layer: computes the output, given inputs and kernel.
            inputs: its inputs.
            kernel: its kernel, the channels it reads along the last axis but one.
            reads: these channels.
            names: the choice that each part of these follows from, if any.
        """
        if self.shares is None:
            return layer(inputs, kernel)
        parts = [
            tf.ones([int(part)]) if name is None else self._part(part, name)
            for part, name in zip(reads.parts, names, strict=True)
        ]
        shares = tf.tile(tf.concat(parts, axis=0), [reads.repeats])
        return layer(inputs, kernel * shares[:, None])

    def _part(self, part: int, name: str) -> tf.Tensor:
        assert self.shares is not None
        place = self.dimensions.names.index(name)
        widths = at(part, {name: self.dimensions.widths[place]})
        return channel_shares(self.shares[place], widths)


def _choice(part: int, widths: Mapping[str, int], layer: str) -> str | None:
    """Return the choice that a number of channels depends on."""
    if not isinstance(part, Filters):
        return None
    usual = at(part, widths)
    found = [
        name for name, width in widths.items() if at(part, {**widths, name: 64 + width}) != usual
    ]
    if len(found) <= 1:
        return found[0] if found else None
    raise InputError(
        f"Layer `{layer}` reads a number of channels that follows from several choices "
        f"({', '.join(found)}), which cannot be searched: ask for that width by itself."
    )


def _compute_conv(layer: tf.keras.layers.Layer, compute: _Compute) -> None:
    """Let a convolution be computed by `compute`, given what computes it now."""
    convolve = layer.convolution_op

    def convolution_op(inputs: tf.Tensor, kernel: Any) -> tf.Tensor:
        return compute(convolve, inputs, tf.convert_to_tensor(kernel))

    # Set as Keras sets attributes, it would be tracked.
    object.__setattr__(layer, "convolution_op", convolution_op)


def _compute_dense(layer: tf.keras.layers.Layer, compute: _Compute) -> None:
    """Let a dense layer be computed by `compute`, given what computes it now."""
    call = layer.call

    def with_kernel(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        own = layer.kernel
        object.__setattr__(layer, "kernel", kernel)
        try:
            return call(inputs)
        finally:
            object.__setattr__(layer, "kernel", own)

    def masked(inputs: tf.Tensor) -> tf.Tensor:
        with quantized_scope():
            kernel = tf.convert_to_tensor(layer.kernel)
        return compute(with_kernel, inputs, kernel)

    object.__setattr__(layer, "call", masked)
