"""Golden test of a flatbuffer where its latency is measured."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from larq_nas.deploy.export import run
from larq_nas.deploy.golden import Golden, natural_order, read_golden, tensors
from larq_nas.deploy.operations import KERNELS, Kernel
from larq_nas.errors import ConversionError, InputError

__all__ = ["golden_here", "golden_of", "verdict"]


def golden_of(source: bytes | str | Path, flatbuffer: bytes) -> Golden:
    """Return the golden test in a file, or raise `InputError` if it is of another model."""
    golden = read_golden(source)
    inputs, outputs = tensors(flatbuffer)
    wanted = [(end.elements, end.type) for end in (*inputs, *outputs)]
    found = (*golden.inputs, *(output.tensor for output in golden.outputs))
    if [(end.elements, end.type) for end in found] != wanted or len(inputs) != len(golden.inputs):
        name = "`golden`" if isinstance(source, bytes) else f"`{source}`"
        raise InputError(
            f"{name} is the golden test of another model, with other inputs or outputs: take the "
            "one of its own package."
        )
    return golden


def verdict(golden: Golden, raw: Sequence[np.ndarray], where: str) -> list[str]:
    """Return what the golden test found, a line for each output.

    # Arguments
        golden: the golden test.
        raw: for each output what it holds, first axis the examples.
        where: the device, for the error.

    # Raises
        ConversionError: if the outputs are not as expected.
    """
    results = golden.judge(raw)
    for result in results:
        if not result.passed:
            raise ConversionError(failure(where, str(result)))
    return [*map(str, results)]


def failure(where: str, found: str) -> str:
    """Return the error of a golden test that was not passed."""
    return (
        f"The golden test failed on {where}: {found}; it computes something else than the network "
        "that was packed, so try another kernel there, or convert and pack again."
    )


def golden_here(golden: Golden, flatbuffer: bytes, kernel: Kernel) -> list[str]:
    """Return what the golden test finds on this machine; see `verdict`."""
    inputs, outputs = tensors(flatbuffer)
    feed = [x.reshape(-1, *end.shape[1:]) for x, end in zip(golden.stored, inputs, strict=True)]
    places, back = natural_order(inputs), natural_order(outputs)
    given = [feed[places.index(place)] for place in range(len(feed))]
    found = run(flatbuffer, given, kernel, **KERNELS[kernel])
    raw = [found[place].reshape(-1, end.elements) for place, end in zip(back, outputs, strict=True)]
    return verdict(golden, raw, "this machine")
