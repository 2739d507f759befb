"""Runs the benchmark program on a device, and says in one line why it could not."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from larq_nas.deploy.golden import Tensor
from larq_nas.deploy.parity import KERNELS, Kernel
from larq_nas.latency.devices.errors import DeviceError, OutputsError, last_line
from larq_nas.latency.devices.output import ignored_flags, what_failed
from larq_nas.latency.devices.transport import Answer, Transport

__all__ = ["Benchmark"]

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
