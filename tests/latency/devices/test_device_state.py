"""Whether a processor that was slowed down is told, read by a real shell from made-up files."""

from pathlib import Path

import pytest

from larq_nas.latency.devices.measure import Core, State, doubts, drift, read_state
from larq_nas.latency.devices.transport import DeviceError, Transport

FAST = Core(1800000, 1800000, 1800000, "performance")


class Here(Transport):
    """This machine, with another folder for /sys."""

    folder = "/tmp"

    def __init__(self, system: Path) -> None:
        super().__init__("here", 60.0)
        self._system = system

    def check(self) -> None:
        pass

    def push(self, data: bytes, path: str) -> None:
        Path(path).write_bytes(data)

    def _command(self, script: str) -> list[str]:
        return ["sh", "-c", script.replace("/sys/", f"{self._system}/")]

    def _lost(self, message: str) -> DeviceError:
        return DeviceError(message)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def test_what_a_device_says_is_read(tmp_path: Path, monkeypatch) -> None:
    for zone, text in enumerate(("48312", "47", "999999", "")):
        write(tmp_path / f"class/thermal/thermal_zone{zone}/temp", text)
    core = tmp_path / "devices/system/cpu/cpu0/cpufreq"
    write(core / "scaling_cur_freq", "600000")
    write(core / "scaling_max_freq", "1500000")
    write(core / "cpuinfo_max_freq", "1800000")
    write(core / "scaling_governor", "ondemand")
    write(tmp_path / "devices/system/cpu/cpu1/cpufreq/scaling_governor", "ondemand")
    vcgencmd = tmp_path / "bin" / "vcgencmd"
    write(vcgencmd, "#!/bin/sh\n[ $1 = get_throttled ] && echo throttled=0x50005")
    vcgencmd.chmod(0o755)
    monkeypatch.setenv("PATH", str(vcgencmd.parent), prepend=":")
    state = read_state(Here(tmp_path))
    assert state.throttled == 0x50005
    assert state.temperatures == [48.312, 47]
    assert state.cores == [Core(600000, 1500000, 1800000, "ondemand")]


def test_a_device_that_says_nothing_is_not_doubted(tmp_path: Path) -> None:
    state = read_state(Here(tmp_path))
    assert state == State(0, [], [])
    assert doubts(state, state) == []


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (State(cores=[FAST]), State(temperatures=[60], cores=[FAST]), []),
        (State(), State(throttled=0x8), ["soft temperature limit"]),
        (State(throttled=0x4), State(), ["it is throttled"]),
        (State(), State(throttled=0x20000), ["while measuring its frequency was capped"]),
        (State(throttled=0x10000), State(throttled=0x10000), ["since it was started its voltage"]),
        (State(), State(throttled=0x40004), ["it is throttled"]),
        (State(), State(temperatures=[30, 84]), ["at 84 °C afterwards"]),
        (
            State(),
            State(cores=[Core(600000, 1800000, 1800000, "performance"), FAST]),
            ["1 of 2 cores ran at 600 MHz in place of 1800"],
        ),
        (
            State(),
            State(cores=[Core(600000, 1800000, 1800000, "ondemand"), FAST]),
            ["governed by ondemand in place of performance"],
        ),
        (
            State(),
            State(cores=[Core(900000, 1000000, 1800000, "performance")]),
            ["1 of 1 cores may run at 1000 MHz at most, though they can at 1800"],
        ),
    ],
)
def test_what_was_slowed_down_is_told_once(before: State, after: State, expected) -> None:
    found = doubts(before, after)
    assert len(found) == len(expected)
    assert all(text in line for text, line in zip(expected, found, strict=True))


def test_later_repeats_that_are_slower_are_told() -> None:
    assert drift([100, 112, 113, 150]) == ["later repeats took 13 % longer than the first"]
    assert drift([100, 102, 101, 190]) == []
    assert drift([100]) == drift([100, 50, 60]) == []
