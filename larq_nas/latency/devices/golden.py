"""Golden test on a device: by the benchmark program, or by a build of main.cc."""

import shlex
from collections.abc import Sequence

import numpy as np

from larq_nas.deploy.golden import Golden, Tensor, tensors
from larq_nas.errors import ConversionError
from larq_nas.latency.devices.benchmark import Benchmark
from larq_nas.latency.devices.errors import DeviceError, last_line
from larq_nas.latency.devices.program import Program
from larq_nas.latency.golden import failure, verdict

__all__ = ["golden_on"]

_DIFFERS = 2
# Outputs that come in one answer of the device, as text of three times the size.
_MOST_BYTES = 1 << 20


def golden_on(
    benchmark: Benchmark, golden: Golden, flatbuffer: bytes, program: Program | None, xnnpack: bool
) -> list[str]:
    """Return what the golden test found on a device, a line for each output.

    # Arguments
        benchmark: the benchmark program, with model and device.
        golden: the golden test.
        flatbuffer: the model.
        program: a build of main.cc, which compares there; without one, the benchmark program
            writes the outputs, which are compared here.
        xnnpack: whether XNNPACK runs the float operations of the benchmark program.

    # Raises
        ConversionError: if the outputs are not as expected.
        DeviceError: if a program fails, or cannot write outputs.
    """
    path = f"{benchmark.folder}/golden.bin"
    data = golden.to_bytes()
    benchmark.way.push(data, path)
    if program is not None:
        return _by_program(benchmark, program, path)
    inputs, outputs = tensors(flatbuffer)
    # Of each example the inputs come first, then the expected outputs, four bytes a number.
    stride = sum(end.bytes for end in inputs) + 4 * sum(end.elements for end in outputs)
    start = len(data) - golden.examples * stride
    cuts = [
        _cut(path, benchmark.folder, inputs, start + i * stride) for i in range(golden.examples)
    ]
    wanted = sum(end.bytes for end in outputs)
    together = max(1, _MOST_BYTES // wanted)
    rows: list[bytes] = []
    for i in range(0, len(cuts), together):
        rows += benchmark.outputs(inputs, cuts[i : i + together], xnnpack=xnnpack)
    if any(len(row) != wanted for row in rows):
        raise DeviceError(
            f"{benchmark.where} wrote {len(rows[0])} bytes of outputs in place of {wanted}."
        )
    raw, at = [], 0
    for end in outputs:
        parts = [np.frombuffer(row[at : at + end.bytes], end.dtype) for row in rows]
        raw.append(np.stack(parts))
        at += end.bytes
    return verdict(golden, raw, f"`{benchmark.way.address}`")


def _cut(golden: str, folder: str, inputs: Sequence[Tensor], at: int) -> str:
    """Return the shell that writes the inputs of one example, which lie at a place of a file."""
    lines = []
    for index, end in enumerate(inputs):
        file = shlex.quote(f"{folder}/input{index}")
        lines.append(f"tail -c +{at + 1} {shlex.quote(golden)} | head -c {end.bytes} > {file}")
        at += end.bytes
    return "; ".join(lines)


def _by_program(benchmark: Benchmark, program: Program, golden: str) -> list[str]:
    way, folder = benchmark.way, benchmark.folder
    path = program.install(way, folder, "golden_program")
    words = map(shlex.quote, (path, "--golden", golden, benchmark.model))
    answer = way.run(" ".join(words))
    if answer.code == _DIFFERS:
        found = last_line(answer.err or answer.out).removeprefix("The golden test failed: ")
        raise ConversionError(failure(f"`{way.address}`", found))
    if answer.code:
        reason = last_line(answer.err) or last_line(answer.out) or "without a word"
        raise DeviceError(
            f"The build of main.cc failed on `{way.address}` with exit code {answer.code}: "
            f"{reason}."
        )
    return [line for line in answer.out.splitlines() if line.startswith("output ")]
