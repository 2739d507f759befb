"""Cells of grouped convolutions, some groups at a time."""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from larq_nas.fused.plan import Plan

__all__ = ["Tensors", "chunked", "chunks_of", "part_of"]

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
    operations = [[_part(made, chunks) for made in of_state] for of_state in plan.operations]
    height, width, channels = plan.shape
    shape = height, width, channels // chunks
    return Plan(plan.inputs, operations, plan.concat, shape, plan.kept)


def _part(made: dict[str, Any], chunks: int) -> dict[str, Any]:
    if made["kind"] != "convolution":
        return made
    fewer = {name: made["layer"][name] // chunks for name in ("filters", "groups")}
    return {**made, "layer": {**made["layer"], **fewer}}


def chunked(compute: Callable[..., Any], plan: Plan, chunks: int) -> Callable[..., Any]:
    """Return a function that computes a cell by its parts.

    # Arguments
        compute: computes a part; see `computation` for what it takes.
        plan: that of the whole cell.
        chunks: number of parts.
    """

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
