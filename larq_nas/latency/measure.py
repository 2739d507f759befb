"""Measure a flatbuffer here or on a device, by its address."""

import dataclasses
from pathlib import Path
from typing import Any

from larq_nas.deploy.conversion import Conversion
from larq_nas.deploy.operations import Kernel
from larq_nas.errors import InputError
from larq_nas.latency.devices import measure_on
from larq_nas.latency.golden import golden_here, golden_of
from larq_nas.latency.interpreter import measure_here
from larq_nas.latency.latency import Latency

__all__ = ["HERE", "measure"]

HERE = "here"
"""The address of this machine."""


def measure(
    model: bytes | str | Path | Conversion,
    device: str = HERE,
    *,
    kernel: Kernel = "default",
    threads: int = 1,
    runs: int = 50,
    warmup_runs: int = 5,
    per_operation: bool = False,
    golden: bytes | str | Path | None = None,
    **options: Any,
) -> Latency:
    """Measure what one inference of a converted model takes.

    !!! example
        ```python
        conversion = larq_nas.convert(model, validation)
        print(larq_nas.latency.measure(conversion, kernel="indirect"))
        print(larq_nas.latency.measure("model.tflite", "ssh://pi@raspberrypi", threads=4))
        ```

    # Arguments
        model: a conversion, the bytes of a flatbuffer, or the path of one.
        device: `"here"`, `"ssh://[user@]host[:port]"` or `"adb://[serial]"`.
        kernel: the kernel of the binary convolutions: `"default"`, `"reference"` or
            `"indirect"`.
        threads: number of threads; here always 1.
        runs: number of inferences to time.
        warmup_runs: number of inferences before those.
        per_operation: whether to time each operation too.
        golden: path of the `golden.bin` of a package, or its bytes: then the outputs are
            compared there with those that are expected, before anything is timed.
        **options: for a device, further arguments of
            `larq_nas.latency.devices.measure_on`: `tool`, `program`, `ssh_options`, `repeats`,
            `timeout`, `xnnpack`.

    # Raises
        InputError: if an argument cannot be used.
        ConversionError: if the kernel cannot run the model, or its outputs are not as expected.
        larq_nas.latency.DeviceError: if the device does not do what it is asked.
    """
    flatbuffer = _flatbuffer(model)
    settings: dict[str, Any] = {
        "kernel": kernel,
        "runs": runs,
        "warmup_runs": warmup_runs,
        "per_operation": per_operation,
    }
    if device != HERE:
        return measure_on(device, flatbuffer, threads=threads, golden=golden, **settings, **options)
    if threads != 1:
        raise InputError(f"`threads` must be 1 on this machine, but got {threads!r}.")
    if options:
        raise InputError(
            f"`{sorted(options)[0]}` is for a device: give one, such as ssh://pi@raspberrypi."
        )
    found = [] if golden is None else golden_here(golden_of(golden, flatbuffer), flatbuffer, kernel)
    return dataclasses.replace(measure_here(flatbuffer, **settings), golden=found)


def _flatbuffer(model: bytes | str | Path | Conversion) -> bytes:
    if isinstance(model, Conversion):
        return model.flatbuffer
    if isinstance(model, bytes):
        return model
    if not isinstance(model, str | Path):
        raise InputError(
            "`model` must be a conversion, a flatbuffer or the path of one, but got "
            f"{type(model).__name__}: convert a Keras model with larq_nas.convert."
        )
    try:
        return Path(model).read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read `{model}`: {error.strerror}.") from None
