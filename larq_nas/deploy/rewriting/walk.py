"""Computes a network call by call, with some calls computed in another way."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.cost.graph import Call, call_layer

__all__ = ["Rewrite", "call_layer", "compute", "needed"]


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
        calls: the network, from `larq_nas.cost.graph.read_graph`.
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
