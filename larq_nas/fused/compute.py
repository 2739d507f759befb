"""What a cell computes, as one function that cells of the same plan share."""

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.fused.chunks import Tensors, chunked, chunks_of, part_of
from larq_nas.fused.kernels import weighed
from larq_nas.fused.norms import Norms
from larq_nas.fused.plan import CONVOLVED, Plan
from larq_nas.fused.pools import pool
from larq_nas.fused.rematerialize import rematerialized
from larq_nas.layers import BinaryConv2D
from larq_nas.layers.precision import ComputedIn, computing_in, convolve

__all__ = ["computation"]


@functools.lru_cache(maxsize=32)
def computation(
    key: str,
    sizes: tuple[tuple[int, ...], ...],
    training: bool,
    rematerialize: bool,
    precision: ComputedIn,
) -> Callable[..., tuple[tf.Tensor, Any]]:
    """Return the function of a plan: a graph that is traced once, wherever it is called.

    It takes the inputs of the cell, what other layers give, the probabilities of all nodes in
    a row, the kernels of the stacks, their slopes, and moving means and variances. It returns
    what the cell gives, and the statistics, moved towards those of the batch.

    # Arguments
        key: see `Plan.key`.
        sizes: height and width of each input: a function traced for several knows none.
        training: whether to normalize by the batch.
        rematerialize: whether to compute it again for its gradient.
        precision: of the operands of binary convolutions.
    """
    plan = Plan(**json.loads(key))
    chunks = chunks_of(plan)
    part = _Compute(part_of(plan, chunks), training, precision)
    compute: Callable[..., Any] = tf.function(part, autograph=False, reduce_retracing=True)
    if chunks > 1:
        compute = chunked(compute, plan, chunks)
    return rematerialized(compute) if rematerialize else compute


class _Compute:
    def __init__(self, plan: Plan, training: bool, precision: ComputedIn) -> None:
        self.plan = plan
        self.training = training
        self.precision = precision

    def __call__(
        self,
        inputs: Tensors,
        others: Tensors,
        flat: tf.Tensor,
        kernels: Tensors,
        slopes: Tensors,
        mean: tf.Tensor,
        variance: tf.Tensor,
    ) -> tuple[tf.Tensor, Any]:
        plan = self.plan
        norms = Norms(**plan.norm, mean=mean, variance=variance, training=self.training)
        weighted = self._kernels(flat, kernels, slopes)
        terms: list[list[tf.Tensor]] = [[] for _ in range(plan.states)]
        for place, y in zip(plan.others, others, strict=True):
            terms[place[-1]].append(flat[plan.place(*place)] * y)
        states = list(inputs)
        for state in range(plan.states - 1):
            if state >= plan.inputs:
                states.append(tf.add_n(terms[state]))
            given = self._given(state, states[state], weighted, flat, norms)
            for readers, summed in given.items():
                parts = tf.split(tf.add_n(summed), len(readers), axis=-1)
                for target, part in zip(readers, parts, strict=True):
                    terms[target].append(part)
        states.append(tf.add_n(terms[-1]))
        return tf.concat([states[index] for index in plan.concat], axis=-1), norms.moved()

    def _kernels(
        self, flat: tf.Tensor, kernels: Tensors, slopes: Tensors
    ) -> dict[tuple[int, int], tuple[Any, ...]]:
        """Return of each convolution its weighted kernel, the weights, and the slopes of PReLU."""
        found = {}
        remaining = iter(slopes)
        for stack, kernel in zip(self.plan.stacks, kernels, strict=True):
            weights = tf.gather(flat, self._places(stack))
            parts = tf.split(weights, stack.sizes)
            of_slopes = [None] * len(parts)
            if stack.prelu:
                of_slopes = tf.split(next(remaining), stack.sizes)
            split = stack.kernels(kernel, weights)
            for (state, number, _), *triple in zip(
                stack.convolutions, split, parts, of_slopes, strict=True
            ):
                found[state, number] = tuple(triple)
        return found

    def _places(self, stack: Any) -> np.ndarray:
        """Return where the probability of each filter of a stack is."""
        places = [
            self.plan.place(state, number, target)
            for state, number, _ in stack.convolutions
            for target in self.plan.readers(state, number)
        ]
        return np.repeat(places, stack.filters)

    def _given(
        self, state: int, x: tf.Tensor, kernels: Any, flat: tf.Tensor, norms: Norms
    ) -> dict[tuple[int, ...], list[tf.Tensor]]:
        """Return what a state gives, to be added: by the nodes, which are along the channels."""
        plan = self.plan
        read = _Read(x, lambda: norms(x, plan.rows[state, CONVOLVED]), self.precision)
        given: dict[tuple[int, ...], list[tf.Tensor]] = {}
        added = []
        plain: list[tuple[tf.Tensor, list[int]]] = []
        for number, made in plan.candidates(state):
            if made["kind"] == "convolution":
                layer, readers = plan.prototypes[state, number], plan.readers(state, number)
                y = read.convolve(layer, *kernels[state, number])
                given.setdefault(readers, []).append(y)
            if made["kind"] == "identity" or made.get("adds"):
                added.append(number)
            if made["kind"] == "pool":
                y = pool(x, made)
                y = norms(y, plan.rows[state, number]) if made["norm"] else y
                plain.append((y, [number]))
        if added:
            plain.append((x, added))
        if plain:
            readers = tuple(plan.targets(state))
            given.setdefault(readers, []).append(self._weigh(state, plain, flat))
        return given

    def _weigh(
        self, state: int, plain: Sequence[tuple[tf.Tensor, list[int]]], flat: tf.Tensor
    ) -> tf.Tensor:
        """Return for each node the sum of tensors, weighted: a 1x1 convolution."""
        targets = self.plan.targets(state)
        matrix = np.zeros((flat.shape[0], len(plain), len(targets)), dtype=np.float32)
        for row, (_, numbers) in enumerate(plain):
            for column, target in enumerate(targets):
                for number in numbers:
                    matrix[self.plan.place(state, number, target), row, column] = 1
        weights = tf.tensordot(flat, matrix, 1)
        channels = self.plan.channels
        eye = np.eye(channels, dtype=np.float32)[None, :, None, :]
        kernel = tf.reshape(weights[:, None, :, None] * eye, (1, 1, -1, len(targets) * channels))
        joined = tf.concat([y for y, _ in plain], axis=-1)
        return tf.nn.conv2d(joined, kernel, 1, "VALID", name="weigh")


class _Read:
    """A state as convolutions read it: normalized, its sign taken and padded, each once."""

    def __init__(
        self, x: tf.Tensor, normalize: Callable[[], tf.Tensor], precision: ComputedIn
    ) -> None:
        self._normalize = normalize
        self._precision = precision
        self._normal: tf.Tensor | None = None
        self._padded: dict[str, tf.Tensor] = {}

    def convolve(
        self,
        layer: BinaryConv2D,
        kernel: tf.Tensor,
        weights: tf.Tensor,
        slope: tf.Tensor | None,
    ) -> tf.Tensor:
        padding = "VALID" if layer.pad_values else layer.padding.upper()
        with computing_in(self._precision):  # a gradient may be traced when another is current
            y = convolve(self._signs(layer), kernel, layer.strides, padding, layer.dilation_rate)
        y = layer.activation(y)
        y = y if slope is None else tf.nn.relu(y) - slope * tf.nn.relu(-y)
        return weighed(y, weights)

    def _signs(self, layer: BinaryConv2D) -> tf.Tensor:
        if self._normal is None:
            self._normal = self._normalize()
        config = json.dumps(layer.get_config()["input_quantizer"])
        quantize = layer.input_quantizer or tf.identity
        signs = self._once(config, lambda: quantize(self._normal))
        if layer.padding != "same" or not layer.pad_values:
            return signs
        paddings = layer._get_padding_same(signs)
        return self._once(
            f"{config} {paddings} {layer.pad_values}",
            lambda: tf.pad(signs, paddings, constant_values=layer.pad_values),
        )

    def _once(self, key: str, compute: Callable[[], tf.Tensor]) -> tf.Tensor:
        if key not in self._padded:
            self._padded[key] = compute()
        return self._padded[key]
