"""All costs of a network from one reading of it."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Protocol

import tensorflow as tf

from larq_nas.graph.calls import read_graph
from larq_nas.lce.count import Counted, count, understand
from larq_nas.lce.lowering import lower
from larq_nas.lce.network import Network
from larq_nas.lce.operators import Operator, flatbuffer_bytes, order, peak_memory

__all__ = ["LATENCY", "QUANTITIES", "LatencyModel", "Structure", "read_structure"]

QUANTITIES = (
    "macs",
    "binary_macs",
    "parameters",
    "weight_bits",
    "flatbuffer_bytes",
    "activation_bytes",
)
"""What a network costs: real and binary multiply-accumulates of one image, weights, bits of
them, bytes of the flatbuffer, and the most bytes of activations alive at once."""


LATENCY = "latency"
"""What a network takes for one image on a device, in microseconds; known with a table alone."""


class LatencyModel(Protocol):
    """What predicts latencies, as `larq_nas.latency.LatencyTable` does."""

    def predict(self, structure: "Structure", answers: Mapping[str, Any] | None = None) -> Any:
        """Return a prediction with `microseconds`: a number, or one for each candidate."""


class Structure:
    """A network with everything about its costs that does not depend on its widths.

    # Arguments
        network: the network.
    """

    def __init__(self, network: Network) -> None:
        self.network = network

    @cached_property
    def operators(self) -> list[Operator]:
        """The operations of its flatbuffer, in the order they run."""
        return order(self.network, lower(self.network))

    @cached_property
    def float_operators(self) -> list[Operator]:
        """The operations of its float twin."""
        return order(self.network, lower(self.network, binary=False))

    def count(self, answers: Mapping[str, Any] | None = None) -> list[Counted]:
        """Return what each call costs; see `larq_nas.lce.count.count`."""
        return count(self.network, answers)

    def costs(self, answers: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return each of `QUANTITIES`.

        # Arguments
            answers: the widths that were asked for, by name of the choice: whole numbers,
                arrays of one element for each candidate, or tensors. By default those the
                network was built with.
        """
        counted = self.count(answers)
        channels = [call.channels for call in counted]
        weights = [part for call in counted for part in call.weights]
        return {
            "macs": sum(call.macs for call in counted),
            "binary_macs": sum(call.binary_macs for call in counted),
            "parameters": sum(part.count for part in weights),
            "weight_bits": sum(part.count * part.bits for part in weights),
            "flatbuffer_bytes": flatbuffer_bytes(self.network, self.operators, channels),
            "activation_bytes": peak_memory(self.network, self.operators, channels),
        }

    def float_activation_memory(self, answers: Mapping[str, Any] | None = None) -> Any:
        """Return the activation memory of the float twin, in bytes."""
        channels = [call.channels for call in self.count(answers)]
        return peak_memory(self.network, self.float_operators, channels)


def read_structure(model: tf.keras.Model) -> Structure:
    """Return the structure of a built model."""
    return Structure(understand(read_graph(model)))
