"""How long a converted network takes: here, on a device, and by a table."""

from larq_nas.latency.here import measure_here
from larq_nas.latency.latency import Latency, OperationLatency

__all__ = ["Latency", "OperationLatency", "measure_here"]
