"""Measures a flatbuffer on a device."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from larq_nas.deploy.parity import KERNELS, Kernel
from larq_nas.errors import (
    InputError,
    require_not_negative,
    require_positive,
    require_whole,
    unknown_name,
)
from larq_nas.latency.devices.address import reach
from larq_nas.latency.devices.benchmark import Benchmark
from larq_nas.latency.devices.describe import describe
from larq_nas.latency.devices.errors import DeviceError
from larq_nas.latency.devices.golden import golden_on
from larq_nas.latency.devices.output import Timing, read_operations, read_timing
from larq_nas.latency.devices.program import built_program, find_program
from larq_nas.latency.devices.state import doubts, drift, read_state
from larq_nas.latency.golden import golden_of
from larq_nas.latency.latency import Latency, OperationLatency

__all__ = ["measure_on"]

_FAR_APART = 0.1


def measure_on(
    device: str,
    flatbuffer: bytes,
    *,
    kernel: Kernel = "default",
    threads: int = 1,
    runs: int = 50,
    warmup_runs: int = 5,
    repeats: int = 5,
    per_operation: bool = False,
    tool: str | Path | None = None,
    ssh_options: Sequence[str] = (),
    timeout: float = 300.0,
    xnnpack: bool = True,
    golden: bytes | str | Path | None = None,
    program: str | Path | None = None,
) -> Latency:
    """Return what an inference of `flatbuffer` takes on a device.

    The benchmark program of Larq Compute Engine, `lce_benchmark_model`, and the model are copied
    into a temporary folder on the device, run there, and removed, also after an error or Ctrl-C.

    The program prints the mean of its runs, but not their median. So it is started `repeats` times,
    and the result is the median of those means; the spread is the distance of their quartiles. One
    slow inference among fifty moves a mean, but one slow repeat does not move the result.

    !!! example
        ```python
        latency = larq_nas.latency.devices.measure_on(
            "ssh://pi@raspberrypi",
            pathlib.Path("model.tflite").read_bytes(),
            tool="lce_benchmark_model_aarch64",
        )
        print(latency.milliseconds, latency.warnings)
        ```

    # Arguments
        device: `"ssh://[user@]host[:port]"`, reached by `ssh` with a key, or `"adb://[serial]"`
            for Android.
        flatbuffer: the converted model.
        kernel: the kernel of the binary convolutions.
        threads: number of threads. On Android they are bound to the fastest cores.
        runs: number of inferences in each repeat, at least: the program goes on for a second.
        warmup_runs: number of inferences before those, at least: it does so for half a second.
        repeats: how often the program is started.
        per_operation: whether to time each operation, in one more run without XNNPACK, which would
            join float operations. These are means.
        tool: path of `lce_benchmark_model` on this machine. By default one that is on the device
            (on its `PATH`, in its home, in `/data/local/tmp`), or else the file named by the
            environment variable `LARQ_NAS_BENCHMARK_TOOL`.
        ssh_options: options of the program `ssh`, such as `["-i", "key"]`.
        timeout: seconds after which a command on the device is given up; a third of it is the
            longest that inferences go on in each repeat, 150 at most.
        xnnpack: whether XNNPACK runs the float operations.
        golden: path of the `golden.bin` of a package, or its bytes: what the device gives is
            compared with what is expected, before anything is timed.
        program: path on this machine of a build of the package's `main.cc` for the device,
            which runs the golden test there. By default the benchmark program runs it, if it
            knows `--output_filepath`.

    # Returns
        The figures. What makes them doubtful, such as a processor that was throttled, is in
        `warnings`. The engine's version is unknown, as the program does not tell it.

    # Raises
        InputError: if an argument cannot be used, or `tool` is for another architecture.
        DeviceError: if the device does not answer, refuses the login, has no room or hangs, or
            the program fails there.
        ConversionError: if the device does not give the outputs that are expected.
    """
    _check(flatbuffer, kernel, warmup_runs)
    require_whole(threads=threads, runs=runs, repeats=repeats)
    require_positive(timeout=timeout)
    if program is not None and golden is None:
        raise InputError("`program` runs a golden test: give its file as `golden`.")
    expected = None if golden is None else golden_of(golden, flatbuffer)
    way = reach(device, ssh_options, timeout)
    way.check()
    about = describe(way)
    benchmark_program = find_program(way, tool, about.machine)
    built = None if program is None else built_program(way, program, about.machine)
    cores = about.fastest_cores(threads) if way.pins_cores else ""
    with way.temporary_folder() as folder:
        extra = (len(expected.to_bytes()) if expected else 0) + (built.size if built else 0)
        way.require_room(folder, len(flatbuffer) + benchmark_program.size + extra)
        path, model = benchmark_program.install(way, folder), f"{folder}/model.tflite"
        way.push(flatbuffer, model)
        benchmark = Benchmark(way, folder, path, model, kernel, threads, runs, warmup_runs, cores)
        found = golden_on(benchmark, expected, flatbuffer, built, xnnpack) if expected else []
        before = read_state(way)
        timings = [_time(benchmark, xnnpack) for _ in range(repeats)]
        warnings = doubts(before, read_state(way))
        operations = _operations(benchmark) if per_operation else []
    averages = [timing.microseconds for timing in timings]
    median = float(np.median(averages))
    warnings += drift(averages) + _of_runs(timings, runs)
    if way.pins_cores and not cores:
        warnings.append(
            "the program was not bound to cores: they are equal, or the device does not tell"
        )
    if per_operation:
        warnings += _of_operations(operations, median)
    return Latency(
        device=f"{about}, cores {cores}" if cores else str(about),
        kernel=kernel,
        threads=threads,
        engine="unknown",
        microseconds=median,
        spread=float(np.subtract(*np.percentile(averages, [75, 25]))) / median,
        runs=sum(timing.runs for timing in timings),
        operations=operations,
        warnings=warnings,
        golden=found,
    )


def _check(flatbuffer: bytes, kernel: str, warmup_runs: int) -> None:
    if not isinstance(flatbuffer, bytes) or flatbuffer[4:8] != b"TFL3":
        raise InputError(
            "`flatbuffer` must be the bytes of a .tflite file, such as "
            f"`conversion.flatbuffer`, but got {_shortened(flatbuffer)}."
        )
    if kernel not in KERNELS:
        raise unknown_name("kernel", kernel, KERNELS)
    require_not_negative(warmup_runs=warmup_runs)
    if not isinstance(warmup_runs, int):
        raise InputError(f"`warmup_runs` must be a whole number, but got {warmup_runs!r}.")


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _time(benchmark: Benchmark, xnnpack: bool) -> Timing:
    timing = read_timing(benchmark.run(xnnpack=xnnpack))
    if timing is None:
        raise DeviceError(
            f"{benchmark.where} printed no timings: is it the program of Larq Compute Engine?"
        )
    return timing


def _operations(benchmark: Benchmark) -> list[OperationLatency]:
    return read_operations(benchmark.run(xnnpack=False, profiling=True))


def _of_runs(timings: Sequence[Timing], runs: int) -> list[str]:
    found = []
    fewest = min(timing.runs for timing in timings)
    if fewest < runs:
        found.append(f"only {fewest} of {runs} inferences fitted into the time of a repeat")
    if len(timings) == 1:
        found.append("it was measured once, so its spread is not known")
    return found


def _of_operations(operations: Sequence[OperationLatency], median: float) -> list[str]:
    if not operations:
        return ["the program printed no times of operations"]
    total = sum(operation.microseconds for operation in operations)
    if abs(total - median) <= _FAR_APART * median:
        return []
    return [
        f"the operations, timed without XNNPACK, take {total / 1000:.3g} ms together, "
        f"but an inference {median / 1000:.3g}"
    ]
