"""Measures ways to compute groups of channels."""

from collections.abc import Sequence

import tensorflow as tf

from larq_nas.deploy.export import export_function
from larq_nas.deploy.parity import Kernel
from larq_nas.deploy.rewriting.groups import Computation, GroupCost

__all__ = ["group_cost"]


def group_cost(kernels: Sequence[Kernel]) -> GroupCost:
    """Return what converts a way to compute groups and times it, once for each geometry.

    # Arguments
        kernels: the kernels that are to run the model; the fastest of them here is timed.
    """
    known: dict[object, tuple[int, float]] = {}
    kernel: Kernel = "indirect" if "indirect" in kernels else kernels[0]

    def cost(computation: Computation, shape: tuple[int, ...]) -> tuple[int, float]:
        form = computation.form
        geometry = (type(computation), shape, form.signs.shape, form.groups, form.strides)
        key = (*geometry, form.dilation_rate, form.padding, form.activation)
        if key not in known:
            known[key] = _measure(computation, shape, kernel)
        return known[key]

    return cost


def _measure(computation: Computation, shape: tuple[int, ...], kernel: Kernel) -> tuple[int, float]:
    from larq_nas.latency.here import measure_here  # it measures what this package converts

    def alone(image: tf.Tensor) -> tf.Tensor:
        return computation(image)

    flatbuffer = export_function(alone, [shape], computation.variables)
    return len(flatbuffer), measure_here(flatbuffer, kernel=kernel).milliseconds
