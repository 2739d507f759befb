"""Rounds numbers to 256 equal steps, over a range seen on real images."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import numpy as np
import tensorflow as tf

__all__ = ["Grid", "Grids"]

_STEPS = 255
# Where only the sign of a number is read, a narrower range rounds those near 0 more finely,
# and what it cuts off keeps its sign.
_SIGNS_ALONE = 1 / 16
# Binary convolutions give integers, times a scale: in steps that are a simple fraction of it,
# many lie in the middle between two steps, where each kernel rounds them all to its own side.
_OFF_MIDDLE = 1.002
# Kernels hold biases in whole steps too, and round halves to another side.
_JITTER, _SEED = 0.02, 8


class Grid:
    """Rounds a tensor to int8, once its range is known.

    # Arguments
        grids: what it is one of.
        signs_alone: whether only the signs of the tensor are read.
        exact: whether the tensor is float before, so that kernels round it as TensorFlow does.
        fixed: its range, if that is the same for all images.
    """

    def __init__(
        self,
        grids: "Grids",
        signs_alone: bool = False,
        exact: bool = False,
        fixed: tuple[float, float] | None = None,
    ) -> None:
        self._grids, self._signs_alone, self._exact = grids, signs_alone, exact
        self._fixed = fixed is not None
        self.seen = np.array(fixed or (0.0, 0.0))

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Return `x` rounded; while ranges are observed, note its range and return it."""
        if self._grids.mode == "observe":
            if not self._fixed:
                self.seen[0] = min(self.seen[0], tf.reduce_min(x))
                self.seen[1] = max(self.seen[1], tf.reduce_max(x))
            return x
        if self._grids.mode == "jitter" and not self._exact:
            seed = (_SEED, next(self._grids.draws))
            x = x + tf.random.stateless_uniform(tf.shape(x), seed, -_JITTER, _JITTER) * self.step
        return tf.quantization.fake_quant_with_min_max_vars(x, *self.range)

    @property
    def step(self) -> float:
        """What a number is rounded to a multiple of."""
        return self._step_and_zero()[0]

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest number that is kept; 0 is on the grid."""
        step, zero = self._step_and_zero()
        return -zero * step, (_STEPS - zero) * step

    def cut(self, x: np.ndarray) -> np.ndarray:
        """Return `x` within the range, where that is narrow on purpose."""
        return np.clip(x, *self.range) if self._signs_alone else x

    def _step_and_zero(self) -> tuple[float, int]:
        """Return the step, and how many there are below 0.

        Fake-quant moves a range until 0 is on its grid, and images from -1 to 1 then lie in the
        middle between two steps; a range that is a little wider has no such ties.
        """
        low, high = (float(end) for end in self.seen)
        if self._signs_alone:
            high = _SIGNS_ALONE * max(-low, high)
            low = -high
        # Of a tensor that is 0 nothing is known; a tiny step would make biases overflow.
        high = high if high > low else 1.0
        zero = round(-low * _STEPS / (high - low))
        below = -low / zero if zero else 0.0
        above = high / (_STEPS - zero) if zero < _STEPS else 0.0
        free = not self._exact and not self._fixed
        return max(below, above) * (_OFF_MIDDLE if free else 1.0), zero


class Grids:
    """All grids of a network; they observe ranges until they are set to round.

    # Attributes
        mode: `"observe"`, `"round"`, or `"jitter"`: round after moving numbers by a small part
            of a step, as kernels do that compute with integers alone.
        draws: numbers what is drawn at random, so that each conversion draws the same.
    """

    def __init__(self) -> None:
        self.mode = "observe"
        self.draws = count()
        self._all: list[Grid] = []

    def new(
        self,
        signs_alone: bool = False,
        exact: bool = False,
        fixed: tuple[float, float] | None = None,
    ) -> Grid:
        """Return another grid."""
        self._all.append(Grid(self, signs_alone, exact, fixed))
        return self._all[-1]

    def join(self, first: Grid, *others: Grid) -> Grid:
        """Let grids have one range from now on, and return the first."""
        joined = [id(other.seen) for other in others]
        for grid in self._all:
            if id(grid.seen) in joined:
                grid.seen = first.seen
        return first

    @contextmanager
    def jittering(self) -> Iterator[None]:
        """Move numbers at random before they are rounded."""
        self.mode, before = "jitter", self.mode
        try:
            yield
        finally:
            self.mode = before
