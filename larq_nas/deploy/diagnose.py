"""Finds the layer that gives wrong numbers, and layers whose inputs say nothing."""

import numpy as np
import tensorflow as tf

from larq_nas.deploy.causes import is_binary, likely_cause_of_difference
from larq_nas.deploy.export import export_function, input_shape, run
from larq_nas.deploy.flatbuffer import output_names
from larq_nas.deploy.parity import KERNELS, Parity
from larq_nas.deploy.rewriting import Lowered
from larq_nas.deploy.rewriting.walk import compute

__all__ = ["constant_channels", "wrong_numbers"]

_IMAGES = 8


def wrong_numbers(lowered: Lowered, images: np.ndarray, result: Parity) -> str:
    """Return which layer makes the outputs differ from Keras's, and why, in one line.

    # Arguments
        lowered: the model that converts to wrong numbers.
        images: float32, shape `(examples, height, width, channels)`.
        result: the comparison that failed.
    """
    index = _first_differing(lowered, images[:_IMAGES], result)
    if index is None:
        where = "no single layer differs; compare a shorter network"
    else:
        cause = likely_cause_of_difference(lowered.calls, index)
        where = f"layer `{lowered.calls[index].name}` is the first that differs: {cause}"
    return (
        f"The flatbuffer of `{lowered.model.name}` does not compute what Keras does: {where} "
        f"({result})."
    )


def constant_channels(lowered: Lowered, images: np.ndarray) -> list[str]:
    """Return a line for each binary layer that takes the sign of channels that are always 0.

    A channel multiplied with 0 is not gone: its sign is +1.

    # Arguments
        lowered: the model.
        images: float32, shape `(examples, height, width, channels)`.
    """
    binary = [index for index, call in enumerate(lowered.calls) if is_binary(call.layer)]
    read = sorted({lowered.calls[index].inputs[0] for index in binary})
    values = dict(zip(read, _keras_outputs(lowered, images[:_IMAGES], read), strict=True))
    lines = []
    for index in binary:
        inputs = values[lowered.calls[index].inputs[0]]
        zero = int(np.sum(~np.any(inputs, axis=tuple(range(inputs.ndim - 1)))))
        if zero:
            lines.append(
                f"`{lowered.calls[index].name}` takes the sign of {zero} of {inputs.shape[-1]} "
                "channels that are always 0: each counts as +1. Zeros before a sign (of a mask, or "
                "of a cell's zero operations) remove no channel: if that is not meant, put them "
                "behind the sign, or build the network with fewer channels"
            )
    return lines


def _keras_outputs(lowered: Lowered, images: np.ndarray, wanted: list[int]) -> list[np.ndarray]:
    outputs = compute(lowered.calls, [tf.constant(images)], wanted)
    return [output.numpy() for output in outputs]


def _first_differing(lowered: Lowered, images: np.ndarray, result: Parity) -> int | None:
    """Return the first call of a layer with weights whose outputs differ from Keras's.

    The model is converted once more with the outputs of all of them, so an error that only
    comes from fusing them may not show.
    """
    kinds = ("conv", "dense", "depthwise", "separable", "transposed")
    wanted = [index for index, call in enumerate(lowered.calls) if call.facts.kind in kinds]

    def outputs(image: tf.Tensor) -> dict[str, tf.Tensor]:
        values = lowered.outputs_of(image, wanted)
        return {f"output{number:04d}": value for number, value in enumerate(values)}

    flatbuffer = export_function(outputs, input_shape(lowered.model), lowered.variables)
    kernel = result.kernel
    outputs_of_kernel = run(flatbuffer, images, kernel, **KERNELS[kernel])  # type: ignore[index]
    by_name = dict(zip(output_names(flatbuffer), outputs_of_kernel, strict=True))
    expected = _keras_outputs(lowered, images, wanted)
    for index, one, name in zip(wanted, expected, sorted(by_name), strict=True):
        other = by_name[name].reshape(one.shape)
        differing = np.abs(one - other) > 1e-3 * max(float(one.std()), 1e-6)
        # A sign that rounding turned changes few images; a wrong kernel changes them all.
        if np.median(differing.reshape(len(one), -1).mean(axis=1)) > 0.01:
            return index
    return None
