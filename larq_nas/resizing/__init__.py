"""Networks of which the widths change: whose channels their weights have, and one trace for all."""

from larq_nas.resizing.channels import Channels
from larq_nas.resizing.network import Initial, resizable_constants, resizable_network
from larq_nas.resizing.optimizer import resizable_optimizer
from larq_nas.resizing.parts import LayerChannels, Part, latent, read_layers, weights_of

__all__ = [
    "Channels",
    "Initial",
    "LayerChannels",
    "Part",
    "latent",
    "read_layers",
    "resizable_constants",
    "resizable_network",
    "resizable_optimizer",
    "weights_of",
]
