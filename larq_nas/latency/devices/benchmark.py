"""Runs the benchmark program on a device, and says in one line why it could not."""

import shlex
from dataclasses import dataclass

from larq_nas.deploy.parity import KERNELS, Kernel
from larq_nas.latency.devices.errors import DeviceError, last_line
from larq_nas.latency.devices.output import ignored_flags, what_failed
from larq_nas.latency.devices.transport import Answer, Transport

__all__ = ["Benchmark"]

_LONGEST = 150.0
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
        command = " ".join([*self._before(), shlex.quote(self.program), *self._flags(xnnpack)])
        if profiling:
            command += " --enable_op_profiling=true"
        process = shlex.quote(f"{self.folder}/pid")
        # Its number is kept, so that it can be stopped when the connection is not there any more.
        answer = self.way.run(
            f"{command} & echo $! > {process}; wait $!; code=$?; rm -f {process}; exit $code"
        )
        if answer.code:
            raise DeviceError(self._failure(answer))
        output = f"{answer.out}\n{answer.err}"
        if flags := ignored_flags(output):
            raise DeviceError(
                f"{self.where} does not know {flags}: use the one of the "
                "release 0.16.0 of Larq Compute Engine."
            )
        return output

    def _before(self) -> list[str]:
        return ["taskset", self.cores] if self.cores else []

    def _flags(self, xnnpack: bool) -> list[str]:
        # The program warms up, then measures, each no longer than this.
        longest = min(_LONGEST, self.way.timeout / 3)
        flags = {
            "graph": shlex.quote(self.model),
            "num_threads": self.threads,
            "num_runs": self.runs,
            "warmup_runs": self.warmup_runs,
            "max_secs": f"{longest:g}",
            "use_xnnpack": str(xnnpack).lower(),
            **dict.fromkeys(KERNELS[self.kernel], "true"),
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
