"""The latency of a flatbuffer, and its golden test where it is measured."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from larq_nas.deploy.golden import Golden, read_golden, tensors
from larq_nas.deploy.operations import Kernel
from larq_nas.errors import ConversionError, InputError
from larq_nas.report.notebook import preformatted


@dataclass(frozen=True)
class OperationLatency:
    """What one operation of a flatbuffer takes.

    # Arguments
        kind: the operation, such as `"LceBconv2d"`.
        name: name of its first output tensor, or what the device calls it.
        microseconds: median time of one call.
    """

    kind: str
    name: str
    microseconds: float


@dataclass(frozen=True)
class Latency:
    """What one inference takes.

    # Arguments
        device: what it ran on, with the processor, such as `"this machine (x86-64)"`.
        kernel: the kernel of the binary convolutions.
        threads: number of threads.
        engine: version of Larq Compute Engine, `"unknown"` if the device does not say.
        microseconds: median time of one inference.
        spread: distance between the quartiles as a share of the median.
        runs: number of inferences that were timed.
        operations: what each operation takes, in the order they run; empty if not asked for.
        warnings: what makes the figures doubtful, such as a processor that slowed down.
        golden: what the golden test found, a line for each output; empty if there was none.
    """

    device: str
    kernel: Kernel
    threads: int
    engine: str
    microseconds: float
    spread: float
    runs: int
    operations: Sequence[OperationLatency] = ()
    warnings: Sequence[str] = ()
    golden: Sequence[str] = ()

    @property
    def milliseconds(self) -> float:
        """Median time of one inference, in ms."""
        return self.microseconds / 1000

    def summary(self) -> dict[str, Any]:
        """Return the figures as a dictionary for JSON."""
        return dataclasses.asdict(self)

    def _repr_html_(self) -> str:
        return preformatted(self)

    def __str__(self) -> str:
        lines = [
            f"{self.milliseconds:.3f} ms (middle half of {self.runs} runs within "
            f"{self.spread:.1%}) on {self.device}: {self.kernel} kernel, threads: {self.threads}, "
            f"Larq Compute Engine {self.engine}"
        ]
        lines += [f"{o.microseconds:12.1f} us  {o.kind}  {o.name}" for o in self.operations]
        lines += [f"golden test: {line}" for line in self.golden]
        return "\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings)])


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
    """Return what the golden test found, a line for each output, or raise `ConversionError`.

    `raw` is what each output holds, the first axis the examples; `where` names the device.
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
