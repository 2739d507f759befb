"""A device reached with the program `ssh`, such as a Raspberry Pi."""

import shlex
from collections.abc import Sequence

from larq_nas.latency.devices.errors import DeviceError
from larq_nas.latency.devices.transport import Transport

__all__ = ["Ssh"]

_SECONDS_TO_CONNECT = 10


class Ssh(Transport):
    """A device on which `ssh` runs commands; files go through its input.

    # Arguments
        host: name or address of the device, or a `Host` of the user's ssh configuration.
        user: who logs in; empty for what ssh decides.
        port: port of its ssh server; `None` for what ssh decides.
        options: options of the program `ssh`, such as `["-i", "key"]`.
        address, timeout: see `Transport`.
    """

    folder = "${TMPDIR:-/tmp}"

    def __init__(
        self,
        host: str,
        user: str,
        port: int | None,
        options: Sequence[str],
        address: str,
        timeout: float,
    ) -> None:
        super().__init__(address, timeout)
        self._destination = f"{user}@{host}" if user else host
        self._port = [] if port is None else ["-p", str(port)]
        self._options = list(options)
        self._reached = False

    def check(self) -> None:
        self._greet()
        self._reached = True

    def push(self, data: bytes, path: str) -> None:
        quoted = shlex.quote(path)
        got = self.run(f"cat > {quoted}; wc -c < {quoted}", data=data)
        self._check_size(path, len(data), got.out.strip())

    def _command(self, script: str) -> list[str]:
        seconds = max(1, int(min(_SECONDS_TO_CONNECT, self.timeout)))
        # Of options given twice ssh takes the first, so those of the user come before ours,
        # except for the two without which it would ask a question or never let go.
        return [
            *("ssh", "-T", "-o", "BatchMode=yes", "-o", "ControlMaster=no"),
            *(*self._options, *self._port, "-o", f"ConnectTimeout={seconds}"),
            *("-o", "ServerAliveInterval=10", "--", self._destination, script),
        ]

    def _lost(self, message: str) -> DeviceError:
        if self._reached:
            return DeviceError(
                f"The connection to `{self.address}` was lost ({message or 'without a word'})."
            )
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
            f"`{self.address}` does not answer ({message or 'without a word'}): is it switched "
            "on, and does `ssh` reach it by hand?"
        )
