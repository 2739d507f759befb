"""A device reached with the program `adb`: Android."""

import shlex
import tempfile
from pathlib import Path

from larq_nas.errors import InputError
from larq_nas.latency.devices.errors import DeviceError, last_line
from larq_nas.latency.devices.transport import Transport

__all__ = ["Adb"]

_WHAT_TO_DO = {
    "unauthorized": "unlock it and allow USB debugging for this computer",
    "offline": "unplug it, plug it in again, or run `adb reconnect`",
    "no permissions": "allow your user to use it (on Linux, by a udev rule)",
}


class Adb(Transport):
    """A device on which `adb` runs commands and puts files.

    # Arguments
        serial: its serial number, as `adb devices` prints it; empty if there is one device only.
        address, timeout: see `Transport`.
    """

    folder = "/data/local/tmp"
    pins_cores = True

    def __init__(self, serial: str, address: str, timeout: float) -> None:
        super().__init__(address, timeout)
        self._serial = serial

    def check(self) -> None:
        listed = self._execute(["adb", "devices"])
        if listed.code:
            raise DeviceError(f"`adb devices` failed: {last_line(listed.err)}.")
        self._serial = self._choose(_states(listed.out))
        self._greet()

    def push(self, data: bytes, path: str) -> None:
        with tempfile.TemporaryDirectory(prefix="larq_nas-") as folder:
            source = Path(folder) / "file"
            source.write_bytes(data)
            done = self._execute(["adb", "-s", self._serial, "push", str(source), path])
        if done.code:
            raise DeviceError(
                f"Copying to `{self.address}` failed: {last_line(done.err) or last_line(done.out)}."
            )
        self._check_size(path, len(data), self.read(f"wc -c < {shlex.quote(path)}"))

    def _choose(self, states: dict[str, str]) -> str:
        """Return the serial number of the device to use."""
        if self._serial:
            if self._serial not in states:
                known = ", ".join(states) or "none"
                raise DeviceError(
                    f"`{self.address}` is not connected; adb sees these devices: {known}."
                )
            chosen = [self._serial]
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
        self._require_ready(chosen[0], states[chosen[0]])
        return chosen[0]

    def _require_ready(self, serial: str, state: str) -> None:
        if state == "device":
            return
        advice = next((text for key, text in _WHAT_TO_DO.items() if state.startswith(key)), None)
        raise DeviceError(
            f"The Android device {serial} is not ready, adb calls it `{state}`: "
            f"{advice or 'see what `adb devices` says of it'}."
        )

    def _command(self, script: str) -> list[str]:
        return ["adb", "-s", self._serial, "shell", script]

    def _lost(self, message: str) -> DeviceError:
        return DeviceError(
            f"The connection to `{self.address}` was lost ({message or 'without a word'})."
        )


def _states(listing: str) -> dict[str, str]:
    """Return the state of each serial number that `adb devices` prints."""
    states = {}
    for line in listing.splitlines():
        serial, tab, state = line.partition("\t")
        if tab and not serial.startswith("*"):
            states[serial.strip()] = state.strip()
    return states
