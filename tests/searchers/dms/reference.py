"""DMS over all widths, without clusters: slow, for tests."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from larq_nas.choices import Expansion, at
from larq_nas.graph.channels import Channels
from larq_nas.searchers.dms.supernet import Computed, Masks
from larq_nas.searchers.dms.widths import Dimensions, log_probabilities

__all__ = ["AllWidths", "Separate"]


class AllWidths(Dimensions):
    r"""Every whole number of filters in a range, each as likely as equation 5 has it.

    In place of three ratios, with \\(\Delta = 0.5 / c\\) of a layer of \\(c\\) filters.

    # Arguments
        expansions: the choices of widths by name.
        widths: the numbers of filters of each choice, rising by 1, as many for each.
        mean: \\(\mu\\) at the start.
        scale: \\(\sigma\\).
        seed: seed of what is sampled.
    """

    def __init__(
        self,
        expansions: Mapping[str, Expansion],
        widths: Mapping[str, Sequence[int]],
        *,
        mean: float,
        scale: float,
        seed: int = 0,
    ) -> None:
        self._all = np.array([widths[name] for name in expansions], np.int64)
        super().__init__(
            expansions,
            initial_ratio=mean,
            scale=scale,
            half_step=0.5,
            least_mean=0.0,
            least_ratio=0.0,
            seed=seed,
        )

    def log_probabilities(self) -> tf.Tensor:
        """Return the logarithm of the probability of each width, shape `(choices, widths)`."""
        filters = [float(asked.filters) for asked in self.expansions.values()]
        each = [
            log_probabilities(
                tf.constant(widths / own, tf.float32),
                self.mean[place],
                self.scale,
                tf.constant(0.5 / own, tf.float32),
            )
            for place, (widths, own) in enumerate(zip(self._all, filters, strict=True))
        ]
        return tf.stack(each)

    def _widths(self) -> np.ndarray:
        return self._all


class Separate(Masks):
    r"""Computes a convolution for each width, and adds up their outputs (equation 3).

    \\[ O = \sum_i \pi_i (W_i * X) \\]

    The shares of the channels add up to the middle width. It takes one convolution for each width,
    and keeps the outputs of each.
    """

    def compute(
        self,
        layer: Computed,
        inputs: tf.Tensor,
        kernel: tf.Tensor,
        reads: Channels,
        names: Sequence[str | None],
    ) -> tf.Tensor:
        """Return the output of a layer that reads one searched width; see `Masks.compute`."""
        if self.shares is None:
            return layer(inputs, kernel)
        (part,), (name,) = reads.parts, names
        assert name is not None
        place = self.dimensions.names.index(name)
        widths = at(part, {name: self.dimensions.widths[place]})
        shares = self.shares[place]
        outputs = []
        for index in range(shares.shape[0]):
            inside = tf.cast(tf.range(tf.reduce_max(widths)) < widths[index], kernel.dtype)
            padded = kernel * tf.tile(inside, [reads.repeats])[:, None]
            outputs.append(shares[index] * layer(inputs, padded))
        read = tf.reduce_sum(shares * tf.cast(widths, shares.dtype))
        return tf.add_n(outputs) * tf.cast(widths[len(outputs) // 2], shares.dtype) / read
