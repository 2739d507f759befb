"""Starts on_replicas.py: in one process of several devices, or in two."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROCESS = Path(__file__).with_name("on_replicas.py")
TIMEOUT = 300


def run(replicas: int | None, target: Path) -> subprocess.CompletedProcess[str]:
    """Devices are split before TensorFlow starts, in a process of its own."""
    command = [sys.executable, str(PROCESS), str(replicas), str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


@contextmanager
def two_processes(*targets: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Start two processes of one replica each, on loopback; none outlives the block."""
    started = _start_two(*targets)
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def _start_two(*targets: Path) -> list[subprocess.Popen[str]]:
    with socket.create_server(("localhost", 0)) as one, socket.create_server(("", 0)) as two:
        addresses = [f"localhost:{s.getsockname()[1]}" for s in (one, two)]
    processes = []
    for index, target in enumerate(targets):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        processes.append(
            subprocess.Popen(
                [sys.executable, str(PROCESS), "processes", str(target)],
                env={**os.environ, "TF_CONFIG": json.dumps(task)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return processes


def run_two(*targets: Path) -> list[str]:
    """Return what two processes say, which must end well."""
    with two_processes(*targets) as started:
        said = [process.communicate(timeout=TIMEOUT) for process in started]
    for process, (_, errors) in zip(started, said, strict=True):
        assert process.returncode == 0, errors
    return [output for output, _ in said]
