"""From a trained model to a file that runs on a phone, with the evidence."""

from larq_nas.deploy.audit import Audit, LayerAudit
from larq_nas.deploy.conversion import Conversion
from larq_nas.deploy.gate import convert
from larq_nas.deploy.parity import Kernel, Parity

__all__ = ["Audit", "Conversion", "Kernel", "LayerAudit", "Parity", "convert"]
