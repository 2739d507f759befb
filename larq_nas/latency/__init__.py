"""Latency of converted networks: measured here, on devices, and by tables."""

from larq_nas.latency.build import build_table
from larq_nas.latency.devices import DeviceError
from larq_nas.latency.latency import Latency, OperationLatency
from larq_nas.latency.measure import measure
from larq_nas.latency.table import LatencyTable

__all__ = [
    "DeviceError",
    "Latency",
    "LatencyTable",
    "OperationLatency",
    "build_table",
    "measure",
]
