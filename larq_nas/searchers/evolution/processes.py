"""Start a chief and its workers, and restart those that die."""

import ipaddress
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from larq_nas.errors import InputError, LarqNasError

Role: TypeAlias = Literal["alone", "chief", "worker"]
"""The only process; the one that hands candidates out; one that trains them."""

_NAMES = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")


def current_role() -> Role:
    """Return the part of this process, as keras-tuner's environment variables say.

    # Raises
        InputError: if some of them are set and others are not.
    """
    given = [name for name in _NAMES if os.environ.get(name)]
    if "KERASTUNER_ORACLE_IP" not in given:
        return "alone"
    missing = [name for name in _NAMES if name not in given]
    if missing:
        raise InputError(
            f"{' and '.join(given)} are set in the environment, but not {', '.join(missing)}: a "
            "search on many processes needs all three."
        )
    return "chief" if "chief" in os.environ["KERASTUNER_TUNER_ID"] else "worker"


_LISTEN = "LARQ_NAS_CHIEF_ADDRESS"


def chief_address() -> str:
    """Return the address that a chief listens at: one of this machine alone, unless told otherwise.

    # Raises
        InputError: if other machines can reach it, and `LARQ_NAS_CHIEF_ADDRESS` does not say so, or
            if the chief cannot listen there.
    """
    given = os.environ.get(_LISTEN)
    address, port = given or os.environ["KERASTUNER_ORACLE_IP"], os.environ[_NAMES[-1]]
    # Whoever reaches keras-tuner's port may take candidates, and say what they are worth.
    if not given and not is_loopback(address):
        raise InputError(
            f"KERASTUNER_ORACLE_IP is {address}, which other machines may reach, and the chief's "
            "port asks for no password: use 127.0.0.1, which workers elsewhere reach by ssh -L, or "
            f"set {_LISTEN}={address} in a network where nobody else is."
        )
    host = address.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # keras-tuner starts to listen only after the widest network is trained.
        socket.create_server((host, int(port)), family=family).close()
    except (OSError, OverflowError, ValueError) as error:
        raise InputError(
            f"The chief cannot listen at {address}:{port} ({error}): set KERASTUNER_ORACLE_PORT "
            f"to a free port, and KERASTUNER_ORACLE_IP or {_LISTEN} to an address of this machine."
        ) from None
    return address


def is_loopback(address: str) -> bool:
    """Return whether only this machine reaches an address or the name of one."""
    try:
        found = socket.getaddrinfo(address.strip("[]"), None)
    except OSError:
        return False
    return all(ipaddress.ip_address(str(info[4][0])).is_loopback for info in found)


_PARENT = "LARQ_NAS_LAUNCHED"
_POLL_SECONDS, _LEAVE_SECONDS = 0.2, 30
_MOST_STARTS = 10
_NO_RESUME = "--no-resume"


def launch(command: Sequence[str], workers: int, directory: Path) -> int:
    """Run a search on a chief and workers, and return the chief's exit status.

    A process that is killed is started again under its name, which gets it its candidate
    again. What the workers print is in `workers/` of the run.

    # Raises
        LarqNasError: if a process is killed again and again.
    """
    processes = _Processes(list(command), directory, _free_port())
    names = [f"worker{number}" for number in range(1, workers + 1)]
    try:
        processes.start("chief")
        while True:
            time.sleep(_POLL_SECONDS)
            status = processes.running["chief"].poll()
            if status is not None and status >= 0:
                return status
            if status is not None:
                processes.start("chief")
            # Before, the directory must be empty, and workers have nothing to do.
            if (directory / "settings.json").exists():
                processes.keep_running(names)
    finally:
        processes.end()


@dataclass
class _Processes:
    """Processes of a search by name, of one command; the chief listens at `port`."""

    command: list[str]
    directory: Path
    port: int
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _starts: Counter[str] = field(default_factory=Counter)

    def start(self, name: str) -> None:
        self._starts[name] += 1
        if self._starts[name] > _MOST_STARTS:
            raise LarqNasError(
                f"The search's {name} ended {_MOST_STARTS} times before the search did: "
                f"{self._reason(name)}"
            )
        # By now the run is there.
        again = name != "chief" or self._starts[name] > 1
        command = [part for part in self.command if not (again and part == _NO_RESUME)]
        environment = {
            **os.environ,
            "KERASTUNER_TUNER_ID": name,
            "KERASTUNER_ORACLE_IP": "127.0.0.1",
            "KERASTUNER_ORACLE_PORT": str(self.port),
            _PARENT: "1",
        }
        log = self.directory / "workers" / f"{name}.log"
        if name != "chief":
            log.parent.mkdir(exist_ok=True)
        with nullcontext() if name == "chief" else open(log, "ab") as output:
            self.running[name] = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=output, stderr=output
            )

    def keep_running(self, names: Sequence[str]) -> None:
        """Start the workers that do not run, but for those that had nothing left to do."""
        for name in names:
            status = self.running[name].poll() if name in self.running else 1
            if status not in (None, 0):
                if name in self.running:
                    # Beside the chief's output, which may be JSON.
                    print(
                        f"The search's {name} ended (status {status}): starting it again",
                        file=sys.stderr,
                    )
                self.start(name)

    def _reason(self, name: str) -> str:
        """Return why a process ended, as far as that is known."""
        status, log = self.running[name].poll(), self.directory / "workers" / f"{name}.log"
        if status is not None and status < 0:
            return "it was killed; with too little memory, use fewer `--workers`."
        said = log.read_text(errors="replace").split("\n") if log.exists() else []
        last = next((line for line in reversed(said) if line.strip()), "it said nothing")
        return f"{last} (see `{log.parent}`)"

    def end(self) -> None:
        """Let workers leave, and end what has not left then."""
        deadline = time.monotonic() + _LEAVE_SECONDS
        chief_left = self.running["chief"].poll() == 0
        for process in self.running.values():
            if chief_left:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
            process.kill()
            process.wait()


def end_with_parent() -> None:
    """End this process when the one that launched it does, however that ends."""
    if os.environ.get(_PARENT):
        threading.Thread(target=_wait_for_end_of_input, daemon=True).start()


def _wait_for_end_of_input() -> None:
    with suppress(OSError, ValueError):
        os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
