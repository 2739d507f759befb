"""One way to run commands on a device, whatever it is connected by."""

import contextlib
import shlex
import subprocess
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from larq_nas.errors import callers_level
from larq_nas.latency.devices.errors import DeviceError, last_line

__all__ = ["Answer", "Transport"]

_BEGIN = "larq_nas: begin"
_END = "larq_nas: end"
_MEGABYTE = 1 << 20
_ROOM_TO_SPARE = _MEGABYTE
_SECONDS_TO_ANSWER = 30.0
_SECONDS_TO_CLEAN = 20.0


@dataclass(frozen=True)
class Answer:
    """What a command on a device gave.

    # Arguments
        code: its exit code; above 128, the signal that ended it plus 128.
        out: what it printed.
        err: what it printed as errors.
    """

    code: int
    out: str
    err: str


class Transport(ABC):
    """A device on which commands are run and files are put.

    # Arguments
        address: how the user calls the device, for errors.
        timeout: seconds after which a command is given up.
    """

    folder: ClassVar[str]
    """Where a temporary folder is made, in the words of the device's shell."""

    pins_cores: ClassVar[bool] = False
    """Whether programs are bound to the fastest cores, since the cores differ."""

    def __init__(self, address: str, timeout: float) -> None:
        self.address = address
        self.timeout = timeout

    @abstractmethod
    def check(self) -> None:
        """Raise `DeviceError` or `InputError` if the device cannot be used."""

    @abstractmethod
    def push(self, data: bytes, path: str) -> None:
        """Write `data` to `path` on the device, or raise `DeviceError`."""

    @abstractmethod
    def _command(self, script: str) -> list[str]:
        """Return the local command that has the device's shell run `script`."""

    @abstractmethod
    def _lost(self, message: str) -> DeviceError:
        """Return the error for a connection that ended with `message`."""

    def run(self, script: str, *, data: bytes = b"", timeout: float | None = None) -> Answer:
        """Run a line of shell on the device.

        # Arguments
            script: what to run; `exit` ends it early.
            data: what it reads.
            timeout: seconds to wait, if not those of the device.

        # Raises
            DeviceError: if the connection is lost or the time is over. That `script` fails is
                not an error.
        """
        # Old versions of adb do not pass exit codes on, ssh's own failures look like those of
        # a command, and a login script may print before and after: so the script frames itself.
        framed = f"echo; echo {_BEGIN}; ( {script} ); code=$?; echo; echo {_END} $code"
        done = self._execute(self._command(f"sh -c {shlex.quote(framed)}"), data, timeout)
        out = done.out.replace("\r\n", "\n")
        _, begun, rest = out.partition(f"\n{_BEGIN}\n")
        body, ended, code = rest.rpartition(f"\n{_END} ")
        if not begun or not ended:
            raise self._lost(last_line(done.err) or last_line(done.out))
        return Answer(int(code.split()[0]), body, done.err.replace("\r\n", "\n"))

    def read(self, script: str) -> str:
        """Return what a line of shell prints, without the space around it."""
        return self.run(script).out.strip()

    @contextlib.contextmanager
    def temporary_folder(self) -> Iterator[str]:
        """Yield the path of a new folder; it and what runs from it are removed in any case."""
        made = self.run(f"mktemp -d {self.folder}/larq_nas-XXXXXX")
        path = made.out.strip()
        if made.code or not path.startswith("/"):
            raise DeviceError(
                f"Cannot make a folder on `{self.address}`: {last_line(made.err) or path!r}."
            )
        try:
            yield path
        except DeviceError as error:
            if self._clean(path):
                raise
            detail = str(error).rstrip(".")
            raise DeviceError(f"{detail}; `{path}` may be left on the device.") from error
        except BaseException:
            self._clean(path)
            raise
        if not self._clean(path):
            warnings.warn(f"`{path}` may be left on `{self.address}`.", stacklevel=callers_level())

    def _greet(self) -> None:
        """Raise `DeviceError` if the device runs nothing, or takes long to."""
        self.run("true", timeout=min(self.timeout, _SECONDS_TO_ANSWER))

    def require_room(self, path: str, size: int) -> None:
        """Raise `DeviceError` if `size` bytes do not fit into the folder `path`."""
        fields = last_line(self.read(f"df -Pk {shlex.quote(path)}")).split()
        if len(fields) < 4 or not fields[3].isdigit():
            # What does not fit is seen when its size is checked.
            return
        free = int(fields[3]) * 1024
        if free < size + _ROOM_TO_SPARE:
            raise DeviceError(
                f"No room on `{self.address}`: the benchmark program and the model need "
                f"{size / _MEGABYTE:.1f} MB, but `{path}` has {free / _MEGABYTE:.1f} MB left."
            )

    def _check_size(self, path: str, size: int, got: str) -> None:
        """Raise `DeviceError` if `got`, which the device says of `path`, is not `size`."""
        if got != str(size):
            raise DeviceError(
                f"Copying to `{self.address}` failed: `{path}` has {got or 'no'} bytes in place "
                f"of {size}; is there room?"
            )

    def _clean(self, path: str) -> bool:
        """Stop what still runs from the folder and remove it; return whether that went well."""
        quoted = shlex.quote(path)
        script = f"[ -f {quoted}/pid ] && kill $(cat {quoted}/pid); rm -rf {quoted}"
        try:
            return self.run(script, timeout=_SECONDS_TO_CLEAN).code == 0
        except DeviceError:
            return False

    def _execute(
        self, command: Sequence[str], data: bytes = b"", timeout: float | None = None
    ) -> Answer:
        """Run a local command; one that hangs is killed."""
        seconds = self.timeout if timeout is None else timeout
        try:
            # In a session of its own, Ctrl-C does not reach it: cleaning up is not interrupted
            # by the very key that asked for it.
            done = subprocess.run(
                command, input=data, capture_output=True, timeout=seconds, start_new_session=True
            )
        except FileNotFoundError:
            raise DeviceError(
                f"`{command[0]}` is not installed, and `{self.address}` is reached with it."
            ) from None
        except subprocess.TimeoutExpired:
            raise DeviceError(
                f"`{self.address}` did not finish within {seconds:g} seconds: the device hangs, "
                "or `timeout` is too short."
            ) from None
        out, err = (stream.decode("utf-8", "replace") for stream in (done.stdout, done.stderr))
        return Answer(done.returncode, out, err)
