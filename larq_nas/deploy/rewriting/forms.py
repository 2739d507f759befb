"""Compute a network call by call, and the one form that runs in binary."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_nas.graph.calls import Call, call_layer
from larq_nas.lce.padding import Border

__all__ = ["SMALLEST", "BinaryForm", "Rewrite", "call_layer", "compute", "needed"]


@dataclass(frozen=True)
class Rewrite:
    """Another way to compute one call, exact but for rounding.

    # Arguments
        call: index of the call.
        inputs: indices of the calls it reads.
        compute: from their outputs to that of the call.
        reason: what was done and why, for the user; empty if it goes without saying.
        kernels: signs that its binary convolutions have, shape `(height, width, inputs,
            filters)` each.
        variables: the variables it reads besides the layer's own.
        signs_only: whether only the signs of its output are those of the call.
    """

    call: int
    inputs: tuple[int, ...]
    compute: Callable[..., tf.Tensor]
    reason: str = ""
    kernels: Sequence[np.ndarray] = field(default=(), repr=False)
    variables: Sequence[tf.Variable] = field(default=(), repr=False)
    signs_only: bool = False


def compute(
    calls: Sequence[Call],
    images: Sequence[tf.Tensor],
    wanted: Sequence[int],
    rewrites: Mapping[int, Rewrite] | None = None,
    given: Mapping[int, tf.Tensor] | None = None,
) -> list[tf.Tensor]:
    """Return the outputs of the calls `wanted`.

    # Arguments
        calls: the network, from `larq_nas.graph.calls.read_graph`.
        images: its inputs, in the model's order.
        wanted: indices of calls.
        rewrites: for some calls by index, another way to compute them.
        given: outputs of some calls by index, which are not computed then.
    """
    rewrites = rewrites or {}
    values: dict[int, tf.Tensor] = dict(given or {})
    made: dict[Any, list[tf.Tensor]] = {}
    for index in needed(calls, wanted, rewrites, values):
        call, rewrite = calls[index], rewrites.get(index)
        if rewrite:
            with tf.name_scope(call.layer.name):
                values[index] = rewrite.compute(*(values[read] for read in rewrite.inputs))
        elif isinstance(call.layer, tf.keras.layers.InputLayer):
            values[index] = tf.cast(images[call.argument or 0], call.layer.dtype)
        else:
            key = id(call.layer), call.index, call.inputs
            if key not in made:
                # Operations of a layer's parts are named after that layer too.
                outer, _, _ = call.name.rpartition("/")
                with tf.name_scope(f"{outer}/") if outer else nullcontext():
                    made[key] = call_layer(call, [values[read] for read in call.inputs])
            values[index] = made[key][call.position]
    return [values[index] for index in wanted]


def needed(
    calls: Sequence[Call],
    wanted: Sequence[int],
    rewrites: Mapping[int, Rewrite],
    given: Collection[int] = (),
) -> list[int]:
    """Return the calls that are computed for the outputs of the calls `wanted`, in order."""
    found: set[int] = set()
    waiting = list(wanted)
    while waiting:
        index = waiting.pop()
        if index not in found and index not in given:
            found.add(index)
            waiting += rewrites[index].inputs if index in rewrites else calls[index].inputs
    return sorted(found)


SMALLEST = float(np.finfo("float32").tiny)
"""The smallest number above 0 that TensorFlow and processors do not take for 0.

Larq Compute Engine takes -0.0 for -1 on AArch64, where it packs the bits of signs, and for 1
elsewhere, where it compares with 0. Added to a tensor, this number turns 0 and -0.0 into numbers
above 0, and leaves every other one as it is: only what is closer to 0 than 1e-30 would change at
all, and activations are never that small but 0. A sum of floats is 0 or as large as the last digit
of its summands. An offset of 0 would not survive the converter, and a smaller one might not
survive a processor.
"""


@dataclass(frozen=True)
class BinaryForm:
    """`activation(scale * conv(quantizer(x), signs) + offset)`, the sign perhaps of another `x`.

    # Arguments
        signs: the kernel, of -1 and 1, shape `(height, width, inputs / groups, filters)`.
        scale: for each filter, 0 or more; `None` stands for 1.
        offset: for each filter; `None` stands for 0.
        flips: whether the sign is that of `threshold - x`, not of `x`.
        threshold: what is added before the sign, if it flips.
        quantizer: the sign; `None` if its inputs are signs already.
        before: what is computed before the sign and before what is added around it, if anything.
        strides: steps, in pixels.
        dilation_rate: spacing of the kernel's taps, in pixels.
        padding: `"same"` or `"valid"`.
        pad_values: the sign that `"same"` pads with, or 0.
        groups: groups of channels that do not mix.
        activation: what follows, if anything.
        border: what is added before the sign, if `padding` cannot say it.
    """

    signs: np.ndarray = field(repr=False)
    scale: np.ndarray | None = None
    offset: np.ndarray | None = None
    flips: bool = False
    threshold: float = 0.0
    quantizer: Callable[[tf.Tensor], tf.Tensor] | None = lq.math.sign
    before: Callable[[tf.Tensor], tf.Tensor] | None = None
    strides: tuple[int, int] = (1, 1)
    dilation_rate: tuple[int, int] = (1, 1)
    padding: str = "same"
    pad_values: float = 1.0
    groups: int = 1
    activation: Any = None
    border: Border | None = None

    @cached_property
    def kernel(self) -> tf.Variable:
        """The signs as a variable: as a constant, a large one would slow the converter down."""
        return tf.Variable(self.signs, trainable=False, dtype=tf.float32)

    def on_zero_one(self, height: float, threshold: float) -> "BinaryForm":
        r"""Return the form for inputs that are `height` above `threshold`, and 0 elsewhere.

        With \\(s = \\operatorname{sign}(t - x)\\) they are \\(h (1 - s) / 2\\), so that
        \\[ W * x_b = \\frac{h}{2} (\\sum W + (-W) * s) \\]
        where zeros outside the image are signs of 1.
        """
        half = height / 2 * (1.0 if self.scale is None else self.scale)
        sums = self.signs.sum(axis=(0, 1, 2))
        return dataclasses.replace(
            self,
            signs=-self.signs,
            scale=np.broadcast_to(half, sums.shape).astype("float32"),
            offset=(half * sums + (0.0 if self.offset is None else self.offset)).astype("float32"),
            flips=True,
            threshold=threshold,
            quantizer=lq.math.sign,
            pad_values=1.0,
        )

    def on_strict_sign(self) -> "BinaryForm":
        r"""Return the form for a sign that is -1 at 0.

        It is \\(-\\operatorname{sign}(-x)\\), exactly: a sign of a little less than \\(x\\) would
        get lost where the converter adds an offset to another, or rounds it to a whole threshold.
        """
        return dataclasses.replace(
            self,
            signs=-self.signs,
            flips=True,
            quantizer=lq.math.sign,
            pad_values=-self.pad_values,
        )

    def on_border(self, border: Border) -> "BinaryForm":
        """Return the form with something added around its inputs.

        Zeros, which are no signs, are the mean of 1 and -1: the kernel reads both side by side.
        """
        if border.same:
            return dataclasses.replace(self, padding="same", pad_values=1.0)
        rows, columns = border.taps
        signs, scale = self.signs[rows, columns], self.scale
        if border.doubles:
            signs = np.concatenate([signs, signs], axis=2)
            half = 0.5 * (1.0 if scale is None else scale)
            scale = np.broadcast_to(half, signs.shape[-1:]).astype("float32")
        return dataclasses.replace(self, signs=signs, scale=scale, padding="valid", border=border)

    def prepare(self, x: tf.Tensor) -> tf.Tensor:
        """Return what the sign is taken of."""
        if self.before:
            return self.before(x)
        # Times -1 rather than `threshold - x`, which would stay an operation of its own. And never
        # a threshold of 0, which would leave -0.0 of 0: `x` is above 0 just if it is above this.
        return x * -1.0 + (self.threshold or SMALLEST) if self.flips else x

    def convolve(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Return the convolution of the signs of `x` with `kernel`."""
        if self.border and self.border.added:
            paddings = [(0, 0), *self.border.paddings, (0, 0)]
            sides = [tf.pad(x, paddings, constant_values=value) for value in self.border.added]
            x = tf.concat(sides, axis=-1) if self.border.doubles else sides[0]
        x = self.quantizer(x) if self.quantizer else x
        if self.padding == "same" and self.pad_values:
            x = tf.pad(x, self._paddings(x.shape), constant_values=self.pad_values)
        padding = "SAME" if self.padding == "same" and not self.pad_values else "VALID"
        return tf.nn.conv2d(x, kernel, self.strides, padding, dilations=self.dilation_rate)

    @property
    def split(self) -> "BinaryForm":
        """The form of each of its groups; an activation may be of all channels together."""
        fuses = self.activation in (None, tf.keras.activations.relu)
        return self if fuses else dataclasses.replace(self, activation=None)

    def finish(self, y: tf.Tensor, part: slice = slice(None)) -> tf.Tensor:
        """Apply scale, offset and activation, for the filters `part`.

        Scales are not negative, so a ReLU may come first, where the converter fuses it.
        """
        first = self.activation is tf.keras.activations.relu and self.offset is None
        y = self.activation(y) if first else y
        y = y if self.scale is None else y * self.scale[part]
        y = y if self.offset is None else y + self.offset[part]
        return self.activation(y) if self.activation and not first else y

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Return the output for `x`."""
        return self.finish(self.convolve(self.prepare(x), tf.convert_to_tensor(self.kernel)))

    def _paddings(self, shape: Sequence[int]) -> list[tuple[int, int]]:
        sizes = zip(shape[1:3], self.signs.shape[:2], self.strides, self.dilation_rate, strict=True)
        spatial = [_same(size, (taps - 1) * gap + 1, step) for size, taps, step, gap in sizes]
        return [(0, 0), *spatial, (0, 0)]


def _same(size: int, taps: int, step: int) -> tuple[int, int]:
    outputs = -(-size // step)
    total = max((outputs - 1) * step + taps - size, 0)
    return total // 2, total - total // 2
