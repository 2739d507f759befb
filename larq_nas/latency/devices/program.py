"""The benchmark program: where it is, and whether the device can run it."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from larq_nas.errors import InputError
from larq_nas.latency.devices.errors import DeviceError
from larq_nas.latency.devices.transport import Transport

__all__ = ["ENVIRONMENT", "Program", "asset", "built_program", "find_program"]

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
