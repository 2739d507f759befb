"""Expected costs of a supernet, differentiable in its architecture parameters."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.choices import Choice, Chosen, revive, strongest
from larq_nas.cost.budget import Linearized, linearize
from larq_nas.cost.profile import LATENCY, Structure
from larq_nas.cost.space import SpaceCosts
from larq_nas.errors import InputError

_SHARPNESS = 2.0


class Expected:
    """Expected costs of a supernet, differentiable in the probabilities of its choices.

    With `q(i, o)` the probability that a choice keeps operation `o` on input `i`, and `a` the
    network that would be derived now,

    `E[cost] = cost(a) + sum over choices, i, o of slope(i, o) * (q(i, o) - a(i, o))`

    where `slope(i, o)` is what the pair costs in place of the chosen one. For costs that add
    up over operations this is the expectation itself; for all of them it is exact where each
    choice is one-hot. A width counts with its mean, `sum of p(ratio) * filters(ratio)`;
    latency, which a table knows at certain widths, along a line between those next to it.

    `q` follows from the probabilities as a network is derived: the operation without zero, and
    the share of `kept_share` of the input.

    !!! example
        ```python
        expected = larq_nas.cost.Expected(larq_nas.cost.SpaceCosts("bats", (32, 32, 3), 10))
        with tf.GradientTape() as tape:
            probabilities = {name: tf.nn.softmax(alpha) for name, alpha in alphas.items()}
            binary_macs = expected(probabilities)["binary_macs"]
        tape.gradient(binary_macs, alphas)
        ```

    # Arguments
        costs: the costs of the networks of the space.
    """

    def __init__(self, costs: SpaceCosts) -> None:
        costs.require_following()
        self.costs = costs
        self._around: Linearized | None = None
        self._at: tuple[Chosen, dict[str, float]] = ({}, {})
        self._exact: dict[str, tf.Variable] = {}
        self._nearest: dict[str, tf.Variable] = {}
        self._slopes: dict[str, dict[str, tf.Variable]] = {}
        self._strongest: dict[str, tf.Variable] = {}
        self._latency_slopes: dict[str, tf.Variable] = {}

    def __call__(self, probabilities: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return the expected value of each of the `quantities` of the costs.

        # Arguments
            probabilities: for each choice of operations a matrix of shape `(inputs,
                operations)`, for each choice of a width a vector of shape `(ratios,)`.
        """
        if tf.executing_eagerly():
            self.update(probabilities)
        elif self.costs.expansions and self.costs.choices:
            raise InputError(
                f"Space `{self.costs.space.name}` chooses operations and widths: compute its "
                "expected costs outside of a graph."
            )
        kept = {
            name: keeping(choice, tf.cast(probabilities[name], tf.float64))
            for name, choice in self.costs.choices.items()
        }
        base = self._at_mean_widths(probabilities)
        return {name: base[name] + self._change(name, kept) for name in self.costs.quantities}

    def update(self, probabilities: Mapping[str, Any]) -> None:
        """Compute the costs around the network that these probabilities stand for.

        Outside of a graph a call does so itself. A graph keeps what was computed last: update
        it from time to time, such as before each epoch.
        """
        self._check(probabilities)
        choices = self.costs.choices
        scores = {name: np.asarray(probabilities[name]) for name in choices}
        best = strongest(choices, scores)
        chosen, _ = revive(self.costs.cells, choices, scores, best)
        ratios = {
            name: asked.ratios[int(np.argmax(probabilities[name]))]
            for name, asked in self.costs.expansions.items()
        }
        # Cells that would be zero on every path are derived otherwise; they are charged for that.
        for name, choice in choices.items():
            _assign(self._strongest, name, choice.one_hot(best[name]))
        if self._around is None or (chosen, ratios) != self._at:
            self._around, self._at = linearize(self.costs, chosen, ratios), (chosen, ratios)
            for quantity, slopes in self._around.slopes.items():
                variables = self._slopes.setdefault(quantity, {})
                for name, slope in slopes.items():
                    _assign(variables, name, slope)
        self._update_widths(chosen, ratios)

    def _check(self, probabilities: Mapping[str, Any]) -> None:
        shapes: dict[str, tuple[int, ...]] = {
            name: (choice.inputs, len(choice.operations))
            for name, choice in self.costs.choices.items()
        }
        shapes |= {name: (len(asked.ratios),) for name, asked in self.costs.expansions.items()}
        for name, shape in shapes.items():
            got = np.shape(probabilities[name]) if name in probabilities else None
            if got != shape:
                raise InputError(
                    f"`probabilities` of choice `{name}` must have shape {shape}, but got "
                    f"{'none' if got is None else got}."
                )

    def _update_widths(self, chosen: Chosen, ratios: Mapping[str, float]) -> None:
        nearest = {name: asked.width(ratios[name]) for name, asked in self.costs.expansions.items()}
        structure = self.costs.structure(chosen)
        for quantity, exact in self.costs.costs(structure, nearest or None).items():
            _assign(self._exact, quantity, exact)
        for name, width in nearest.items():
            _assign(self._nearest, name, width)
            if self.costs.latency:
                slope = self._latency_slope(structure, nearest, name)
                _assign(self._latency_slopes, name, slope)

    def _latency_slope(self, structure: Structure, nearest: Mapping[str, int], name: str) -> float:
        """Return what a filter more takes, between the widths next to the nearest one."""
        options = sorted(set(self.costs.expansions[name].options))
        place = options.index(nearest[name])
        low, high = options[max(place - 1, 0)], options[min(place + 1, len(options) - 1)]
        if low == high:
            return 0.0
        both = {k: np.array([v, v]) for k, v in nearest.items()} | {name: np.array([low, high])}
        less, more = self.costs.costs(structure, both)[LATENCY]
        return float((more - less) / (high - low))

    def _change(self, quantity: str, kept: Mapping[str, tf.Tensor]) -> tf.Tensor:
        changes = [
            tf.reduce_sum(slope * (kept[name] - self._strongest[name]))
            for name, slope in self._slopes[quantity].items()
        ]
        return tf.add_n(changes) if changes else tf.zeros((), tf.float64)

    def _at_mean_widths(self, probabilities: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return the costs of the derived operations at the mean of each width."""
        assert self._around is not None, "update() comes before the first call in a graph"
        if not self.costs.expansions:
            return dict(self._exact)
        means = {
            name: tf.reduce_sum(
                tf.cast(probabilities[name], tf.float64) * tf.constant(asked.options, tf.float64)
            )
            for name, asked in self.costs.expansions.items()
        }
        structure = self.costs.structure(self._around.chosen)
        smooth = structure.costs(means)
        # Words of 32 channels are not rounded for a mean; for the network derived now they are.
        at_nearest = structure.costs({k: tf.identity(v) for k, v in self._nearest.items()})
        expected = {name: self._exact[name] + (smooth[name] - at_nearest[name]) for name in smooth}
        if self.costs.latency:
            changes = [
                slope * (means[name] - self._nearest[name])
                for name, slope in self._latency_slopes.items()
            ]
            expected[LATENCY] = self._exact[LATENCY] + tf.add_n(changes)
        return expected


def keeping(choice: Choice, probabilities: tf.Tensor) -> tf.Tensor:
    """Return the probability that each pair is kept, shape `(inputs, operations)`."""
    allowed = tf.constant([name in choice.eligible for name in choice.operations])
    allowed = tf.cast(allowed, probabilities.dtype)
    shares = probabilities * allowed
    strengths = tf.reduce_max(shares, axis=-1)
    shares = tf.math.divide_no_nan(shares, tf.reduce_sum(shares, axis=-1, keepdims=True))
    return kept_share(strengths, choice.keep)[:, None] * shares


def kept_share(strengths: tf.Tensor, keep: int) -> tf.Tensor:
    """Return by how much each input is kept, given the largest probability of an operation on it.

    It is `clip(2 * s - threshold, 0, 1)`, `s` being these strengths, with the threshold that makes
    the sum `keep` (the projection to the capped simplex): differentiable, all of it kept or none
    where strengths are clearly apart, and equal shares where they are the same.
    """
    inputs = strengths.shape[0]
    if keep >= inputs:
        return tf.ones_like(strengths)
    scaled = _SHARPNESS * strengths
    ends = tf.sort(tf.concat([scaled, scaled - 1], axis=0))
    # The sum falls with the threshold, along straight lines between these ends.
    sums = tf.reduce_sum(tf.clip_by_value(scaled[None] - ends[:, None], 0, 1), axis=-1)
    last = tf.reduce_max(tf.where(sums >= keep - 1e-6, tf.range(2 * inputs), 0))
    middle = (ends[last] + ends[tf.minimum(last + 1, 2 * inputs - 1)]) / 2
    height = scaled - tf.stop_gradient(middle)
    whole = tf.cast(height >= 1, scaled.dtype)
    part = tf.cast((height > 0) & (height < 1), scaled.dtype)
    parts = tf.reduce_sum(part)
    threshold = tf.math.divide_no_nan(
        tf.reduce_sum(part * scaled) + tf.reduce_sum(whole) - keep, parts
    )
    return whole + part * (scaled - threshold)


def _assign(variables: dict[str, tf.Variable], name: str, value: Any) -> None:
    value = np.asarray(value, dtype=np.float64)
    if name in variables:
        variables[name].assign(value)
    else:
        variables[name] = tf.Variable(value, trainable=False)
