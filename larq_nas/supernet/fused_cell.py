"""A cell of a supernet as one layer that does shared work once."""

import functools
import json
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from larq_nas.layers import BinaryConv2D
from larq_nas.layers.mixture import Kept
from larq_nas.layers.precision import ComputedIn, computing_in, convolve, current_precision
from larq_nas.supernet.fused_plan import CONVOLVED, Parts, Plan, Stacked, weighed


def kept(plan: Plan, input_shapes: Sequence[Sequence[int]]) -> int:
    """Return the numbers that one image leaves behind in a cell, without what it gives.

    Of each input the shape is `(height, width, channels)`.
    """
    node = math.prod(plan.shape)
    total = 0
    for state in range(plan.states - 1):
        height, width, channels = input_shapes[state] if state < plan.inputs else plan.shape
        # A state that convolutions read: normalized, and its signs with each padding.
        reaches = {
            tuple((np.array(one.kernel_size) - 1) * np.array(one.dilation_rate))
            for (of, _), one in plan.prototypes.items()
            if of == state
        }
        if reaches:
            total += height * width * channels
        total += sum((height + down) * (width + right) * channels for down, right in reaches)
        total += node * _given(plan, state)
    return total + node * (plan.states - plan.inputs)


def _given(plan: Plan, state: int) -> int:
    """Return how many tensors as large as a node are kept of what a state gives."""
    count = 0
    added = False
    for number, made in plan.candidates(state):
        if made["kind"] == "convolution":
            count += len(plan.readers(state, number)) * (2 if made["prelu"] else 1)
        if made["kind"] == "pool":
            # It, what it is normalized to, and its place among what is weighted.
            count += 3 if made["norm"] else 2
        added |= made["kind"] == "identity" or bool(made.get("adds"))
    return count + added


def pool(x: tf.Tensor, made: Parts) -> tf.Tensor:
    """Pool `x`, shape `(batch, height, width, channels)`, as `made` says; see `describe`."""
    settings = made["size"], made["strides"], made["padding"]
    if made["pool"] == "average":
        return tf.nn.avg_pool2d(x, *settings)
    pooled: tf.Tensor = _max_pool(*settings)(x)
    return pooled


def _max_pool(size: Any, strides: Any, padding: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return a max pool that pools again for its gradient.

    Where both are in one function, TensorFlow takes the gradient from oneDNN, several times as
    fast; a cell's gradient is a function of its own.
    """

    @tf.custom_gradient
    def run(x: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return tf.raw_ops.MaxPoolGrad(
                orig_input=x,
                orig_output=tf.nn.max_pool2d(x, size, strides, padding),
                grad=upstream,
                ksize=[1, *size, 1],
                strides=[1, *strides, 1],
                padding=padding,
            )

        return tf.nn.max_pool2d(x, size, strides, padding), gradient

    return run


class Norms:
    """Normalizes tensors, and collects the statistics of all of them: a row for each."""

    def __init__(
        self, momentum: float, epsilon: float, mean: tf.Tensor, variance: tf.Tensor, training: bool
    ) -> None:
        self._momentum, self._epsilon = momentum, epsilon
        self._mean, self._variance = mean, variance
        self._training = training
        self._seen: dict[int, tuple[tf.Tensor, tf.Tensor]] = {}
        channels = mean.shape[-1]
        self._ones, self._zeros = tf.ones(channels), tf.zeros(channels)

    def __call__(self, x: tf.Tensor, row: int) -> tf.Tensor:
        """Normalize `x`, whose statistics are in that row."""
        if not self._training:
            scale = tf.math.rsqrt(self._variance[row] + self._epsilon)
            return (x - self._mean[row]) * scale
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=self._ones,
            offset=self._zeros,
            mean=tf.zeros(0),
            variance=tf.zeros(0),
            epsilon=self._epsilon,
            is_training=True,
        )
        self._seen[row] = mean, variance
        return y

    def moved(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Return means and variances, moved towards those of the batch."""
        if not self._seen:
            return self._mean, self._variance
        rows, share = sorted(self._seen), 1 - self._momentum
        mean, variance = (
            moving - (moving - tf.stack([self._seen[row][index] for row in rows])) * share
            for index, moving in enumerate((self._mean, self._variance))
        )
        return mean, variance


Tensors: TypeAlias = Sequence[tf.Tensor]

_FEWEST_CHANNELS = 12
_MOST = 3


def chunks_of(plan: Plan) -> int:
    """Return into how many parts of its channels a cell falls that do not read one another.

    All that a cell computes but its convolutions is by channel, so that groups stay apart. A
    grouped convolution is computed as a dense one, since TensorFlow has the gradient of others only
    with oneDNN or XLA: fewer zeros are multiplied if a cell is computed in parts. Below a dozen
    channels each takes as long, and each is as large a graph as the whole.
    """
    groups = math.gcd(*(layer.groups for layer in plan.prototypes.values())) or plan.channels
    most = min(_MOST, max(1, plan.channels // _FEWEST_CHANNELS))
    return max(n for n in range(1, most + 1) if groups % n == 0)


def part_of(plan: Plan, chunks: int) -> Plan:
    """Return the plan of one of so many parts."""

    def part(made: Parts) -> Parts:
        if made["kind"] != "convolution":
            return made
        fewer = {name: made["layer"][name] // chunks for name in ("filters", "groups")}
        return {**made, "layer": {**made["layer"], **fewer}}

    operations = [list(map(part, of_state)) for of_state in plan.operations]
    height, width, channels = plan.shape
    shape = height, width, channels // chunks
    return Plan(plan.inputs, operations, plan.concat, shape, plan.kept)


def chunked(compute: Callable[..., Any], plan: Plan, chunks: int) -> Callable[..., Any]:
    """Return a function that computes a cell by its parts; see `computation` for what it takes."""

    def run(
        inputs: Tensors,
        others: Tensors,
        flat: tf.Tensor,
        kernels: Tensors,
        slopes: Tensors,
        mean: tf.Tensor,
        variance: tf.Tensor,
    ) -> tuple[tf.Tensor, Any]:
        split = [[tf.split(x, chunks, axis=-1) for x in given] for given in (inputs, others)]
        filters = [
            [_filters(x, stack.parts, chunks) for x, stack in zip(given, stacks, strict=True)]
            for given, stacks in (
                (kernels, plan.stacks),
                (slopes, [stack for stack in plan.stacks if stack.prelu]),
            )
        ]
        moving = [tf.split(x, chunks, axis=-1) for x in (mean, variance)]
        found = [
            compute(
                *([x[part] for x in given] for given in split),
                flat,
                *([x[part] for x in given] for given in filters),
                *(x[part] for x in moving),
            )
            for part in range(chunks)
        ]
        by_state = [tf.split(y, len(plan.concat), axis=-1) for y, _ in found]
        joined = tf.concat([y[state] for state in range(len(plan.concat)) for y in by_state], -1)
        statistics = zip(*(moved for _, moved in found), strict=True)
        return joined, tuple(tf.concat(moved, axis=-1) for moved in statistics)

    return run


def _filters(x: tf.Tensor, parts: int, chunks: int) -> list[tf.Tensor]:
    """Return the filters of each chunk, of a tensor with those of so many kernels last."""
    *before, filters = x.shape
    apart = tf.reshape(x, (*before, parts, chunks, filters // parts // chunks))
    return [tf.reshape(one, (*before, -1)) for one in tf.unstack(apart, axis=-2)]


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
        rematerialize: whether to compute it again for its gradient, in place of keeping what it
            computes ([Training Deep Nets with Sublinear Memory
            Cost](https://arxiv.org/abs/1604.06174)).
        precision: of the operands of binary convolutions.
    """
    plan = Plan(**json.loads(key))
    chunks = chunks_of(plan)
    part = _Compute(part_of(plan, chunks), training, precision)
    compute: Callable[..., Any] = tf.function(part, autograph=False, reduce_retracing=True)
    if chunks > 1:
        compute = chunked(compute, plan, chunks)
    return tf.recompute_grad(compute) if rematerialize else compute


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
        self, layer: BinaryConv2D, kernel: tf.Tensor, weights: tf.Tensor, slope: tf.Tensor | None
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


@tf.keras.utils.register_keras_serializable("larq_nas")
class FusedCell(tf.keras.layers.Layer):
    r"""A cell of a supernet, exactly as its operations would compute it one by one.

    \\[ x_j = \sum_{i < j} \sum_o p_{ij}(o) \, o(x_i) \\]

    What edges that leave one state share is done once: batch norm, sign, padding and pools.
    Convolutions of one size that read one state are one, with the filters of all the nodes
    that read it; activations are homogeneous and \\(p\\) is positive, so that the
    kernels take the weights: \\(p \operatorname{relu}(w * x) = \operatorname{relu}(p w * x)\\).

    Called on the cell's inputs, what other operations on them give to each node, and the
    probabilities of each node.

    # Arguments
        inputs: number of inputs, the first states.
        operations: what each operation on each state is made of; see `describe`.
        concat: indices of the states that are concatenated.
        shape: `(height, width, channels)` of a node.
        rematerialize: whether the backward pass computes the cell again, to save memory.
        kept: of each node, which operations on which states are candidates; all, if not given.
        **kwargs: further arguments of `tf.keras.layers.Layer`.
    """

    has_precision = True

    def __init__(
        self,
        inputs: int,
        operations: Sequence[Sequence[dict[str, Any]]],
        concat: Sequence[int],
        shape: Sequence[int],
        rematerialize: bool = False,
        kept: Sequence[Kept] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.rematerialize = rematerialize
        settings = {
            "inputs": inputs,
            "operations": operations,
            "concat": [int(state) for state in concat],
            "shape": [int(size) for size in shape],
            "kept": kept,
        }
        # As text, since Keras replaces lists and dictionaries by its own.
        self._settings = json.dumps(settings)

    def build(self, input_shape: Sequence[tf.TensorShape]) -> None:
        self.plan = Plan(**json.loads(self._settings))
        self.kernels, self.slopes = [], []
        for index, stack in enumerate(self.plan.stacks):
            self.kernels.append(
                self.add_weight(
                    name=f"kernel_{index}",
                    shape=stack.shape,
                    initializer=Stacked(stack.layer.kernel_initializer, stack.parts),
                    constraint=stack.layer.kernel_constraint,
                )
            )
            if stack.prelu:
                name, shape = f"slope_{index}", stack.shape[-1:]
                self.slopes.append(self.add_weight(name=name, shape=shape, initializer=stack.prelu))
        rows = (len(self.plan.rows), self.plan.channels)
        self.mean, self.variance = (
            self.add_weight(
                name=f"moving_{name}",
                shape=rows,
                initializer=initializer,
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.MEAN,
            )
            for name, initializer in (("mean", "zeros"), ("variance", "ones"))
        )
        super().build(input_shape)

    def call(self, inputs: Sequence[tf.Tensor], training: bool | None = None) -> tf.Tensor:
        graph = getattr(tf.compat.v1.get_default_graph(), "name", None)
        if graph == f"{self.name}_scratch_graph":
            # Keras asks for the shape alone, for which nothing needs to be traced.
            shape = self.compute_output_shape([x.shape for x in inputs])
            return tf.zeros([tf.shape(inputs[0])[0], *shape[1:]])
        nodes = self.plan.states - self.plan.inputs
        given, probabilities = list(inputs[:-nodes]), inputs[-nodes:]
        precision = current_precision()
        sizes = tuple(tuple(x.shape[1:3]) for x in given[: self.plan.inputs])
        compute = computation(self.plan.key, sizes, bool(training), self.rematerialize, precision)
        y, statistics = compute(
            given[: self.plan.inputs],
            given[self.plan.inputs :],
            tf.concat([tf.reshape(p, [-1]) for p in probabilities], axis=0),
            [tf.convert_to_tensor(kernel) for kernel in self.kernels],
            [tf.convert_to_tensor(slope) for slope in self.slopes],
            tf.convert_to_tensor(self.mean),
            tf.convert_to_tensor(self.variance),
        )
        if training:
            for variable, moved in zip((self.mean, self.variance), statistics, strict=True):
                variable.assign(moved)
        return y

    def compute_output_shape(self, input_shape: Sequence[tf.TensorShape]) -> tf.TensorShape:
        height, width, channels = self.plan.shape
        return tf.TensorShape([input_shape[0][0], height, width, channels * len(self.plan.concat)])

    def binary_kernels(self) -> list[tf.Tensor]:
        """Return the binary weights, quantized."""
        stacks = zip(self.plan.stacks, self.kernels, strict=True)
        quantizers = [(stack.layer.kernel_quantizer, kernel) for stack, kernel in stacks]
        return [quantizer(kernel) for quantizer, kernel in quantizers if quantizer is not None]

    def get_config(self) -> dict[str, Any]:
        own = {**json.loads(self._settings), "rematerialize": self.rematerialize}
        return {**super().get_config(), **own}
