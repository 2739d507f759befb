"""Latency on a Raspberry Pi, an Android phone or another device."""

from larq_nas.latency.devices.measure import measure_on
from larq_nas.latency.devices.transport import DeviceError

__all__ = ["DeviceError", "measure_on"]
