"""Measuring over ssh: the server and `ssh` are real, the benchmark program is a stand-in."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import local_sshd
import pytest
from conftest import quick

from larq_nas.errors import InputError
from larq_nas.latency.devices import DeviceError, measure_on

HERE = Path(__file__).parent
STAND_IN = HERE / "stand_ins" / "stand_in_benchmark_model"
MODEL = b"\x1c\x00\x00\x00TFL3" + bytes(1000)


@pytest.fixture
def device(tmp_path: Path):
    server = local_sshd.start(tmp_path)
    yield server
    server.stop()


def stand_in(device: local_sshd.LocalSshd, behaviour: str) -> Path:
    """Return a stand-in that does what `behaviour` says."""
    path = device.home.parent / f"stand_in_{behaviour}"
    text = STAND_IN.read_text().replace("BEHAVIOUR=good", f"BEHAVIOUR={behaviour}")
    path.write_text(text)
    return path


def measure(device: local_sshd.LocalSshd, behaviour: str = "good", **settings):
    arguments = {"tool": stand_in(device, behaviour), "ssh_options": device.options(), **settings}
    return measure_on(device.address, MODEL, **arguments)


def elf(machine: int) -> bytes:
    """Return the header of a program for a machine, and nothing after it."""
    return (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + (2).to_bytes(2, "little")
        + machine.to_bytes(2, "little")
    )


def one_line(caught: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def wait_for(condition) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline, "nothing happened within three minutes"
        time.sleep(0.02)


def test_a_model_is_measured_and_nothing_is_left(device) -> None:
    latency = measure(device, runs=7, warmup_runs=3, threads=2, kernel="indirect", repeats=4)
    # The stand-in gives 1010, 1020, 1030 and 1040.
    assert latency.microseconds == 1025
    assert latency.spread == pytest.approx(15 / 1025)
    assert (latency.runs, latency.threads, latency.kernel) == (28, 2, "indirect")
    assert latency.operations == []
    assert latency.engine == "unknown"
    assert os.uname().machine in latency.device
    calls = (device.home / "flags").read_text().splitlines()
    assert len(calls) == 4
    wanted = "--num_threads=2 --num_runs=7 --warmup_runs=3 --max_secs=100 --use_xnnpack=true"
    assert all(f"model.tflite {wanted} --use_indirect_bgemm=true" in call for call in calls)
    assert device.leftovers() == []


@pytest.mark.slow
def test_operations_are_timed_in_a_run_of_their_own(device) -> None:
    latency = measure(device, repeats=2, per_operation=True, kernel="reference")
    assert [(op.kind, op.name, op.microseconds) for op in latency.operations] == [
        ("LceQuantize", "sign", 30),
        ("LceBconv2d", "conv", 880),
        ("CONV_2D", "stem", 90),
    ]
    *_, profiled = calls = (device.home / "flags").read_text().splitlines()
    assert len(calls) == 3
    assert "--enable_op_profiling=true" in profiled
    assert "--use_xnnpack=false --use_reference_bconv=true" in profiled


@pytest.mark.slow
def test_a_program_on_the_device_is_used(device, monkeypatch) -> None:
    shutil.copy(STAND_IN, device.home / "lce_benchmark_model_aarch64")
    monkeypatch.setenv("LARQ_NAS_BENCHMARK_TOOL", "/no/such/file")
    assert measure(device, tool=None, repeats=1).microseconds == 1010
    device.install("lce_benchmark_model", "exit 3")
    with pytest.raises(DeviceError, match="exit code 3"):
        measure(device, tool=None)
    (device.bin / "lce_benchmark_model").unlink()
    (device.home / "lce_benchmark_model_aarch64").chmod(0o644)
    with pytest.raises(DeviceError, match=r"may not be executed: run `chmod \+x"):
        measure(device, tool=None)


@pytest.mark.slow
def test_without_a_program_it_says_where_to_get_one(device, monkeypatch) -> None:
    monkeypatch.delenv("LARQ_NAS_BENCHMARK_TOOL", raising=False)
    with pytest.raises(
        InputError, match=r"download lce_benchmark_model_.* of the release 0\.16\.0"
    ):
        measure(device, tool=None)
    monkeypatch.setenv("LARQ_NAS_BENCHMARK_TOOL", str(STAND_IN))
    assert measure(device, tool=None, repeats=1).runs == 50


@pytest.mark.parametrize(
    ("behaviour", "message"),
    quick(
        [
            ("fails", "exit code 1: Encountered unresolved custom op: LceQuantize; it is not the"),
            ("out_of_memory", r"killed by signal 9 \(SIGKILL: most likely its memory ran out\)"),
            ("no_timings", "printed no timings"),
            ("old", "does not know --use_indirect_bgemm=true: use the one of the release"),
        ],
        1,
    ),
)
def test_what_the_program_does_wrong_is_told(device, behaviour: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message) as caught:
        measure(device, behaviour, kernel="indirect")
    one_line(caught)
    assert device.leftovers() == []


@pytest.mark.slow
def test_a_program_that_hangs_is_stopped(device) -> None:
    with pytest.raises(DeviceError, match="did not finish within 3 seconds") as caught:
        measure(device, "hang", timeout=3)
    assert "may be left" not in one_line(caught)
    assert device.leftovers() == []
    # The shell that waited for it ends just after it.
    wait_for(lambda: device.processes() == [])


def test_ctrl_c_cleans_the_device(device) -> None:
    script = (
        # A shell's background jobs ignore Ctrl-C, and so would what they start.
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from larq_nas.latency.devices import measure_on\n"
        f"measure_on({device.address!r}, {MODEL!r}, tool={str(stand_in(device, 'hang'))!r}, "
        f"ssh_options={device.options()!r})"
    )
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE) as process:
        wait_for(lambda: (device.home / "flags").exists())
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=180)
    assert b"KeyboardInterrupt" in errors
    assert device.leftovers() == []
    assert device.processes() == []


def test_a_lost_connection_is_one_line(device) -> None:
    def switch_off() -> None:
        wait_for(lambda: (device.home / "flags").exists())
        device.kill()

    thread = threading.Thread(target=switch_off)
    thread.start()
    with pytest.raises(DeviceError, match=r"The connection to .* was lost") as caught:
        measure(device, "hang")
    thread.join()
    assert "may be left on the device" in one_line(caught)


def test_a_device_that_does_not_answer_or_refuses(device, tmp_path) -> None:
    with pytest.raises(DeviceError, match=r"refused the login .*Permission denied") as caught:
        measure(device, ssh_options=device.options("other_key"))
    one_line(caught)
    options = device.options()
    (tmp_path / "known_hosts").write_text("")
    with pytest.raises(DeviceError, match="is not known to ssh") as caught:
        measure_on(device.address, MODEL, ssh_options=options)
    one_line(caught)
    device.kill()
    with pytest.raises(DeviceError, match=r"does not answer .*Connection refused") as caught:
        measure(device)
    one_line(caught)
    with pytest.raises(DeviceError, match=r"does not answer .*not resolve hostname") as caught:
        measure_on("ssh://no-such-device.invalid", MODEL, ssh_options=["-F", "none"])
    one_line(caught)


def test_a_device_that_listens_and_says_nothing(device) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"ssh://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(
            DeviceError, match=r"does not answer|did not finish within 3 s"
        ) as caught:
            measure_on(address, MODEL, ssh_options=device.options(), timeout=3)
    one_line(caught)


def test_programs_for_other_machines_are_refused(device, tmp_path) -> None:
    other = {"x86_64": (183, "aarch64")}.get(os.uname().machine, (62, "x86-64"))
    cases = {
        f"is a program for {other[1]}.*, but .* is {os.uname().machine}": elf(other[0]),
        "not a program for Linux or Android": b"Not Found",
        "Cannot read the benchmark program .*: Is a directory": None,
    }
    for message, content in cases.items():
        path = tmp_path
        if content:
            path = tmp_path / "program"
            path.write_bytes(content)
        with pytest.raises(InputError, match=message) as caught:
            measure(device, tool=path)
        one_line(caught)
    assert device.leftovers() == []


def test_a_program_that_cannot_start_is_told(device, tmp_path) -> None:
    own = {"x86_64": 62, "aarch64": 183, "armv7l": 40}.get(os.uname().machine)
    path = tmp_path / "program"
    path.write_bytes(elf(own))
    with pytest.raises(
        DeviceError, match=r"cannot be started \(.*\): is it for the device"
    ) as caught:
        measure(device, tool=path)
    one_line(caught)


def test_no_room_is_told_before_copying(device, tmp_path) -> None:
    program = tmp_path / "program"
    free = shutil.disk_usage(tmp_path).free
    with open(program, "wb") as file:
        file.write(STAND_IN.read_bytes())
        # Nothing but the file's size: it takes no room here.
        file.truncate(free + (1 << 30))
    with pytest.raises(DeviceError, match=r"No room on .* need \d+\.\d MB, but .* has") as caught:
        measure(device, tool=program)
    one_line(caught)
    assert device.leftovers() == []


def test_a_file_that_arrives_cut_off_is_seen(device) -> None:
    device.install("cat", "head -c 10")
    with pytest.raises(DeviceError, match="has 10 bytes in place of"):
        measure(device)


@pytest.mark.slow
def test_what_makes_figures_doubtful_is_told(device) -> None:
    device.install("vcgencmd", "echo throttled=0x50005")
    latency = measure(device, "slowing", repeats=5, runs=10)
    text = "\n".join(latency.warnings)
    assert "its voltage is too low" in text
    assert "it is throttled" in text
    assert "later repeats took 60 % longer than the first" in text


@pytest.mark.slow
def test_noise_of_a_login_script_does_no_harm(device) -> None:
    (device.home / ".bashrc").write_text("echo Welcome; echo fortune=1\n")
    (device.home / ".ssh").mkdir()
    (device.home / ".ssh" / "rc").write_text("echo Welcome; echo larq >&2\n")
    assert measure(device, repeats=1).microseconds == 1010
