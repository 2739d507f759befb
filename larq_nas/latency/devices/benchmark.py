"""Run Larq Compute Engine's benchmark program and read its output."""

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from larq_nas.deploy.golden import Tensor
from larq_nas.deploy.operations import KERNELS, Kernel
from larq_nas.errors import InputError
from larq_nas.latency.devices.transport import (
    Answer,
    DeviceError,
    OutputsError,
    Transport,
    last_line,
)
from larq_nas.latency.latency import OperationLatency

__all__ = [
    "Benchmark",
    "Program",
    "Timing",
    "built_program",
    "find_program",
    "ignored_flags",
    "read_operations",
    "read_timing",
    "what_failed",
]


ENVIRONMENT = "LARQ_NAS_BENCHMARK_TOOL"
"""Environment variable that says where the user keeps the benchmark program."""

_NAME = "lce_benchmark_model"
_NAMES = [_NAME, *(f"{_NAME}_{system}" for system in ("aarch64", "aarch32", "android_arm64"))]
_FOLDERS = ['"$HOME"', "/data/local/tmp"]

# Numbers of the ELF format, in the field `e_machine`.
_MACHINES = {183: "aarch64 (64-bit ARM)", 40: "arm (32-bit ARM)", 62: "x86-64", 3: "x86"}
_RUNS = {
    # A 64-bit processor may also run 32-bit programs; running one tells.
    "aarch64": (183, 40),
    "arm64": (183, 40),
    "armv8l": (40,),
    "armv7l": (40,),
    "armv6l": (40,),
    "x86_64": (62, 3),
    "i686": (3,),
}


@dataclass(frozen=True)
class Program:
    """A benchmark program, on the device or on its way there.

    # Arguments
        there: its path on the device; empty if it must be copied.
        here: its path on this machine, if it must be copied.
    """

    there: str
    here: Path | None = None

    @property
    def size(self) -> int:
        """Number of bytes to copy."""
        return self.here.stat().st_size if self.here else 0

    def install(self, way: Transport, folder: str, name: str = _NAME) -> str:
        """Return its path on the device, copied into `folder` if it was not there."""
        if self.here is None:
            return self.there
        path = f"{folder}/{name}"
        way.push(self.here.read_bytes(), path)
        made = way.run(f"chmod 755 {shlex.quote(path)}")
        if made.code:
            raise DeviceError(f"Cannot make `{path}` on `{way.address}` executable.")
        return path


def find_program(way: Transport, tool: str | Path | None, machine: str) -> Program:
    """Return the benchmark program to use.

    # Arguments
        way: the device.
        tool: the user's copy; if `None`, one that is on the device, or else the file that
            the environment variable `LARQ_NAS_BENCHMARK_TOOL` names.
        machine: architecture of the device.

    # Raises
        InputError: if there is none, or it is one for another architecture.
        DeviceError: if one is on the device that may not be executed.
    """
    if tool is None and (there := _on_device(way)):
        return Program(there)
    path = os.environ.get(ENVIRONMENT) if tool is None else tool
    if not path:
        raise InputError(
            f"`{way.address}` has no {_NAME} on its PATH, in its home or in /data/local/tmp: "
            f"download {asset(way, machine)} of the release 0.16.0 of Larq Compute Engine and give "
            f"its path as `tool`, or in the environment variable {ENVIRONMENT}."
        )
    here = Path(path).expanduser()
    _require_architecture(here, way, machine)
    return Program("", here)


def built_program(way: Transport, path: str | Path, machine: str) -> Program:
    """Return a program that the user built of `main.cc`, or raise `InputError`."""
    here = Path(path).expanduser()
    _require_architecture(here, way, machine, "a build of main.cc")
    return Program("", here)


def asset(way: Transport, machine: str) -> str:
    """Return the name of the release's file for a device."""
    if way.pins_cores:
        return f"{_NAME}_android_arm64"
    if machine in ("aarch64", "arm64"):
        return f"{_NAME}_aarch64 ({_NAME}_aarch32 if its system is a 32-bit one)"
    return f"{_NAME}_aarch32"


def _on_device(way: Transport) -> str:
    """Return the path of a program that is on the device, or nothing."""
    places = [f"$(command -v {name})" for name in _NAMES]
    places += [f"{folder}/{name}" for folder in _FOLDERS for name in _NAMES]
    found = way.read(
        f"for path in {' '.join(places)}; do "
        '[ -f "$path" ] || continue; [ -x "$path" ] && echo "runs $path" || echo "still $path"; '
        "break; done"
    )
    runs, _, path = found.partition(" ")
    if runs == "still":
        raise DeviceError(
            f"`{path}` on `{way.address}` may not be executed: run `chmod +x {path}` there."
        )
    return path


def _require_architecture(here: Path, way: Transport, machine: str, needed: str = "") -> None:
    """Raise `InputError` if the file `here` is no program for the device."""
    needed = needed or f"{asset(way, machine)} of the release 0.16.0 of Larq Compute Engine"
    try:
        with open(here, "rb") as file:
            head = file.read(20)
    except OSError as error:
        raise InputError(f"Cannot read the benchmark program `{here}`: {error.strerror}.") from None
    # A script says nothing of architectures: it is tried as it is.
    if head.startswith(b"#!"):
        return
    if not head.startswith(b"\x7fELF") or len(head) < 20:
        raise InputError(
            f"`{here}` is not a program for Linux or Android: `{way.address}` needs {needed}."
        )
    number = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
    if number not in _RUNS.get(machine, (number,)):
        raise InputError(
            f"`{here}` is a program for {_MACHINES.get(number, f'machine {number}')}, but "
            f"`{way.address}` is {machine}: it needs {needed}."
        )


_NUMBER = r"\d+(?:\.\d*)?(?:[eE][-+]?\d+)?"
_SUMMARY = re.compile(rf"inference timings in us:.*\bInference(?: \(avg\))?: ({_NUMBER})", re.I)
_COUNT = re.compile(rf"\bcount=({_NUMBER})\b")
_AVERAGE = re.compile(rf"\b(?:avg|curr)=({_NUMBER})")
_IGNORED = re.compile(r"Unconsumed cmdline flags:\s*(.*)")
_CLOSING = re.compile(r"benchmarking failed", re.I)
_SECTION = re.compile(r"={5,}\s*(.*?)\s*={5,}")
_COLUMN = re.compile(r"\[([^\]]+)\]")
_NODE = re.compile(r"^\[(.*)\](?::\d+)?$")


@dataclass(frozen=True)
class Timing:
    """What one run of the program says.

    # Arguments
        microseconds: mean time of an inference.
        runs: number of inferences it is the mean of.
    """

    microseconds: float
    runs: int


def read_timing(output: str) -> Timing | None:
    """Return the timing in `output`, or `None` if there is none.

    The program prints `count=...` for warming up and again for what it measures, then a line
    `Inference timings in us: ..., Inference (avg): ...`; older ones `Average inference timings`.
    With profiling, `Timings (microseconds): count=...` comes as well, for loading the model too.
    """
    lines = output.splitlines()
    summary = next((match for line in lines if (match := _SUMMARY.search(line))), None)
    counted = [line for line in lines if _AVERAGE.search(line) and _COUNT.search(line)]
    plain = [line for line in counted if "Timings (microseconds)" not in line]
    # Without the closing summary, a `count=` may be that of warming up.
    measured = (plain or counted) if summary else [line for line in counted if line not in plain]
    if not measured:
        return None
    runs = int(_first_number(_COUNT, measured[-1]))
    average = float(summary[1]) if summary else _average(measured[-1])
    return Timing(average, runs) if runs > 0 and average > 0 else None


def _average(line: str) -> float:
    # Where all times are equal, `curr` is the only one that is printed.
    average = re.search(rf"\bavg=({_NUMBER})", line)
    return float(average[1]) if average else _first_number(_AVERAGE, line)


def _first_number(pattern: re.Pattern[str], line: str) -> float:
    match = pattern.search(line)
    return float(match[1]) if match else 0.0


def read_operations(output: str) -> list[OperationLatency]:
    """Return the operations of the last table "Run Order" in `output`, in their order.

    The table before is that of loading the model. Columns are found by their titles, as
    versions of the program differ in which there are.
    """
    operations: list[OperationLatency] = []
    for title, lines in _sections(output):
        if title.lower() == "run order":
            operations = list(_rows(lines))
    return operations


def _sections(output: str) -> Iterator[tuple[str, list[str]]]:
    title = ""
    lines: list[str] = []
    for line in output.splitlines():
        if match := _SECTION.search(line):
            yield title, lines
            title, lines = match[1], []
        else:
            lines.append(line)
    yield title, lines


def _rows(lines: Sequence[str]) -> Iterator[OperationLatency]:
    columns: list[str] = []
    for line in lines:
        titles = [title.lower() for title in _COLUMN.findall(line)]
        if "avg ms" in titles and titles[0] == "node type":
            columns = titles
        elif columns and (row := _fields(line, columns)):
            kind, name = row["node type"], row.get("name", "")
            yield OperationLatency(kind, _tensor(name), 1000 * float(row["avg ms"]))


def _fields(line: str, columns: Sequence[str]) -> dict[str, str] | None:
    """Return the fields of a row by column, or `None` if `line` is something else."""
    named = columns[-1] == "name"
    numbers = len(columns) - 1 - named
    # What an operation is called may hold spaces; the numbers in the middle do not.
    row = re.match(
        rf"\s*(\S.*?)\s+((?:-?{_NUMBER}%?\s+){{{numbers}}})(.*)$" if named
        else rf"\s*(\S.*?)\s+((?:-?{_NUMBER}%?\s*){{{numbers}}})()$",
        line,
    )  # fmt: skip
    if row is None:
        return None
    return dict(zip(columns, [row[1], *row[2].split(), row[3].strip()], strict=False))


def _tensor(name: str) -> str:
    """Return the first output tensor in a name such as `[a, b]:3`."""
    match = _NODE.match(name)
    return match[1].split(", ")[0] if match else name


def what_failed(output: str) -> str:
    """Return the line of `output` that says why the program failed; empty if there is none.

    Errors that follow from the first come after it, and last that benchmarking failed.
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    lines = [line for line in lines if not _CLOSING.search(line)]
    errors = [line for line in lines if re.match(r"(ERROR|FATAL)\b", line, re.I)]
    chosen = errors[0] if errors else (lines[-1] if lines else "")
    return re.sub(r"^(ERROR|FATAL):\s*", "", chosen).rstrip(".")


def ignored_flags(output: str) -> str:
    """Return the flags that the program says it does not know."""
    return next((match[1] for line in output.splitlines() if (match := _IGNORED.search(line))), "")


_LONGEST = 150.0
_OUTPUTS = "larq_nas: outputs"
_DIGITS = re.compile(r"(\s*[0-9a-f]{2})+\s*")
_CANNOT_RUN, _NOT_FOUND, _SIGNAL = 126, 127, 128
# Numbers of Linux: those of this machine's system may differ.
_SIGNALS = {
    4: "SIGILL: it was built for another processor",
    6: "SIGABRT: it gave up",
    7: "SIGBUS",
    9: "SIGKILL: most likely its memory ran out",
    11: "SIGSEGV: it crashed",
    15: "SIGTERM",
}


@dataclass(frozen=True)
class Benchmark:
    """A benchmark program and a model on a device, and how they are run.

    # Arguments
        way: the device.
        folder: the temporary folder, for the number of the process that runs.
        program: path of the program on the device.
        model: path of the model on the device.
        kernel: the kernel of the binary convolutions.
        threads: number of threads.
        runs: number of inferences that are timed.
        warmup_runs: number of inferences before those.
        cores: mask of the cores to run on; empty for all.
    """

    way: Transport
    folder: str
    program: str
    model: str
    kernel: Kernel
    threads: int
    runs: int
    warmup_runs: int
    cores: str = ""

    @property
    def where(self) -> str:
        """The program and the device, for errors; the temporary folder is gone by then."""
        return f"`{self.program.removeprefix(f'{self.folder}/')}` on `{self.way.address}`"

    def run(self, *, xnnpack: bool, profiling: bool = False) -> str:
        """Return what the program prints, errors last.

        # Arguments
            xnnpack: whether XNNPACK runs the float operations.
            profiling: whether to time each operation.

        # Raises
            DeviceError: if it fails, or the connection to the device does.
        """
        flags = self._flags(xnnpack) + ["--enable_op_profiling=true"] * profiling
        answer = self.way.run(f"{self._call(flags)}; exit $code")
        if answer.code:
            raise DeviceError(self._failure(answer))
        output = f"{answer.out}\n{answer.err}"
        self._require_known(output)
        return output

    def outputs(
        self, inputs: Sequence[Tensor], cuts: Sequence[str], *, xnnpack: bool
    ) -> list[bytes]:
        """Return the bytes of all outputs, one after the other, for each example.

        # Arguments
            inputs: the inputs of the model.
            cuts: for each example the line of shell that writes its inputs into files `input0`,
                `input1` and so on of the temporary folder.
            xnnpack: whether XNNPACK runs the float operations.

        # Raises
            OutputsError: if the program has no flag that writes them.
            DeviceError: if it fails, or the connection to the device does.
        """
        path, log = (shlex.quote(f"{self.folder}/{name}") for name in ("outputs", "log"))
        names = [f"input{index}" for index in range(len(inputs))]
        shapes = ":".join(",".join(map(str, tensor.shape)) for tensor in inputs)
        files = ",".join(f"{name}:{self.folder}/{name}" for name in names)
        flags = [
            # It gives what the last of its runs gave; one is enough.
            *self._flags(xnnpack, num_runs=1, warmup_runs=1, min_secs=0, warmup_min_secs=0),
            f"--input_layer={','.join(names)}",
            f"--input_layer_shape={shapes}",
            f"--input_layer_value_files={shlex.quote(files)}",
            f"--output_filepath={path}",
        ]
        # Bytes do not pass through every shell, but their hexadecimal digits do.
        run = (
            f"rm -f {path}; {self._call(flags, log)}; [ $code = 0 ] || {{ cat {log} >&2; "
            f"exit $code; }}; echo {_OUTPUTS}; od -An -v -tx1 {path} 2> /dev/null"
        )
        answer = self.way.run(f"{'; '.join(f'{cut}; {run}' for cut in cuts)}; cat {log}")
        if answer.code:
            raise DeviceError(self._failure(answer))
        self._require_known(answer.out)
        found = []
        for part in answer.out.split(f"{_OUTPUTS}\n")[1:]:
            digits = "".join(line for line in part.splitlines() if _DIGITS.fullmatch(line))
            found.append(bytes.fromhex(digits))
        if len(found) != len(cuts) or not all(found):
            raise OutputsError(
                f"{self.where} wrote no outputs: build main.cc of the package for the device and "
                "give its path as `program`."
            )
        return found

    def _call(self, flags: Sequence[str], log: str = "") -> str:
        """Return the shell that runs the program and keeps its exit code in `code`."""
        command = " ".join([*self._before(), shlex.quote(self.program), *flags])
        command += f" > {log} 2>&1" if log else ""
        process = shlex.quote(f"{self.folder}/pid")
        # Its number is kept, so that it can be stopped when the connection is not there any more.
        return f"{command} & echo $! > {process}; wait $!; code=$?; rm -f {process}"

    def _require_known(self, output: str) -> None:
        """Raise `DeviceError` if the program says that it does not know a flag."""
        flags = ignored_flags(output)
        if "--output_filepath" in flags or "--input_layer_value_files" in flags:
            raise OutputsError(
                f"{self.where} cannot write outputs, as it does not know {flags.split('=')[0]}: "
                "build main.cc of the package for the device and give its path as `program`."
            )
        if flags:
            raise DeviceError(
                f"{self.where} does not know {flags}: use the one of the "
                "release 0.16.0 of Larq Compute Engine."
            )

    def _before(self) -> list[str]:
        return ["taskset", self.cores] if self.cores else []

    def _flags(self, xnnpack: bool, **others: object) -> list[str]:
        # The program warms up, then measures, each no longer than this.
        longest = min(_LONGEST, self.way.timeout / 3)
        flags: dict[str, object] = {
            "graph": shlex.quote(self.model),
            "num_threads": self.threads,
            "num_runs": self.runs,
            "warmup_runs": self.warmup_runs,
            "max_secs": f"{longest:g}",
            "use_xnnpack": str(xnnpack).lower(),
            **dict.fromkeys(KERNELS[self.kernel], "true"),
            **others,
        }
        return [f"--{name}={value}" for name, value in flags.items()]

    def _failure(self, answer: Answer) -> str:
        program = self.where
        if answer.code in (_CANNOT_RUN, _NOT_FOUND):
            detail = last_line(answer.err) or f"exit code {answer.code}"
            return (
                f"{program} cannot be started ({detail}): is it for the device's system, 32-bit "
                "or 64-bit, and may programs run from that folder?"
            )
        if answer.code > _SIGNAL:
            number = answer.code - _SIGNAL
            return f"{program} was killed by signal {number} ({_SIGNALS.get(number, 'unknown')})."
        reason = what_failed(answer.err) or what_failed(answer.out) or "without a word"
        if "unresolved custom op: Lce" in reason:
            reason += "; it is not the program of Larq Compute Engine"
        return f"{program} failed with exit code {answer.code}: {reason}."
