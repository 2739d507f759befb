"""What a fused cell keeps for its backward pass."""

from collections.abc import Sequence

import numpy as np

from larq_nas.fused.plan import Plan

__all__ = ["kept"]


def kept(plan: Plan, input_shapes: Sequence[Sequence[int]]) -> int:
    """Return the numbers that one image leaves behind in a cell, without what it gives.

    # Arguments
        plan: what the cell computes.
        input_shapes: `(height, width, channels)` of each input.
    """
    node = _size(plan.shape)
    total = 0
    for state in range(plan.states - 1):
        shape = input_shapes[state] if state < plan.inputs else plan.shape
        total += _read(plan, state, shape) + node * _given(plan, state)
    return total + node * (plan.states - plan.inputs)


def _read(plan: Plan, state: int, shape: Sequence[int]) -> int:
    """Return what is kept of a state: normalized, and its signs with each padding."""
    layers = [layer for (of, _), layer in plan.prototypes.items() if of == state]
    if not layers:
        return 0
    height, width, channels = shape
    reaches = {
        tuple((np.array(one.kernel_size) - 1) * np.array(one.dilation_rate)) for one in layers
    }
    padded = sum((height + down) * (width + right) * channels for down, right in reaches)
    return _size(shape) + padded


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


def _size(shape: Sequence[int]) -> int:
    height, width, channels = shape
    return height * width * channels
