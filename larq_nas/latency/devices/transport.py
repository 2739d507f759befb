"""Run commands on a device by ssh or adb."""

import contextlib
import re
import shlex
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from larq_nas.errors import InputError, LarqNasError, warn


class DeviceError(LarqNasError, RuntimeError):
    """A device cannot be reached, or cannot measure; nothing is wrong with what it was given."""


class OutputsError(DeviceError):
    """The benchmark program on a device measures, but cannot write the outputs of a network."""


def last_line(text: str) -> str:
    """Return the last line of `text` that is not empty, without its full stop."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else ""


_BEGIN = "larq_nas: begin"
_END = "larq_nas: end"
_MEGABYTE = 1 << 20
_ROOM_TO_SPARE = _MEGABYTE
_SECONDS_TO_ANSWER = 30.0
_SECONDS_TO_CLEAN = 20.0


@dataclass(frozen=True)
class Answer:
    """What a command on a device gave; a code above 128 is the signal that ended it plus 128."""

    code: int
    out: str
    err: str


@dataclass
class Transport(ABC):
    """A device on which commands are run and files are put.

    # Arguments
        address: how the user calls the device, for errors.
        timeout: seconds after which a command is given up.

    # Attributes
        folder: where a temporary folder is made, in the words of the device's shell.
        pins_cores: whether programs are bound to the fastest cores, since the cores differ.
    """

    folder: ClassVar[str]
    pins_cores: ClassVar[bool] = False
    address: str
    timeout: float

    @abstractmethod
    def check(self) -> None:
        """Raise `DeviceError` or `InputError` if the device cannot be used."""

    @abstractmethod
    def push(self, data: bytes, path: str) -> None:
        """Write `data` to `path` on the device, or raise `DeviceError`."""

    @abstractmethod
    def _command(self, script: str) -> list[str]:
        """Return the local command that has the device's shell run `script`."""

    def _lost(self, message: str) -> DeviceError:
        """Return the error for a connection that ended with `message`."""
        return DeviceError(f"The connection to `{self.address}` was lost ({message}).")

    def run(self, script: str, *, data: bytes = b"", timeout: float | None = None) -> Answer:
        """Run a line of shell on the device, which reads `data`; `exit` ends it early.

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
            raise self._lost(last_line(done.err) or last_line(done.out) or "without a word")
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
            warn(f"`{path}` may be left on `{self.address}`.")

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


_WHAT_TO_DO = {
    "unauthorized": "unlock it and allow USB debugging for this computer",
    "offline": "unplug it, plug it in again, or run `adb reconnect`",
    "no permissions": "allow your user to use it (on Linux, by a udev rule)",
}


@dataclass
class Adb(Transport):
    """A device on which `adb` runs commands and puts files; `serial` is empty for the only one."""

    folder: ClassVar[str] = "/data/local/tmp"
    pins_cores: ClassVar[bool] = True
    serial: str

    def check(self) -> None:
        listed = self._execute(["adb", "devices"])
        if listed.code:
            raise DeviceError(f"`adb devices` failed: {last_line(listed.err)}.")
        self.serial = self._choose(_states(listed.out))
        self._greet()

    def push(self, data: bytes, path: str) -> None:
        with tempfile.TemporaryDirectory(prefix="larq_nas-") as folder:
            source = Path(folder) / "file"
            source.write_bytes(data)
            done = self._execute(["adb", "-s", self.serial, "push", str(source), path])
        if done.code:
            reason = last_line(done.err) or last_line(done.out)
            raise DeviceError(f"Copying to `{self.address}` failed: {reason}.")
        self._check_size(path, len(data), self.read(f"wc -c < {shlex.quote(path)}"))

    def _choose(self, states: dict[str, str]) -> str:
        """Return the serial number of the device to use."""
        if self.serial:
            if self.serial not in states:
                known = ", ".join(states) or "none"
                raise DeviceError(
                    f"`{self.address}` is not connected; adb sees these devices: {known}."
                )
            chosen = [self.serial]
        else:
            ready = [serial for serial, state in states.items() if state == "device"]
            chosen = ready or list(states)
        if not chosen:
            raise DeviceError(
                "adb sees no device: plug it in and switch USB debugging on in its developer "
                "options."
            )
        if len(chosen) > 1:
            named = ", ".join(f"adb://{serial}" for serial in chosen)
            raise InputError(f"adb sees several devices: say which by its serial number, {named}.")
        (serial,) = chosen
        state = states[serial]
        if state != "device":
            advice = [text for key, text in _WHAT_TO_DO.items() if state.startswith(key)]
            raise DeviceError(
                f"The Android device {serial} is not ready, adb calls it `{state}`: "
                f"{advice[0] if advice else 'see what `adb devices` says of it'}."
            )
        return serial

    def _command(self, script: str) -> list[str]:
        return ["adb", "-s", self.serial, "shell", script]


def _states(listing: str) -> dict[str, str]:
    """Return the state of each serial number that `adb devices` prints."""
    states = {}
    for line in listing.splitlines():
        serial, tab, state = line.partition("\t")
        if tab and not serial.startswith("*"):
            states[serial.strip()] = state.strip()
    return states


_SECONDS_TO_CONNECT = 10


@dataclass
class Ssh(Transport):
    """A device on which `ssh` runs commands; files go through its input.

    The host may be a `Host` of the user's ssh configuration. Where the user is empty or the port
    `None`, ssh decides.
    """

    folder: ClassVar[str] = "${TMPDIR:-/tmp}"
    host: str
    user: str
    port: int | None
    options: Sequence[str]
    reached: bool = False

    def check(self) -> None:
        self._greet()
        self.reached = True

    def push(self, data: bytes, path: str) -> None:
        quoted = shlex.quote(path)
        got = self.run(f"cat > {quoted}; wc -c < {quoted}", data=data)
        self._check_size(path, len(data), got.out.strip())

    def _command(self, script: str) -> list[str]:
        destination = f"{self.user}@{self.host}" if self.user else self.host
        port = [] if self.port is None else ["-p", str(self.port)]
        seconds = max(1, int(min(_SECONDS_TO_CONNECT, self.timeout)))
        # Of options given twice ssh takes the first, so those of the user come before ours,
        # except for the two without which it would ask a question or never let go.
        return [
            *("ssh", "-T", "-o", "BatchMode=yes", "-o", "ControlMaster=no"),
            *(*self.options, *port, "-o", f"ConnectTimeout={seconds}"),
            *("-o", "ServerAliveInterval=10", "--", destination, script),
        ]

    def _lost(self, message: str) -> DeviceError:
        if self.reached:
            return super()._lost(message)
        if "Permission denied" in message or "Too many authentication failures" in message:
            return DeviceError(
                f"`{self.address}` refused the login ({message}): no password can be given here, "
                "so put your key there with `ssh-copy-id`, or name another by `-i` in the options."
            )
        if "Host key verification failed" in message:
            return DeviceError(
                f"`{self.address}` is not known to ssh, or not the device it was: log in once with "
                "`ssh` by hand and settle what it asks."
            )
        return DeviceError(
            f"`{self.address}` does not answer ({message}): is it switched on, and does `ssh` "
            "reach it by hand?"
        )


# Neither a user nor a host begins with a hyphen: ssh would take it for an option.
_SSH = re.compile(
    r"ssh://(?:(?P<user>[^\s@/:-][^\s@/:]*)@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[^\s@/:\[\]-][^\s@/:\[\]]*)(?::(?P<port>\d{1,5}))?/?"
)
_ADB = re.compile(r"adb://(?P<serial>[^\s/-][^\s/]*)?/?")


def reach(device: str, ssh_options: Sequence[str], timeout: float) -> Transport:
    """Return the way to `device`, which is not contacted yet, or raise `InputError`."""
    if isinstance(ssh_options, str) or not all(isinstance(text, str) for text in ssh_options):
        raise InputError(
            f'`ssh_options` must be a list such as ["-i", "key"], but got {ssh_options!r}.'
        )
    if isinstance(device, str) and (match := _SSH.fullmatch(device)):
        port = int(match["port"]) if match["port"] else None
        if port is not None and not 0 < port < 65536:
            raise InputError(f"The port in `{device}` must be between 1 and 65535.")
        host = match["host"].strip("[]")
        return Ssh(device, timeout, host, match["user"] or "", port, ssh_options)
    if isinstance(device, str) and (match := _ADB.fullmatch(device)):
        return Adb(device, timeout, match["serial"] or "")
    raise InputError(
        "`device` must be ssh://[user@]host[:port], such as ssh://pi@raspberrypi, or "
        f"adb://[serial] for Android, but got {device!r}."
    )
