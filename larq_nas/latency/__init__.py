"""How long a converted network takes: here, on a device, and by a table."""

from larq_nas.latency.latency import Latency, OperationLatency

__all__ = ["Latency", "OperationLatency"]
