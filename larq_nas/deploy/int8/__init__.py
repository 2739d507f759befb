"""Real layers of a binary network in int8, by fake-quant and calibration."""

from larq_nas.deploy.int8.network import InInt8, quantize
from larq_nas.deploy.int8.plan import NAMES, Int8
from larq_nas.deploy.int8.report import Int8Report

__all__ = ["NAMES", "InInt8", "Int8", "Int8Report", "quantize"]
