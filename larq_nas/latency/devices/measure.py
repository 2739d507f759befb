"""Measure a flatbuffer on a device, and describe the device."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from larq_nas.deploy.golden import Golden, Tensor, tensors
from larq_nas.deploy.operations import KERNELS, Kernel
from larq_nas.errors import (
    ConversionError,
    InputError,
    require_count,
    require_positive,
    require_whole,
    unknown_name,
)
from larq_nas.latency.devices.benchmark import (
    Benchmark,
    Program,
    Timing,
    find_program,
    program_here,
    read_operations,
    read_timing,
)
from larq_nas.latency.devices.transport import DeviceError, Transport, last_line, reach
from larq_nas.latency.latency import (
    Latency,
    OperationLatency,
    failure,
    golden_of,
    verdict,
)

_SCRIPT = "; ".join(
    [
        "echo machine=$(uname -m)",
        "echo host=$(uname -n)",
        "[ -r /proc/device-tree/model ] && echo model=$(tr -d '\\000' < /proc/device-tree/model)",
        "echo processor=$(LC_ALL=C lscpu | sed -n 's/^Model name: *//p' | head -n 1)",
        "echo information=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)",
        "echo maker=$(getprop ro.product.manufacturer)",
        "echo phone=$(getprop ro.product.model)",
        "echo chip=$(getprop ro.soc.model)",
        "echo board=$(getprop ro.board.platform)",
        "command -v taskset > /dev/null && echo taskset=yes",
        "for core in /sys/devices/system/cpu/cpu[0-9]*; do "
        "[ -r $core/cpufreq/cpuinfo_max_freq ] && "
        "echo core${core##*cpu}=$(cat $core/cpufreq/cpuinfo_max_freq); done",
    ]
)


@dataclass(frozen=True)
class Description:
    """What a device says of itself: its architecture, its model or else name in the network, what
    its processor is called, if it says so, and the highest frequency of each core that tells it.
    """

    machine: str
    name: str
    processor: str
    frequencies: Mapping[int, int]
    has_taskset: bool

    def fastest_cores(self, threads: int) -> str:
        """Return the mask of the fastest cores, at least `threads` of them, in hexadecimal.

        Empty if all cores are equal, or nothing is known of them.
        """
        if not self.has_taskset or len(set(self.frequencies.values())) < 2:
            return ""
        ranked = sorted(self.frequencies.values(), reverse=True)
        slowest = ranked[min(threads, len(ranked)) - 1]
        cores = [core for core, frequency in self.frequencies.items() if frequency >= slowest]
        return f"{sum(1 << core for core in cores):x}"

    def __str__(self) -> str:
        parts = [part for part in (self.processor, self.machine) if part]
        return f"{self.name} ({', '.join(parts)})"


def describe(way: Transport) -> Description:
    """Return what the device says of itself."""
    facts: dict[str, str] = {}
    for line in way.read(_SCRIPT).splitlines():
        key, _, value = line.partition("=")
        if value.strip():
            facts[key.strip()] = value.strip()
    phone = " ".join(facts[key] for key in ("maker", "phone") if key in facts)
    processors = (facts.get(key) for key in ("processor", "information", "chip", "board"))
    return Description(
        machine=facts.get("machine", ""),
        name=facts.get("model") or phone or facts.get("host", way.address),
        processor=next((name for name in processors if name), ""),
        frequencies={
            int(key[4:]): int(value)
            for key, value in facts.items()
            if key.startswith("core") and key[4:].isdigit() and value.isdigit()
        },
        has_taskset="taskset" in facts,
    )


_STATE_SCRIPT = "; ".join(
    [
        "vcgencmd get_throttled",
        "for zone in /sys/class/thermal/thermal_zone*; do "
        "[ -r $zone/temp ] && echo temperature=$(cat $zone/temp); done",
        "for core in /sys/devices/system/cpu/cpu[0-9]*/cpufreq; do "
        "[ -r $core/scaling_governor ] && echo core=$(cat $core/scaling_cur_freq "
        "$core/scaling_max_freq $core/cpuinfo_max_freq $core/scaling_governor); done",
    ]
)

# The bits of `vcgencmd get_throttled`; the same, 16 higher, say that it has been so since booting.
_BITS = {
    0: "its voltage is too low",
    1: "its frequency is capped",
    2: "it is throttled",
    3: "it is at its soft temperature limit",
}
_OCCURRED = 16
_HOT = 80.0
_NONSENSE = 150.0
_SLOWER = 0.9
_DRIFT = 1.1


@dataclass(frozen=True)
class Core:
    """Frequencies of a core in kHz: now, the highest allowed, the highest it has; its governor."""

    now: int
    allowed: int
    highest: int
    governor: str


@dataclass(frozen=True)
class State:
    """What a device says of its processor at one moment; what it does not say is empty.

    `throttled` has the bits of a Raspberry Pi's `vcgencmd get_throttled`; temperatures are in
    degrees Celsius.
    """

    throttled: int = 0
    temperatures: Sequence[float] = ()
    cores: Sequence[Core] = ()


def read_state(way: Transport) -> State:
    """Return the state of the device's processor."""
    throttled, temperatures, cores = 0, [], []
    for line in way.read(_STATE_SCRIPT).splitlines():
        key, _, value = line.partition("=")
        try:
            if key == "throttled":
                throttled = int(value, 16)
            elif key == "temperature":
                # Some tell thousandths of a degree.
                degrees = float(value)
                temperatures.append(degrees / 1000 if abs(degrees) >= 1000 else degrees)
            elif key == "core":
                now, allowed, highest, governor = value.split()
                cores.append(Core(int(now), int(allowed), int(highest), governor))
        except ValueError:
            # A zone without a sensor, a core that is switched off: nothing is known of it.
            continue
    return State(throttled, [t for t in temperatures if t < _NONSENSE], cores)


def doubts(before: State, after: State) -> list[str]:
    """Return what in the states before and after a measurement makes it doubtful."""
    throttled = before.throttled | after.throttled
    found = [
        f"the device says of its processor that {text}"
        for bit, text in _BITS.items()
        if throttled >> bit & 1
    ]
    for bit, text in _BITS.items():
        past, occurred = text.replace(" is ", " was "), 1 << (bit + _OCCURRED)
        if throttled >> bit & 1 or not after.throttled & occurred:
            continue
        if before.throttled & occurred:
            found.append(
                f"the device says that since it was started {past}; whether again while "
                "measuring, it cannot tell"
            )
        else:
            found.append(f"the device says that while measuring {past}")
    hottest = max(after.temperatures, default=0.0)
    if hottest >= _HOT:
        found.append(f"a part of the device was at {hottest:.0f} °C afterwards")
    return [*found, *_of_cores(after.cores)]


def _of_cores(cores: Sequence[Core]) -> Iterator[str]:
    capped = [core for core in cores if core.allowed < _SLOWER * core.highest]
    if capped:
        yield (
            f"{len(capped)} of {len(cores)} cores may run at {capped[0].allowed / 1000:.0f} MHz "
            f"at most, though they can at {capped[0].highest / 1000:.0f}"
        )
    # Any other governor lowers the frequency as soon as nothing runs, which is now.
    steady = [core for core in cores if core.governor == "performance" and core not in capped]
    slow = [core for core in steady if core.now < _SLOWER * core.highest]
    if slow:
        yield (
            f"{len(slow)} of {len(cores)} cores ran at {slow[0].now / 1000:.0f} MHz "
            f"in place of {slow[0].highest / 1000:.0f}"
        )
    others = sorted({core.governor for core in cores} - {"performance"})
    if others:
        yield (
            f"the frequency is governed by {', '.join(others)} in place of performance, so it "
            "may have changed while measuring"
        )


def drift(averages: Sequence[float]) -> list[str]:
    """Return that the later of `averages` are slower than the first, if they are."""
    later = sorted(averages[1:]) or averages
    slower = later[len(later) // 2] / averages[0]
    text = f"later repeats took {100 * (slower - 1):.0f} % longer than the first"
    return [text] if slower > _DRIFT else []


_DIFFERS = 2
# Outputs that come in one answer of the device, as text of three times the size.
_MOST_BYTES = 1 << 20


def golden_on(
    benchmark: Benchmark, golden: Golden, flatbuffer: bytes, program: Program | None, xnnpack: bool
) -> list[str]:
    """Return what the golden test found on a device, a line for each output.

    A build of main.cc compares there. Without one, the benchmark program writes the outputs, which
    are compared here; `xnnpack` is whether XNNPACK runs its float operations.
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
    parts = [(str(index), end.dtype, (end.elements,)) for index, end in enumerate(outputs)]
    found = np.frombuffer(b"".join(rows), parts)
    return verdict(golden, [found[name] for name, *_ in parts], f"`{benchmark.way.address}`")


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
    built = None
    if program is not None:
        built = program_here(program, way, about.machine, "a build of main.cc")
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
        operations = []
        if per_operation:
            operations = read_operations(benchmark.run(xnnpack=False, profiling=True))
    averages = [timing.microseconds for timing in timings]
    median = float(np.median(averages))
    warnings += [*drift(averages), *_of_runs(timings, runs)]
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
        text = repr(flatbuffer)
        raise InputError(
            "`flatbuffer` must be the bytes of a .tflite file, such as `conversion.flatbuffer`, "
            f"but got {text if len(text) <= 60 else f'{text[:60]}...'}."
        )
    if kernel not in KERNELS:
        raise unknown_name("kernel", kernel, KERNELS)
    require_count(warmup_runs=warmup_runs)


def _time(benchmark: Benchmark, xnnpack: bool) -> Timing:
    timing = read_timing(benchmark.run(xnnpack=xnnpack))
    if timing is None:
        raise DeviceError(
            f"{benchmark.where} printed no timings: is it the program of Larq Compute Engine?"
        )
    return timing


def _of_runs(timings: Sequence[Timing], runs: int) -> Iterator[str]:
    fewest = min(timing.runs for timing in timings)
    if fewest < runs:
        yield f"only {fewest} of {runs} inferences fitted into the time of a repeat"
    if len(timings) == 1:
        yield "it was measured once, so its spread is not known"


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
