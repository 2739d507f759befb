"""Convert a model with its real layers in int8."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from larq_nas.deploy.audit import Audit, audit
from larq_nas.deploy.conversion import Conversion
from larq_nas.deploy.equivalence import compare_operations
from larq_nas.deploy.export import export_lowered, run
from larq_nas.deploy.int8.network import InInt8, quantize, require_close, require_int8, stays_float
from larq_nas.deploy.int8.plan import Int8, without_borders
from larq_nas.deploy.int8.report import Int8Report, accuracy
from larq_nas.deploy.operations import KERNELS, Kernel, Operations
from larq_nas.deploy.parity import compare, figures, predict
from larq_nas.deploy.recording import LayerCall, Recording
from larq_nas.deploy.rewriting import Lowered
from larq_nas.deploy.rewriting.forms import compute
from larq_nas.errors import ConversionError

__all__ = ["in_int8"]

_CALIBRATION = 512
_COMPARED = 8


def in_int8(
    conversion: Conversion,
    lowered: Lowered,
    which: Int8,
    images: Sequence[np.ndarray],
    labels: np.ndarray | None,
    kernels: Sequence[Kernel],
) -> Conversion:
    """Return a conversion with its real layers in int8.

    # Arguments
        conversion: the one without int8.
        lowered: what it was made of.
        which: `"ends"` or `"all"`.
        images: one array for each input, first axis the examples; ranges are calibrated on the
            first 512.
        labels: of these images, if known; of the first output.
        kernels: the kernels that must agree with fake-quant.

    # Raises
        ConversionError: if a layer does not run in int8, or loses more than rounding does.
    """
    network = quantize(lowered, which, [image[:_CALIBRATION] for image in images])
    if not network.layers:
        nothing = "int8 changes nothing: there is no real layer that could run in it"
        return dataclasses.replace(conversion, warnings=[*conversion.warnings, nothing])
    require_close(network, lowered, images)
    flatbuffer = without_borders(export_lowered(network.lowered))
    audited = audit(
        lowered.model,
        flatbuffer,
        network.lowered.kernels(),
        lowered.binary_layers,
        lowered.constant_layers,
    )
    audited = _naming(audited, require_int8(network, flatbuffer))
    parity = compare(network, flatbuffer, images, kernels)
    for result in parity:
        # Rounding decides more in int8: what the outputs leave open, the operations decide.
        if not result.equal and not _agrees(network, flatbuffer, images, result.kernel):
            raise ConversionError(
                f"The flatbuffer of `{network.name}` in int8 does not compute what fake-quant does "
                f"({result}): convert without int8."
            )
    outputs = run(flatbuffer, images, kernels[0], **KERNELS[kernels[0]])
    expected = predict(lowered.model, images)
    compared = figures(kernels[0], expected, outputs, network.meanings)
    report = Int8Report(
        layers=[layer.call.layer.name for layer in network.layers],
        stays_float=stays_float(flatbuffer),
        examples=len(images[0]),
        agreement=compared.agreement,
        mean=compared.mean,
        bytes_before=len(conversion.flatbuffer),
        bytes_after=len(flatbuffer),
        accuracy_before=accuracy(expected[0], labels),
        accuracy_after=accuracy(outputs[0].reshape(expected[0].shape), labels),
        notes=[*network.notes, *_within(audited, network, which)],
        classified=compared.classified,
        pixel_mean=compared.pixel_mean,
    )
    reasons = network.lowered.reasons
    return dataclasses.replace(
        conversion,
        flatbuffer=flatbuffer,
        audit=audited,
        parity=parity,
        rewrites=reasons,
        int8=report,
    )


def _within(audited: Audit, network: InInt8, which: Int8) -> list[str]:
    """Return the real layers that are parts of layers which int8 does not enter."""
    calls = {call.layer.name for call in network.lowered.calls}
    within = [row.layer for row in audited.layers if not row.binary and row.layer not in calls]
    if not within or which != "all":
        return []
    names = ", ".join(f"`{name}`" for name in within)
    return [f"{names} stay in float: int8 does not enter the layers that they are parts of"]


def _agrees(network: InInt8, flatbuffer: bytes, images: Sequence[np.ndarray], kernel: str) -> bool:
    """Return whether each operation computes what fake-quant does, on the first images."""
    given = [image[:_COMPARED] for image in images]
    lowered = network.lowered
    values = compute(
        lowered.calls,
        [tf.constant(image) for image in given],
        range(len(lowered.calls)),
        lowered.rewrites,
    )
    calls = [
        LayerCall(call.layer, tuple(values[read] for read in call.inputs), {}, [value])
        for call, value in zip(lowered.calls, values, strict=True)
    ]
    recording = RoundedRecording(calls, [values[index] for index in lowered.outputs])
    return compare_operations(recording, Operations(flatbuffer, kernel), given).equal


class RoundedRecording(Recording):
    """The calls of a network with fake-quant, which no jitter of a layer alone describes."""

    def jittered(self, tensor: tf.Tensor, given: set[int]) -> list[np.ndarray]:
        """Return nothing: an int8 number may be one step off, and a sign not at all."""
        return []


def _naming(audited: Audit, operations: dict[str, str]) -> Audit:
    """Return an audit with the operations of layers in int8."""
    rows = [
        dataclasses.replace(row, runs_as=operations.get(row.layer, row.runs_as))
        for row in audited.layers
    ]
    return dataclasses.replace(audited, layers=rows)
