"""Estimate memory and time of a search, and print them before it starts."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from larq_nas.cost.structure import Structure
from larq_nas.errors import callers_level
from larq_nas.layers import BinaryConv2D
from larq_nas.layers.precision import warn_if_unused
from larq_nas.searchers.differentiable.penalty import BudgetPenalty
from larq_nas.supernet.fuse import Fuse
from larq_nas.supernet.fused_cell import FusedCell, kept
from larq_nas.training.distribution import process_count

if TYPE_CHECKING:
    from larq_nas.searchers.differentiable.search import DifferentiableSearch

__all__ = [
    "RUNTIME_BYTES",
    "announce",
    "estimate",
    "estimate_widths",
    "free_memory",
    "warn_if_too_large",
]


_MEMORY = Path("/proc/meminfo")
_CONTAINER = Path("/sys/fs/cgroup/memory.max")
# Fitted to the steps of benchmarks/search_step.py.
RUNTIME_BYTES = 0.63 * 2**30
_BYTES_A_CALL = 1.9e6  # of a layer: what is traced
_BYTES_A_WEIGHT = 42  # with the states of the optimizer, and gradients
_BYTES_A_NUMBER = 7  # that is kept for the backward pass, with gradients under way
# A binary convolution keeps its signs and their padding beside its output.
_COPIES: dict[type, int] = {BinaryConv2D: 3}


def estimate(model: tf.keras.Model, batch_size: int) -> float:
    """Return the bytes of memory that training a supernet takes, in each process.

    # Arguments
        model: the supernet.
        batch_size: images in a batch, of all replicas together.
    """
    strategy = model.distribute_strategy
    processes = process_count(strategy)
    replicas = strategy.num_replicas_in_sync // processes
    calls = replicas * sum(len(nodes) for nodes in model._nodes_by_depth.values())
    numbers = batch_size * _activations(model) // processes
    return _bytes(calls, replicas * model.count_params(), numbers)


def estimate_widths(structure: Structure, widths: Mapping[str, int], batch_size: int) -> float:
    """Return the bytes of memory that training a network of these widths takes.

    # Arguments
        structure: the network.
        widths: number of filters of each choice by name.
        batch_size: images in a batch.
    """
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


def warn_if_too_large(needed: float, can_rematerialize: bool) -> None:
    """Warn if more memory is needed than is free, where the system says what is.

    # Arguments
        needed: in bytes.
        can_rematerialize: whether rematerialization would help, and is off.
    """
    free = free_memory()
    advice = ", or the searcher's `rematerialize=True`" if can_rematerialize else ""
    if free is not None and needed > free:
        warnings.warn(
            f"The supernet needs about {needed / 2**30:.1f} GiB of memory, but only "
            f"{free / 2**30:.1f} GiB are free: use a smaller batch or fewer channels{advice}.",
            stacklevel=callers_level(),
        )


def free_memory() -> float | None:
    """Return the bytes that Linux could give; `None` where there is no such figure."""
    found = re.search(r"MemAvailable:\s*(\d+) kB", _read(_MEMORY))
    limit = re.fullmatch(r"(\d+)\s*", _read(_CONTAINER))  # "max" where there is none
    free = [int(found[1]) * 1024] if found else []
    return min([*free, int(limit[1])] if limit else free, default=None)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _activations(model: tf.keras.Model) -> int:
    """Return the numbers that one image leaves behind for the backward pass."""
    count, again = 0, 0
    for nodes in model._nodes_by_depth.values():
        for node in nodes:
            outputs = tf.nest.flatten(node.outputs)
            size = sum(int(np.prod(tensor.shape[1:])) for tensor in outputs)
            if isinstance(node.layer, FusedCell):
                inside = _inside(node)
                if node.layer.rematerialize:
                    again = max(again, inside)
                else:
                    size += inside
            count += _COPIES.get(type(node.layer), 1) * size
    return count + again


def _inside(node: Any) -> int:
    """Return what is kept inside of a cell."""
    plan = node.layer.plan
    shapes = [tensor.shape for tensor in tf.nest.flatten(node.keras_inputs)[: plan.inputs]]
    return kept(plan, [shape[1:] for shape in shapes])


_LONG = 5.0


def announce(search: "DifferentiableSearch", verbose: int | str) -> None:
    """Say what a search will need, and warn of settings that do nothing.

    # Arguments
        search: the search that is ready to run.
        verbose: as in `fit`; warnings are given in any case.
    """
    model, choose, batch_size = search.model, search.choose, search.task.facts.batch_size
    memory = estimate(model, batch_size)
    if verbose:
        print(
            f"Supernet: {model.count_params():,} parameters, about {memory / 2**30:.1f} GiB of "
            f"memory, {search.stream.steps * search.epochs:,} steps of {batch_size} images from "
            "each half.",
            flush=True,
        )
        _say_what_is_slow(search)
    warn_if_too_large(memory, can_rematerialize=bool(choose.fused) and not choose.rematerialize)
    warn_if_unused(model, model.precision)
    if choose.rematerialize and not choose.fused:
        warnings.warn(
            f"`rematerialize=True` has no effect: {_why_none(choose)}.",
            stacklevel=callers_level(),
        )


def _say_what_is_slow(search: "DifferentiableSearch") -> None:
    obstacles = search.choose.obstacles
    if obstacles:
        first, reason = next(iter(obstacles.items()))
        print(
            f"{len(obstacles)} of {len(obstacles) + search.choose.fused} cells are computed "
            f"operation by operation, which takes longer; `{first}`: {reason}",
            flush=True,
        )
    penalty = search.model.terms.get("budget_penalty")
    if isinstance(penalty, BudgetPenalty) and penalty.seconds > _LONG:
        print(
            f"Budget: its costs take up to {penalty.seconds:.0f} s before each epoch",
            flush=True,
        )


def _why_none(choose: Fuse) -> str:
    if not choose.obstacles:
        return "the space has no cells"
    first, reason = next(iter(choose.obstacles.items()))
    return f"no cell is fused; `{first}`: {reason}"
