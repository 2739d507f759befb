"""From how the user calls a device to the way it is reached."""

import re
from collections.abc import Sequence

from larq_nas.errors import InputError
from larq_nas.latency.devices.adb import Adb
from larq_nas.latency.devices.ssh import Ssh
from larq_nas.latency.devices.transport import Transport

__all__ = ["reach"]

# Neither a user nor a host begins with a hyphen: ssh would take it for an option.
_SSH = re.compile(
    r"ssh://(?:(?P<user>[^\s@/:-][^\s@/:]*)@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[^\s@/:\[\]-][^\s@/:\[\]]*)(?::(?P<port>\d{1,5}))?/?"
)
_ADB = re.compile(r"adb://(?P<serial>[^\s/-][^\s/]*)?/?")


def reach(device: str, ssh_options: Sequence[str], timeout: float) -> Transport:
    """Return the way to `device`, which is not contacted yet.

    # Arguments
        device: `"ssh://[user@]host[:port]"` or `"adb://[serial]"`.
        ssh_options: options of the program `ssh`.
        timeout: seconds after which a command is given up.

    # Raises
        InputError: if `device` has another form, or `ssh_options` is not a list of texts.
    """
    if isinstance(ssh_options, str) or not all(isinstance(text, str) for text in ssh_options):
        raise InputError(
            f'`ssh_options` must be a list such as ["-i", "key"], but got {ssh_options!r}.'
        )
    if not isinstance(device, str):
        raise _unknown(device)
    if match := _SSH.fullmatch(device):
        port = int(match["port"]) if match["port"] else None
        if port is not None and not 0 < port < 65536:
            raise InputError(f"The port in `{device}` must be between 1 and 65535.")
        host = match["host"].strip("[]")
        return Ssh(host, match["user"] or "", port, ssh_options, device, timeout)
    if match := _ADB.fullmatch(device):
        return Adb(match["serial"] or "", device, timeout)
    raise _unknown(device)


def _unknown(device: object) -> InputError:
    return InputError(
        "`device` must be ssh://[user@]host[:port], such as ssh://pi@raspberrypi, or "
        f"adb://[serial] for Android, but got {device!r}."
    )
