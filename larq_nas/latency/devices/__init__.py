"""How long a flatbuffer takes on a Raspberry Pi, an Android phone, or another device."""

from larq_nas.latency.devices.errors import DeviceError
from larq_nas.latency.devices.measure import measure_on

__all__ = ["DeviceError", "measure_on"]
