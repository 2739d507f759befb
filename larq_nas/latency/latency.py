"""The latency of a flatbuffer, whole and by operation."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from larq_nas.deploy.operations import Kernel

__all__ = ["Latency", "OperationLatency"]


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

    def __str__(self) -> str:
        lines = [
            f"{self.milliseconds:.3f} ms (middle half of {self.runs} runs within "
            f"{self.spread:.1%}) on {self.device}: {self.kernel} kernel, threads: {self.threads}, "
            f"Larq Compute Engine {self.engine}"
        ]
        lines += [f"{o.microseconds:12.1f} us  {o.kind}  {o.name}" for o in self.operations]
        lines += [f"golden test: {line}" for line in self.golden]
        return "\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings)])
