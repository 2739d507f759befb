"""Measuring on Android: `adb` is a stand-in, as is the benchmark program."""

import shutil
from pathlib import Path

import pytest

from larq_nas.errors import InputError
from larq_nas.latency.devices import DeviceError, measure_on

STAND_INS = Path(__file__).parent / "stand_ins"
PROGRAM = STAND_INS / "stand_in_benchmark_model"
MODEL = b"\x1c\x00\x00\x00TFL3" + bytes(1000)


def install(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def phone(tmp_path: Path, monkeypatch) -> Path:
    """A folder that plays a phone with two fast and two slow cores."""
    for name in ("tmp", "bin", "path"):
        (tmp_path / name).mkdir()
    shutil.copy(STAND_INS / "stand_in_adb", tmp_path / "path" / "adb")
    monkeypatch.setenv("PATH", str(tmp_path / "path"), prepend=":")
    monkeypatch.setenv("STAND_IN_ADB", str(tmp_path))
    (tmp_path / "devices").write_text("ABC123\tdevice\n")
    install(
        tmp_path / "bin" / "getprop",
        "case $1 in *manufacturer) echo Maker;; *product.model) echo Phone 4;; *) echo;; esac",
    )
    install(tmp_path / "bin" / "lscpu", "exit 1")
    install(tmp_path / "bin" / "taskset", 'echo "$1" >> "$HOME/masks"; shift; exec "$@"')
    for core, frequency in enumerate((1800000, 1800000, 2400000, 2800000)):
        folder = tmp_path / "sys" / "devices/system/cpu" / f"cpu{core}" / "cpufreq"
        folder.mkdir(parents=True)
        for name in ("scaling_cur_freq", "scaling_max_freq", "cpuinfo_max_freq"):
            (folder / name).write_text(f"{frequency}\n")
        (folder / "scaling_governor").write_text("schedutil\n")
    return tmp_path


def measure(device: str = "adb://", **settings):
    return measure_on(device, MODEL, **{"tool": PROGRAM, "repeats": 2, **settings})


@pytest.mark.parametrize("old", [False, True], ids=["now", "before Android 7"])
def test_a_phone_is_measured_on_its_fastest_cores(phone: Path, old: bool) -> None:
    if old:
        (phone / "old").touch()
    latency = measure(threads=2, per_operation=True)
    assert latency.microseconds == 1015
    assert latency.device.startswith("Maker Phone 4 (")
    assert latency.device.endswith(", cores c")
    assert [op.kind for op in latency.operations] == ["LceQuantize", "LceBconv2d", "CONV_2D"]
    assert (phone / "masks").read_text().split() == ["c"] * 3
    assert any("governed by schedutil" in text for text in latency.warnings)
    assert list((phone / "tmp").iterdir()) == []


@pytest.mark.parametrize(("threads", "mask"), [(1, "8"), (2, "c"), (3, "f"), (9, "f")])
def test_as_many_cores_as_threads(phone: Path, threads: int, mask: str) -> None:
    measure("adb://ABC123", threads=threads, repeats=1)
    assert (phone / "masks").read_text().split() == [mask]


def test_frequencies_that_are_not_told_are_a_warning(phone: Path) -> None:
    shutil.rmtree(phone / "sys")
    latency = measure()
    assert not (phone / "masks").exists()
    assert any("was not bound to cores" in text for text in latency.warnings)


def test_a_program_in_the_usual_folder_is_used(phone: Path) -> None:
    shutil.copy(PROGRAM, phone / "tmp" / "lce_benchmark_model")
    assert measure(tool=None).microseconds == 1015
    assert [path.name for path in (phone / "tmp").iterdir()] == ["lce_benchmark_model"]


@pytest.mark.parametrize(
    ("listed", "device", "error", "message"),
    [
        ("", "adb://", DeviceError, "adb sees no device: plug it in"),
        ("A\tdevice\nB\tdevice\n", "adb://", InputError, "several devices: .*adb://A, adb://B"),
        ("A\tunauthorized\n", "adb://", DeviceError, "`unauthorized`: unlock it and allow"),
        ("A\toffline\n", "adb://A", DeviceError, "`offline`: unplug it"),
        ("A\tno permissions (x)\n", "adb://A", DeviceError, "by a udev rule"),
        ("A\trecovery\n", "adb://A", DeviceError, "see what `adb devices` says"),
        ("A\tdevice\n", "adb://B", DeviceError, "`adb://B` is not connected; .*: A"),
    ],
)
def test_devices_that_cannot_be_used(phone: Path, listed, device, error, message) -> None:
    (phone / "devices").write_text(listed)
    with pytest.raises(error, match=message) as caught:
        measure(device)
    assert "\n" not in str(caught.value)


def test_of_several_devices_the_ready_one_is_used(phone: Path) -> None:
    (phone / "devices").write_text("A\tunauthorized\n192.168.0.7:5555\tdevice\n")
    assert measure(repeats=1).runs == 50
    assert measure("adb://192.168.0.7:5555", repeats=1).runs == 50


def test_a_phone_that_is_full_or_unplugged(phone: Path) -> None:
    (phone / "full").touch()
    with pytest.raises(DeviceError, match=r"Copying to .* failed: .*No space left on device"):
        measure()
    (phone / "full").unlink()
    (phone / "unplug").touch()
    with pytest.raises(DeviceError, match=r"The connection to .* was lost .*may be left") as caught:
        measure()
    assert "\n" not in str(caught.value)


def test_without_adb_it_is_named(phone: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(phone / "bin"))
    with pytest.raises(DeviceError, match="`adb` is not installed"):
        measure()
    with pytest.raises(DeviceError, match="`ssh` is not installed"):
        measure("ssh://raspberrypi")
