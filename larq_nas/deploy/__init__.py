"""Convert a trained model to a flatbuffer, with evidence that it is right."""

from larq_nas.deploy.audit import Audit, LayerAudit
from larq_nas.deploy.conversion import Conversion
from larq_nas.deploy.convert import convert
from larq_nas.deploy.operations import Kernel
from larq_nas.deploy.parity import Parity

__all__ = ["Audit", "Conversion", "Kernel", "LayerAudit", "Parity", "convert"]
