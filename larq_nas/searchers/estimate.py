"""Estimate the memory of a search before it starts."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from larq_nas.cost.profile import Structure
from larq_nas.errors import InputError, warn
from larq_nas.layers import BinaryConv2D
from larq_nas.memory import free_memory
from larq_nas.spaces.chooser import ImageShape
from larq_nas.supernet.fused_cell import FusedCell, kept
from larq_nas.training.distribution import process_count

# Fitted to the steps of benchmarks/search_step.py.
RUNTIME_BYTES = 0.63 * 2**30
_BYTES_A_CALL = 1.9e6  # of a layer: what is traced
_BYTES_A_WEIGHT = 42  # with the states of the optimizer, and gradients
_BYTES_A_NUMBER = 7  # that is kept for the backward pass, with gradients under way
# A binary convolution keeps its signs and their padding beside its output.
_COPIES: dict[type, int] = {BinaryConv2D: 3}


def estimate(
    model: tf.keras.Model,
    batch_size: int,
    rematerialize: bool | None = None,
    width: float = 1.0,
) -> float:
    """Return the bytes of memory that training a network takes, in each process.

    `rematerialize` tells whether its fused cells are computed again; by default as they were built.
    At another `width`, a share of its channels, they are those of layers in its middle.
    """
    strategy = model.distribute_strategy
    processes = process_count(strategy)
    replicas = strategy.num_replicas_in_sync // processes
    calls = replicas * sum(len(nodes) for nodes in model._nodes_by_depth.values())
    numbers = batch_size * _activations(model, rematerialize) // processes
    weights = int(replicas * model.count_params() * width**2)
    return _bytes(calls, weights, int(numbers * width))


def estimate_widths(structure: Structure, widths: Mapping[str, int], batch_size: int) -> float:
    """Return the bytes of memory that training a network of these widths takes."""
    calls, counted = structure.network.calls, structure.count(widths)
    weights = sum(part.count for call in counted for part in call.weights)
    numbers = sum(
        call.area * found.channels * _COPIES.get(type(call.layer), 1)
        for call, found in zip(calls, counted, strict=True)
    )
    return _bytes(len(calls), weights, batch_size * numbers)


def _bytes(calls: int, weights: int, numbers: int) -> float:
    return (
        RUNTIME_BYTES
        + _BYTES_A_CALL * calls
        + _BYTES_A_WEIGHT * weights
        + _BYTES_A_NUMBER * numbers
    )


# The estimate is within a fifth of what was measured, and what is free changes: in between it
# may fit.
_MARGIN = 1.5


def require_memory(
    needed: float,
    mends: Callable[[float], Sequence[str]],
    what: str = "The supernet",
    is_certain: bool = True,
) -> None:
    """Raise `InputError` if clearly more memory is needed than is free, and warn if it may be.

    On a GPU, whose memory is another, it only warns, as it does of a need that is not certain.
    `mends` returns the changes that need no more than the bytes that it is given.
    """
    free = free_memory()
    if free is None or needed <= free:
        return
    told = (
        f"{what} needs about {needed / 2**30:.1f} GiB of memory, but only {free / 2**30:.1f} GiB "
        f"are free: {' or '.join(mends(free)) or 'use fewer cells or channels'}."
    )
    if not is_certain or needed <= _MARGIN * free or tf.config.list_physical_devices("GPU"):
        warn(told)
    else:
        raise InputError(told)


_FEWEST, _SMALLEST, _STEP = 8, 32, 16


def fitting_data(
    needed: Callable[[int], float], free: float, batch_size: int, input_shape: ImageShape
) -> list[str]:
    """Return the change to the largest batch or to the largest images that fit, if any do.

    `needed` is linear in the batch, and in the pixels of an image as well. What a network hardly
    learns from is not named: fewer than 8 images, or less than 32 pixels.
    """
    fixed = needed(0)
    share = max(0.0, (free - fixed) / (needed(batch_size) - fixed))
    if share >= 1:
        return []
    largest = int(share * batch_size)
    found = [f"batches of up to {largest} images"] if largest >= _FEWEST else []
    height, width = (int(side * share**0.5) // _STEP * _STEP for side in input_shape[:2])
    if min(height, width) >= _SMALLEST:
        found.append(f"images of up to {height}x{width} pixels")
    return [f"use {' or '.join(found)}"] if found else []


def require_training_memory(
    model: tf.keras.Model, batch_size: int, what: str, other: str, is_certain: bool = True
) -> None:
    """Raise `InputError` if training a network needs clearly more memory than is free.

    `other` is what helps but smaller batches. It only warns if another network may be trained.
    """

    def needed(batch: int) -> float:
        return estimate(model, batch)

    def mends(free: float) -> list[str]:
        return [*fitting_data(needed, free, batch_size, model.input_shape[1:]), other]

    require_memory(needed(batch_size), mends, what, is_certain)


def _activations(model: tf.keras.Model, rematerialize: bool | None) -> int:
    """Return the numbers that one image leaves behind for the backward pass."""
    count, again = 0, 0
    for nodes in model._nodes_by_depth.values():
        for node in nodes:
            outputs = tf.nest.flatten(node.outputs)
            size = sum(int(np.prod(tensor.shape[1:])) for tensor in outputs)
            if isinstance(node.layer, FusedCell):
                plan = node.layer.plan
                inputs = tf.nest.flatten(node.keras_inputs)[: plan.inputs]
                inside = kept(plan, [tensor.shape[1:] for tensor in inputs])
                if node.layer.rematerialize if rematerialize is None else rematerialize:
                    again = max(again, inside)
                else:
                    size += inside
            count += _COPIES.get(type(node.layer), 1) * size
    return count + again
