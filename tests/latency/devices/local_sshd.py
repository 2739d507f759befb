"""An ssh server of our own on this machine, whose folder plays the device."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


class LocalSshd:
    """A real `sshd` on a free port, with keys of its own; nothing outside `folder` is written.

    On the device, the home, the temporary folder and the first folder of PATH lie in `folder`.
    """

    def __init__(self, folder: Path) -> None:
        self.home, self.temporary, self.bin = (folder / name for name in ("home", "tmp", "bin"))
        for made in (self.home, self.temporary, self.bin):
            made.mkdir()
        self._folder = folder
        for key in ("host_key", "key", "other_key"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
            subprocess.run(command, check=True)
        (folder / "authorized_keys").write_text((folder / "key.pub").read_text())
        self._log = folder / "sshd.log"
        self._process = self._start()

    def _start(self) -> subprocess.Popen:
        for _ in range(5):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
            config = self._folder / "sshd_config"
            config.write_text(
                f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self._folder}/host_key\n"
                f"AuthorizedKeysFile {self._folder}/authorized_keys\nPidFile none\nUsePAM no\n"
                "StrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\n"
                f"SetEnv HOME={self.home} TMPDIR={self.temporary} PATH={self.bin}:{os.defpath}\n"
            )
            command = [SSHD, "-D", "-f", str(config), "-E", str(self._log)]
            process = subprocess.Popen(command, start_new_session=True)
            while process.poll() is None:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                        return process
                time.sleep(0.02)
        raise RuntimeError(f"sshd does not start: {self._log.read_text()}")

    @property
    def address(self) -> str:
        return f"ssh://127.0.0.1:{self.port}"

    def options(self, key: str = "key") -> list[str]:
        """Options with which `ssh` knows this server and nothing of the user's own."""
        known = self._folder / "known_hosts"
        known.write_text(f"[127.0.0.1]:{self.port} {(self._folder / 'host_key.pub').read_text()}")
        return [
            *("-F", "none", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"),
            *("-i", str(self._folder / key), "-o", f"UserKnownHostsFile={known}"),
        ]

    def kill(self) -> None:
        """End the server and every connection, as if the device were switched off."""
        for process in reversed(_with_children(self._process.pid)):
            try:
                # The shells on the device live on, as they would: only sshd is ended.
                if "sshd" in Path(f"/proc/{process}/comm").read_text():
                    os.kill(process, signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError):
                continue
        self._process.wait()

    def install(self, name: str, script: str) -> Path:
        """Put a program on the device's PATH."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def leftovers(self) -> list[str]:
        """What lies in the device's temporary folder."""
        return sorted(path.name for path in self.temporary.iterdir())

    def processes(self) -> list[int]:
        """The processes that run from the device's temporary folder."""
        found = []
        for process in Path("/proc").iterdir():
            try:
                command = (process / "cmdline").read_bytes() if process.name.isdigit() else b""
            except OSError:
                continue
            if str(self.temporary).encode() in command:
                found.append(int(process.name))
        return found

    def stop(self) -> None:
        self.kill()
        for process in self.processes():
            os.kill(process, signal.SIGKILL)


def start(folder: Path) -> LocalSshd:
    """Return a running server, or skip the test where there can be none."""
    for program in (SSHD, "ssh", "ssh-keygen"):
        if shutil.which(program) is None:
            pytest.skip(f"needs OpenSSH: there is no `{program}`")
    if not Path("/proc/self/comm").exists():
        pytest.skip("needs /proc, to find the processes of sshd")
    separated = Path("/run/sshd")
    if os.geteuid() == 0 and not separated.exists():
        try:
            separated.mkdir(mode=0o755, exist_ok=True)
        except OSError as error:
            pytest.skip(f"sshd needs /run/sshd, which cannot be made: {error}")
    return LocalSshd(folder)


def _with_children(parent: int) -> list[int]:
    """Return a process and all below it."""
    parents = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                stat = (process / "stat").read_text()
            except OSError:
                continue
            parents[int(process.name)] = int(stat.rpartition(")")[2].split()[1])
    found = [parent]
    for one in found:
        found += [child for child, above in parents.items() if above == one]
    return found
