"""Which calls of a network become one operation, and which tensors are written as bits.

The rules are what Larq Compute Engine's converter does, seen in its flatbuffers.
"""

from collections import defaultdict
from typing import Any

import tensorflow as tf

from larq_nas.cost.fallback import pads_with_zeros, runs_in_binary, scales_kernel
from larq_nas.cost.network import WEIGHTED, Network

__all__ = ["AFFINE", "Fusing", "own_activation"]

AFFINE = ("norm", "scale", "offset")
_FUSES_RELU = (*WEIGHTED, "add", "arithmetic", "max_pool", "average_pool")


class Fusing:
    """What fuses with what in a network.

    # Arguments
        network: the network.
        binary: whether binary layers run in binary; otherwise it is the float twin's.

    # Attributes
        inputs: what each call reads, equal calls merged.
        readers: which calls read each.
    """

    def __init__(self, network: Network, binary: bool = True) -> None:
        self.network = network
        calls = range(len(network.calls))
        self.binary = [binary and runs_in_binary(network, index) for index in calls]
        self.emulated = [
            binary and network.binary(index) and not self.binary[index] for index in calls
        ]
        self.inputs = network.inputs
        self.readers: dict[int, list[int]] = defaultdict(list)
        for index, inputs in enumerate(self.inputs):
            if network.stands_for[index] == index:
                for read in inputs:
                    self.readers[read].append(index)

    def kind(self, index: int) -> str:
        """Return the kind of call `index`."""
        return self.network.facts[index].kind

    def chain(self, index: int) -> list[int]:
        """Return the calls that go into the operation of call `index`, in order."""
        affine, relu = self._fusible(index)
        binary, chain = self.binary[index], []
        while len(self.readers[index]) == 1 and not self.network.calls[index].output:
            (index,) = self.readers[index]
            kind = self.kind(index)
            if affine and kind in AFFINE:
                relu = relu and not binary
            elif relu and kind == "relu":
                affine, relu = affine and binary, False
            elif kind != "pass":
                break
            chain.append(index)
        return chain

    def takes_affine(self, index: int) -> bool:
        """Return whether batch norms behind call `index` fuse into it."""
        return self._fusible(index)[0]

    def _fusible(self, index: int) -> tuple[bool, bool]:
        """Return whether call `index` takes in batch norms and scales, and whether a ReLU."""
        layer, kind = self.network.calls[index].layer, self.kind(index)
        if self.binary[index]:
            if self.network.facts[index].groups > 1 or self.activates_apart(index):
                return False, False
            plain = not scales_kernel(layer) and not pads_with_zeros(layer)
            return True, plain and own_activation(layer) is None
        free = own_activation(layer) is None
        return free and kind in WEIGHTED, free and kind in _FUSES_RELU

    def activates_apart(self, index: int) -> bool:
        """Return whether the activation of binary call `index` stays an operation of its own."""
        layer = self.network.calls[index].layer
        activation = own_activation(layer)
        plain = not scales_kernel(layer) and not pads_with_zeros(layer)
        fuses = activation is tf.keras.activations.relu and plain
        return activation is not None and not fuses

    def read_as_bits(self, index: int) -> bool:
        """Return whether all that reads the output of call `index` wants its signs alone."""
        readers = self.readers[index]
        if self.network.calls[index].output:
            return False
        return bool(readers) and all(self._wants_bits(reader) for reader in readers)

    def _wants_bits(self, index: int) -> bool:
        kind = self.kind(index)
        if kind in ("max_pool", "pass"):
            return self.read_as_bits(index)
        grouped = self.network.facts[index].groups > 1
        return kind == "sign" or (self.binary[index] and not grouped)


def own_activation(layer: Any) -> Any:
    """Return the activation that a convolution or dense layer applies itself, if any."""
    if not isinstance(layer, tf.keras.layers.Dense | tf.keras.layers.Conv2D) and not hasattr(
        layer, "depthwise_kernel"
    ):
        return None
    activation = layer.activation
    return None if activation is tf.keras.activations.linear else activation
