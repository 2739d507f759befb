"""Whether the processor of a device ran as fast as it can."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from larq_nas.latency.devices.transport import Transport

__all__ = ["State", "doubts", "drift", "read_state"]

_SCRIPT = "; ".join(
    [
        "vcgencmd get_throttled",
        "for zone in /sys/class/thermal/thermal_zone*; do "
        "[ -r $zone/temp ] && echo temperature=$(cat $zone/temp); done",
        "for core in /sys/devices/system/cpu/cpu[0-9]*/cpufreq; do "
        "[ -r $core/scaling_governor ] && echo core=$(cat $core/scaling_cur_freq "
        "$core/scaling_max_freq $core/cpuinfo_max_freq $core/scaling_governor); done",
    ]
)

# The bits of `vcgencmd get_throttled`; the same, 16 higher, say that it has been so since booting.
_BITS = {
    0: "its voltage is too low",
    1: "its frequency is capped",
    2: "it is throttled",
    3: "it is at its soft temperature limit",
}
_OCCURRED = 16
_HOT = 80.0
_NONSENSE = 150.0
_SLOWER = 0.9
_DRIFT = 1.1


@dataclass(frozen=True)
class Core:
    """Frequencies of a core in kHz: now, the highest allowed, the highest it has; its governor."""

    now: int
    allowed: int
    highest: int
    governor: str


@dataclass(frozen=True)
class State:
    """What a device says of its processor at one moment; what it does not say is empty.

    # Arguments
        throttled: the bits of a Raspberry Pi's `vcgencmd get_throttled`.
        temperatures: of its thermal zones, in degrees Celsius.
        cores: its cores.
    """

    throttled: int = 0
    temperatures: Sequence[float] = ()
    cores: Sequence[Core] = field(default=())


def read_state(way: Transport) -> State:
    """Return the state of the device's processor."""
    throttled, temperatures, cores = 0, [], []
    for line in way.read(_SCRIPT).splitlines():
        key, _, value = line.partition("=")
        try:
            if key == "throttled":
                throttled = int(value, 16)
            elif key == "temperature":
                temperatures.append(_celsius(float(value)))
            elif key == "core":
                now, allowed, highest, governor = value.split()
                cores.append(Core(int(now), int(allowed), int(highest), governor))
        except ValueError:
            # A zone without a sensor, a core that is switched off: nothing is known of it.
            continue
    return State(throttled, [t for t in temperatures if t < _NONSENSE], cores)


def _celsius(value: float) -> float:
    """Return a temperature that may be in thousandths of a degree."""
    return value / 1000 if abs(value) >= 1000 else value


def doubts(before: State, after: State) -> list[str]:
    """Return what in the states before and after a measurement makes it doubtful."""
    found = [
        f"the device says of its processor that {text}"
        for bit, text in _BITS.items()
        if (before.throttled | after.throttled) >> bit & 1
    ]
    found += [
        _of_the_past(text, before.throttled >> (bit + _OCCURRED) & 1 == 0)
        for bit, text in _BITS.items()
        if after.throttled >> (bit + _OCCURRED) & 1
        and not (before.throttled | after.throttled) >> bit & 1
    ]
    hottest = max(after.temperatures, default=0.0)
    if hottest >= _HOT:
        found.append(f"a part of the device was at {hottest:.0f} °C afterwards")
    return found + _of_cores(after.cores)


def _of_the_past(text: str, new: bool) -> str:
    if new:
        return f"the device says that while measuring {text.replace(' is ', ' was ')}"
    return (
        f"the device says that since it was started {text.replace(' is ', ' was ')}; "
        "whether again while measuring, it cannot tell"
    )


def _of_cores(cores: Sequence[Core]) -> list[str]:
    found = []
    capped = [core for core in cores if core.allowed < _SLOWER * core.highest]
    if capped:
        found.append(
            f"{len(capped)} of {len(cores)} cores may run at {capped[0].allowed / 1000:.0f} MHz "
            f"at most, though they can at {capped[0].highest / 1000:.0f}"
        )
    # Any other governor lowers the frequency as soon as nothing runs, which is now.
    steady = [core for core in cores if core.governor == "performance" and core not in capped]
    slow = [core for core in steady if core.now < _SLOWER * core.highest]
    if slow:
        found.append(
            f"{len(slow)} of {len(cores)} cores ran at {slow[0].now / 1000:.0f} MHz "
            f"in place of {slow[0].highest / 1000:.0f}"
        )
    others = sorted({core.governor for core in cores} - {"performance"})
    if others:
        found.append(
            f"the frequency is governed by {', '.join(others)} in place of performance, so it "
            "may have changed while measuring"
        )
    return found


def drift(averages: Sequence[float]) -> list[str]:
    """Return that the later of `averages` are slower than the first, if they are."""
    later = sorted(averages[1:])
    if not later:
        return []
    slower = later[len(later) // 2] / averages[0]
    if slower <= _DRIFT:
        return []
    return [f"later repeats took {100 * (slower - 1):.0f} % longer than the first"]
