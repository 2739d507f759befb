"""Ways to compute groups of channels with binary convolutions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import tensorflow as tf

from larq_nas.deploy.export import export_function
from larq_nas.deploy.operations import Kernel
from larq_nas.deploy.rewriting.forms import BinaryForm

__all__ = ["GroupCost", "SplitGroups", "group_computation", "group_cost"]


_WORD = 32


@dataclass(frozen=True)
class SplitGroups:
    """One binary convolution for each group, which every kernel runs.

    # Arguments
        form: the convolution.
    """

    form: BinaryForm
    name = "one convolution for each group"

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        form, width = self.form, self.form.signs.shape[-1] // self.form.groups
        parts = tf.split(form.prepare(x), form.groups, axis=-1)
        kernels = tf.split(tf.convert_to_tensor(form.kernel), form.groups, axis=-1)
        # Finished one by one: the converter fuses nothing across a concatenation.
        outputs = [
            form.split.finish(form.convolve(part, kernel), slice(g * width, (g + 1) * width))
            for g, (part, kernel) in enumerate(zip(parts, kernels, strict=True))
        ]
        joined = tf.concat(outputs, axis=-1)
        return joined if form.split is form else form.activation(joined)

    @property
    def kernels(self) -> list[np.ndarray]:
        """The signs of its convolutions."""
        parts: list[np.ndarray] = np.split(self.form.signs, self.form.groups, axis=-1)
        return parts

    @property
    def variables(self) -> list[tf.Variable]:
        """The variables it reads."""
        return [self.form.kernel]


@dataclass(frozen=True)
class PaddedGroups:
    """One grouped convolution, each group padded to whole words of channels.

    Inputs of the padding are +1, and so are half of its weights; the others are -1, so that
    it adds nothing, or 1 where their number is odd, which is subtracted. The default kernel of
    Larq Compute Engine does not load it.

    # Arguments
        form: the convolution.
    """

    form: BinaryForm
    name = "groups padded to 32 channels"

    @property
    def _spare(self) -> int:
        return -self.form.signs.shape[2] % _WORD

    @property
    def _rest(self) -> int:
        return self.form.signs.shape[0] * self.form.signs.shape[1] * self._spare % 2

    @cached_property
    def signs(self) -> np.ndarray:
        """The kernel with its padding, shape `(height, width, 32 n, filters)`."""
        height, width, _, filters = self.form.signs.shape
        padding = np.ones(height * width * self._spare, "float32")
        padding[1::2] = -1
        padding = padding.reshape(height, width, self._spare, 1)
        padding = np.broadcast_to(padding, (height, width, self._spare, filters))
        return np.concatenate([self.form.signs, padding], axis=2)

    @cached_property
    def kernel(self) -> tf.Variable:
        """The kernel as a variable."""
        return tf.Variable(self.signs, trainable=False)

    @property
    def possible(self) -> bool:
        """Whether the padding adds the same everywhere, at the borders of the image too."""
        if self.form.border:
            return False
        return self.form.padding == "valid" or self.form.pad_values == 1 or self._spare % 2 == 0

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        form, groups = self.form, self.form.groups
        x = form.prepare(x)
        if self._spare:
            shape = x.shape[1:3]
            x = tf.reshape(x, (-1, *shape, groups, x.shape[-1] // groups))
            x = tf.pad(x, [(0, 0)] * 4 + [(0, self._spare)], constant_values=1.0)
            x = tf.reshape(x, (-1, *shape, groups * x.shape[-1]))
        y = form.convolve(x, tf.convert_to_tensor(self.kernel))
        return form.finish(y - 1.0 if self._rest else y)

    @property
    def kernels(self) -> list[np.ndarray]:
        """The signs of its convolution."""
        return [self.signs]

    @property
    def variables(self) -> list[tf.Variable]:
        """The variables it reads."""
        return [self.kernel]


Computation = SplitGroups | PaddedGroups
GroupCost = Callable[[Computation, tuple[int, ...]], tuple[int, float]]
"""From a computation and the shape it reads to bytes and milliseconds."""


def group_computation(
    form: BinaryForm, shape: tuple[int, ...], cost: GroupCost | None
) -> tuple[Computation, str]:
    """Return how to compute the groups of `form`, and why, if there was a choice.

    The faster way is taken; of two that differ by less than a tenth, the smaller one.

    # Arguments
        form: the convolution.
        shape: shape it reads.
        cost: measures a way; `None` if only the one that every kernel runs is allowed.
    """
    split, padded = SplitGroups(form), PaddedGroups(form)
    if cost is None or not padded.possible:
        return split, split.name
    (small, fast), (other_small, other_fast) = cost(split, shape), cost(padded, shape)
    close = abs(fast - other_fast) < 0.1 * min(fast, other_fast)
    takes_padded = other_small < small if close else other_fast < fast
    chosen = padded if takes_padded else split
    figures = f"{other_small:,} bytes and {other_fast:.3f} ms"
    others = f"{small:,} bytes and {fast:.3f} ms"
    taken, left = (figures, others) if takes_padded else (others, figures)
    other = split if takes_padded else padded
    return chosen, f"{chosen.name} ({taken}) rather than {other.name} ({left})"


def group_cost(kernels: Sequence[Kernel]) -> GroupCost:
    """Return what converts a way to compute groups and times it, once for each geometry.

    # Arguments
        kernels: the kernels that are to run the model; the fastest of them here is timed.
    """
    known: dict[object, tuple[int, float]] = {}
    kernel: Kernel = "indirect" if "indirect" in kernels else kernels[0]

    def cost(computation: Computation, shape: tuple[int, ...]) -> tuple[int, float]:
        form = computation.form
        geometry = (type(computation), shape, form.signs.shape, form.groups, form.strides)
        key = (*geometry, form.dilation_rate, form.padding, form.activation)
        if key not in known:
            known[key] = _measure(computation, shape, kernel)
        return known[key]

    return cost


def _measure(computation: Computation, shape: tuple[int, ...], kernel: Kernel) -> tuple[int, float]:
    from larq_nas.latency.measure import measure_here  # it measures what this package converts

    def alone(image: tf.Tensor) -> tf.Tensor:
        return computation(image)

    flatbuffer = export_function(alone, [shape], computation.variables)
    return len(flatbuffer), measure_here(flatbuffer, kernel=kernel).milliseconds
