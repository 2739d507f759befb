"""Compares a network layer by layer, each on the inputs it has in Keras."""

from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.cost.fusing import Fusing
from larq_nas.cost.graph import read_graph
from larq_nas.cost.network import WEIGHTED, Network
from larq_nas.deploy.causes import likely_cause_of_difference
from larq_nas.deploy.export import export_several, run
from larq_nas.deploy.flatbuffer import input_names, output_names
from larq_nas.deploy.parity import KERNELS, Kernel
from larq_nas.deploy.rewriting import Lowered
from larq_nas.deploy.rewriting.walk import compute
from larq_nas.errors import ConversionError

__all__ = ["require_each_layer"]

_IMAGES = 4
_EXACT = 1e-3
# One sign that rounding turned changes a window of numbers; a wrong kernel changes many.
_DIFFERING = 0.01


def require_each_layer(
    model: tf.keras.Model, lowered: Lowered, images: np.ndarray, kernel: Kernel
) -> None:
    """Refuse a layer that gives other numbers than Keras's from the same inputs.

    A deep network turns a sign that rounding changed into other outputs altogether, and so
    hides a layer that is wrong. Layer by layer nothing adds up: each is converted with what
    fuses into it, all of them in one more conversion.

    # Arguments
        model: the model.
        lowered: the model in the form that is converted.
        images: float32, shape `(examples, height, width, channels)`.
        kernel: the kernel to compare.

    # Raises
        ConversionError: naming the first layer that differs, and the likely cause.
    """
    calls, ends = lowered.calls, _ends(lowered)
    inputs = sorted({read for index in ends for read in _reads(lowered, index)})
    in_keras = read_graph(model)
    read = compute(in_keras, [tf.constant(images[:_IMAGES])], inputs)
    expected = compute(in_keras, [tf.constant(images[:_IMAGES])], list(ends.values()))
    got = _in_engine(lowered, inputs, read, list(ends.values()), kernel)
    for (index, end), one, other in zip(ends.items(), expected, got, strict=True):
        wanted = one.numpy()
        limit = _EXACT * max(float(wanted.std()), 1e-6)
        if np.mean(np.abs(wanted - other.reshape(wanted.shape)) > limit) > _DIFFERING:
            raise ConversionError(
                f"The {kernel} kernel does not compute layer `{calls[index].name}` (to "
                f"`{calls[end].name}`) as Keras does, from the same inputs: "
                f"{likely_cause_of_difference(calls, index)}."
            )


def _ends(lowered: Lowered) -> dict[int, int]:
    """Return each layer with a kernel, and the last call that fuses into it."""
    fusing = Fusing(Network(lowered.calls))
    ends = {}
    for index, call in enumerate(lowered.calls):
        if call.facts.kind in WEIGHTED:
            chain = [
                i for i in fusing.chain(index) if i not in fusing.moved | fusing.thresholds.keys()
            ]
            ends[index] = chain[-1] if chain else index
    return ends


def _reads(lowered: Lowered, index: int) -> tuple[int, ...]:
    rewrite = lowered.rewrites.get(index)
    return rewrite.inputs if rewrite else lowered.calls[index].inputs


def _in_engine(
    lowered: Lowered, inputs: list[int], read: list[tf.Tensor], wanted: list[int], kernel: Kernel
) -> list[np.ndarray]:
    """Return the calls `wanted` as the engine computes them, where `inputs` are given."""

    def pieces(*values: tf.Tensor) -> dict[str, Any]:
        given = dict(zip(inputs, values, strict=True))
        outputs = [
            compute(lowered.calls, values, [index], lowered.rewrites, _but(given, index))[0]
            for index in wanted
        ]
        return {f"output{number:04d}": output for number, output in enumerate(outputs)}

    shapes = [tuple(value.shape[1:]) for value in read]
    flatbuffer = export_several(pieces, shapes, lowered.variables)
    # Sorted, the names of inputs and outputs are in the order they were given.
    order = np.argsort(np.argsort(input_names(flatbuffer)))
    values = [read[number].numpy() for number in order]
    found = run(flatbuffer, values, kernel, **KERNELS[kernel])
    by_name = dict(zip(output_names(flatbuffer), found, strict=True))
    return [by_name[name] for name in sorted(by_name)]


def _but(given: dict[int, tf.Tensor], index: int) -> dict[int, tf.Tensor]:
    return {read: value for read, value in given.items() if read != index}
