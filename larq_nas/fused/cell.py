"""A cell of a supernet as one layer."""

import json
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from larq_nas.fused.compute import computation
from larq_nas.fused.kernels import Stacked
from larq_nas.fused.plan import Plan
from larq_nas.layers.mixture import Kept
from larq_nas.layers.precision import current_precision

__all__ = ["FusedCell"]


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
