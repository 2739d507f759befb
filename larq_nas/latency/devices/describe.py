"""What a device is: its name, its processor, its cores."""

from collections.abc import Mapping
from dataclasses import dataclass

from larq_nas.latency.devices.transport import Transport

__all__ = ["Description", "describe"]

_SCRIPT = "; ".join(
    [
        "echo machine=$(uname -m)",
        "echo host=$(uname -n)",
        "[ -r /proc/device-tree/model ] && echo model=$(tr -d '\\000' < /proc/device-tree/model)",
        "echo processor=$(LC_ALL=C lscpu | sed -n 's/^Model name: *//p' | head -n 1)",
        "echo information=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)",
        "echo maker=$(getprop ro.product.manufacturer)",
        "echo phone=$(getprop ro.product.model)",
        "echo chip=$(getprop ro.soc.model)",
        "echo board=$(getprop ro.board.platform)",
        "command -v taskset > /dev/null && echo taskset=yes",
        "for core in /sys/devices/system/cpu/cpu[0-9]*; do "
        "[ -r $core/cpufreq/cpuinfo_max_freq ] && "
        "echo core${core##*cpu}=$(cat $core/cpufreq/cpuinfo_max_freq); done",
    ]
)


@dataclass(frozen=True)
class Description:
    """What a device says of itself.

    # Arguments
        machine: its architecture, as `uname -m` prints it.
        name: its model, or else its name in the network.
        processor: what its processor is called; may be empty.
        frequencies: highest frequency of each core whose frequency can be read.
        has_taskset: whether a program can be bound to cores.
    """

    machine: str
    name: str
    processor: str
    frequencies: Mapping[int, int]
    has_taskset: bool

    def fastest_cores(self, threads: int) -> str:
        """Return the mask of the fastest cores, at least `threads` of them, in hexadecimal.

        Empty if all cores are equal, or nothing is known of them.
        """
        if not self.has_taskset or len(set(self.frequencies.values())) < 2:
            return ""
        ranked = sorted(self.frequencies.values(), reverse=True)
        slowest = ranked[min(threads, len(ranked)) - 1]
        cores = [core for core, frequency in self.frequencies.items() if frequency >= slowest]
        return f"{sum(1 << core for core in cores):x}"

    def __str__(self) -> str:
        parts = [part for part in (self.processor, self.machine) if part]
        return f"{self.name} ({', '.join(parts)})"


def describe(way: Transport) -> Description:
    """Return what the device says of itself."""
    facts: dict[str, str] = {}
    for line in way.read(_SCRIPT).splitlines():
        key, _, value = line.partition("=")
        if value.strip():
            facts[key.strip()] = value.strip()
    phone = " ".join(facts[key] for key in ("maker", "phone") if key in facts)
    processors = (facts.get(key) for key in ("processor", "information", "chip", "board"))
    return Description(
        machine=facts.get("machine", ""),
        name=facts.get("model") or phone or facts.get("host", way.address),
        processor=next((name for name in processors if name), ""),
        frequencies={
            int(key[4:]): int(value)
            for key, value in facts.items()
            if key.startswith("core") and key[4:].isdigit() and value.isdigit()
        },
        has_taskset="taskset" in facts,
    )
