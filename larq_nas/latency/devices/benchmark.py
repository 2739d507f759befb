"""Run Larq Compute Engine's benchmark program and read its output."""

import os
import re
import shlex
from collections.abc import Sequence
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
    """A benchmark program on the device, or a file of this machine to copy there."""

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

    It is `tool`; if that is `None`, one that is on the device, or else the file that the
    environment variable names.
    """
    if tool is None and (there := _on_device(way)):
        return Program(there)
    path = os.environ.get(ENVIRONMENT) if tool is None else tool
    if not path:
        raise InputError(
            f"`{way.address}` has no {_NAME} on its PATH, in its home or in /data/local/tmp: "
            f"download {_asset(way, machine)} and give its path as `tool`, or in the environment "
            f"variable {ENVIRONMENT}."
        )
    return program_here(path, way, machine, _asset(way, machine))


def program_here(path: str | Path, way: Transport, machine: str, needed: str) -> Program:
    """Return the program in a file, or raise `InputError` if it is not `needed` of the device."""
    here = Path(path).expanduser()
    try:
        with open(here, "rb") as file:
            head = file.read(20)
    except OSError as error:
        raise InputError(f"Cannot read the benchmark program `{here}`: {error.strerror}.") from None
    # A script says nothing of architectures: it is tried as it is.
    if head.startswith(b"#!"):
        return Program("", here)
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
    return Program("", here)


def _asset(way: Transport, machine: str) -> str:
    """Return what file of which release a device needs."""
    name = f"{_NAME}_aarch32"
    if way.pins_cores:
        name = f"{_NAME}_android_arm64"
    elif machine in ("aarch64", "arm64"):
        name = f"{_NAME}_aarch64 ({_NAME}_aarch32 if its system is a 32-bit one)"
    return f"{name} of the release 0.16.0 of Larq Compute Engine"


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


_NUMBER = r"\d+(?:\.\d*)?(?:[eE][-+]?\d+)?"
_SUMMARY = re.compile(rf"inference timings in us:.*\bInference(?: \(avg\))?: ({_NUMBER})", re.I)
_COUNT = re.compile(rf"\bcount=({_NUMBER})\b")
# Where all times are equal, `curr` is the only one that is printed.
_AVERAGES = [re.compile(rf"\b{name}=({_NUMBER})") for name in ("avg", "curr")]
_IGNORED = re.compile(r"Unconsumed cmdline flags:\s*(.*)")
_CLOSING = re.compile(r"benchmarking failed", re.I)
_SECTION = re.compile(r"={5,}[ \t]*(.*?)[ \t]*={5,}")
_COLUMN = re.compile(r"\[([^\]]+)\]")
_NODE = re.compile(r"^\[(.*)\](?::\d+)?$")


@dataclass(frozen=True)
class Timing:
    """Mean time of an inference in one run of the program, and of how many inferences."""

    microseconds: float
    runs: int


def read_timing(output: str) -> Timing | None:
    """Return the timing in `output`, or `None` if there is none.

    The program prints `count=...` for warming up and again for what it measures, then a line
    `Inference timings in us: ..., Inference (avg): ...`; older ones `Average inference timings`.
    With profiling, `Timings (microseconds): count=...` comes as well, for loading the model too.
    """
    summary: re.Match[str] | None = None
    plain: list[tuple[float, int]] = []
    profiled: list[tuple[float, int]] = []
    for line in output.splitlines():
        summary = summary or _SUMMARY.search(line)
        count = _COUNT.search(line)
        average = next((found for one in _AVERAGES if (found := one.search(line))), None)
        if count and average:
            kind = profiled if "Timings (microseconds)" in line else plain
            kind.append((float(average[1]), int(float(count[1]))))
    # Without the closing summary, a `count=` may be that of warming up.
    measured = (plain or profiled) if summary else profiled
    if not measured:
        return None
    mean, runs = measured[-1]
    if summary:
        mean = float(summary[1])
    return Timing(mean, runs) if runs > 0 and mean > 0 else None


def read_operations(output: str) -> list[OperationLatency]:
    """Return the operations of the last table "Run Order" in `output`, in their order.

    The table before is that of loading the model. Columns are found by their titles, as
    versions of the program differ in which there are.
    """
    # Titles come between the texts of their sections.
    parts = _SECTION.split(output)
    sections = zip(parts[1::2], parts[2::2], strict=True)
    tables = [text for title, text in sections if title.lower() == "run order"]
    columns: list[str] = []
    operations = []
    for line in tables[-1].splitlines() if tables else ():
        titles = [title.lower() for title in _COLUMN.findall(line)]
        if "avg ms" in titles and titles[0] == "node type":
            columns = titles
        elif columns and (row := _fields(line, columns)):
            # Of a name such as `[a, b]:3`, the first output tensor.
            name = _NODE.sub(lambda match: match[1].split(", ")[0], row.get("name", ""))
            time = 1000 * float(row["avg ms"])
            operations.append(OperationLatency(row["node type"], name, time))
    return operations


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

    The folder is a temporary one there, and `cores` the mask of those to run on, empty for all.
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
        """Return what the program prints, errors last, or raise `DeviceError` if it fails."""
        flags = self._flags(xnnpack) + ["--enable_op_profiling=true"] * profiling
        answer = self._answer(f"{self._call(flags)}; exit $code")
        return f"{answer.out}\n{answer.err}"

    def outputs(
        self, inputs: Sequence[Tensor], cuts: Sequence[str], *, xnnpack: bool
    ) -> list[bytes]:
        """Return the bytes of all outputs, one after the other, for each example.

        `cuts` are the lines of shell that write each example's inputs into files `input0`, `input1`
        and so on of the temporary folder.

        # Raises
            OutputsError: if the program has no flag that writes them.
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
        answer = self._answer(f"{'; '.join(f'{cut}; {run}' for cut in cuts)}; cat {log}")
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
        cores = ["taskset", self.cores] if self.cores else []
        command = " ".join([*cores, shlex.quote(self.program), *flags])
        command += f" > {log} 2>&1" if log else ""
        process = shlex.quote(f"{self.folder}/pid")
        # Its number is kept, so that it can be stopped when the connection is not there any more.
        return f"{command} & echo $! > {process}; wait $!; code=$?; rm -f {process}"

    def _answer(self, script: str) -> Answer:
        """Run a script that calls the program, which must end well and know its flags."""
        answer = self.way.run(script)
        if answer.code:
            raise DeviceError(self._failure(answer))
        flags = ignored_flags(f"{answer.out}\n{answer.err}")
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
        return answer

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
        if answer.code in (_CANNOT_RUN, _NOT_FOUND):
            detail = last_line(answer.err) or f"exit code {answer.code}"
            return (
                f"{self.where} cannot be started ({detail}): is it for the device's system, 32-bit "
                "or 64-bit, and may programs run from that folder?"
            )
        if answer.code > _SIGNAL:
            number = answer.code - _SIGNAL
            name = _SIGNALS.get(number, "unknown")
            return f"{self.where} was killed by signal {number} ({name})."
        reason = what_failed(answer.err) or what_failed(answer.out) or "without a word"
        if "unresolved custom op: Lce" in reason:
            reason += "; it is not the program of Larq Compute Engine"
        return f"{self.where} failed with exit code {answer.code}: {reason}."
