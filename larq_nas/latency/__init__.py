"""Latency of converted networks: measured here, on devices, and by tables."""

from larq_nas.latency.devices import DeviceError
from larq_nas.latency.latency import Latency, OperationLatency
from larq_nas.latency.measure import measure
from larq_nas.latency.table import LatencyTable, build_table

__all__ = [
    "DeviceError",
    "Latency",
    "LatencyTable",
    "OperationLatency",
    "build_table",
    "measure",
]
