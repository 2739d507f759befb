"""Costs of a network from one reading of it, and its profile layer by layer."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import tensorflow as tf
from terminaltables import AsciiTable

from larq_nas.graph.calls import read_graph
from larq_nas.lce.count import Counted, count, understand
from larq_nas.lce.fallback import cause_of_fallback, is_binary, zero_padded
from larq_nas.lce.fusing import own_activation
from larq_nas.lce.lowering import lower
from larq_nas.lce.network import Network
from larq_nas.lce.operators import Operator, flatbuffer_bytes, order, peak_memory
from larq_nas.report.notebook import preformatted

QUANTITIES = (
    "macs",
    "binary_macs",
    "parameters",
    "weight_bytes",
    "flatbuffer_bytes",
    "activation_bytes",
)
"""What a network costs: real and binary multiply-accumulates of one image, weights, bytes of
them, bytes of the flatbuffer, and the most bytes of activations alive at once."""


LATENCY = "latency"
"""What a network takes for one image on a device, in microseconds; known with a table alone."""


class LatencyModel(Protocol):
    """What predicts latencies, as `larq_nas.latency.LatencyTable` does."""

    def predict(self, structure: "Structure", answers: Mapping[str, Any] | None = None) -> Any:
        """Return a prediction with `microseconds`: a number, or one for each candidate."""


class Structure:
    """A network with everything about its costs that does not depend on its widths."""

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
            "weight_bytes": sum(part.count * part.bits for part in weights) / 8,
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


_GLOBAL_POOLS = ("global_average_pool", "global_max_pool")


@dataclass(frozen=True)
class LayerProfile:
    """What one call of a layer costs.

    # Arguments
        name: name of the layer.
        kind: what it does, such as `"conv"`; `"unknown"` if its operations are not counted.
        shape: shape of its output without the batch.
        macs: multiply-accumulates that are not binary.
        binary_macs: multiply-accumulates of binary inputs with binary weights (BOPs).
        parameters: number of its weights by their bits; a batch norm counts the two vectors
            that are left of it in a deployed network.
        trainable: number of its trainable weights before deployment.
        kernel_weights: number of its weights without biases and vectors.
        taps: positions of its kernel, or those a pool takes together.
        groups: groups of channels that do not mix.
        bias: whether it adds a bias.
        summands: number of tensors an addition reads.
        relu: whether it applies ReLU, or is one.
        binary: whether its inputs and weights are binary by definition.
        zero_padding: whether it is binary and pads with zeros, as Larq does by default: then
            ReLU and batch norm behind it stay operations of their own.
        fallback: why Larq Compute Engine will run it in float though it quantizes inputs and
            weights; empty if it will not.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    macs: int
    binary_macs: int
    parameters: dict[int, int]
    trainable: int = 0
    kernel_weights: int = 0
    taps: int = 1
    groups: int = 1
    bias: bool = False
    summands: int = 1
    relu: bool = False
    binary: bool = False
    zero_padding: bool = False
    fallback: str = ""

    @property
    def elements(self) -> int:
        """Numbers in its output."""
        return math.prod(self.shape)

    @property
    def weight_bytes(self) -> float:
        """Memory of its weights, in bytes; eight binary weights are one."""
        return sum(bits * number for bits, number in self.parameters.items()) / 8

    @property
    def kernel_bits(self) -> int:
        """Memory of its kernels alone, in bits; biases and vectors have 32 bits each."""
        bits = sum(width * number for width, number in self.parameters.items())
        return bits - 32 * (sum(self.parameters.values()) - self.kernel_weights)


@dataclass(frozen=True)
class Profile:
    """What a network costs, for one image.

    # Arguments
        layers: its layers, one row for each call, in the order they are computed.
        flatbuffer_bytes: predicted bytes of its flatbuffer.
        activation_bytes: the most bytes of activations alive at once, when Larq Compute
            Engine runs it with binary activations packed 32 to a word.
        float_activation_bytes: the same for its float twin.
        unknown: layers whose multiply-accumulates are not counted.
        operations: number of operations of its flatbuffer, as predicted.
        least: whether the flatbuffer is larger than predicted, as an unknown layer could not be
            converted alone.
    """

    layers: Sequence[LayerProfile]
    flatbuffer_bytes: int
    activation_bytes: int
    float_activation_bytes: int
    unknown: tuple[str, ...] = ()
    operations: int = 0
    least: bool = False

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates that are not binary."""
        return sum(layer.macs for layer in self.layers)

    @cached_property
    def binary_macs(self) -> int:
        """Binary multiply-accumulates (BOPs), by definition."""
        return sum(layer.binary_macs for layer in self.layers)

    @cached_property
    def deployed_binary_macs(self) -> int:
        """Binary multiply-accumulates that Larq Compute Engine will run in binary."""
        return sum(layer.binary_macs for layer in self.layers if not layer.fallback)

    @cached_property
    def parameters(self) -> dict[int, int]:
        """Number of weights by their bits."""
        total: Counter[int] = Counter()
        for layer in self.layers:
            total.update(layer.parameters)
        return dict(sorted(total.items()))

    @cached_property
    def weight_bytes(self) -> float:
        """Memory of the weights, in bytes; eight binary weights are one."""
        return sum(layer.weight_bytes for layer in self.layers)

    @property
    def fallbacks(self) -> list[LayerProfile]:
        """The layers that quantize inputs and weights and will run in float."""
        return [layer for layer in self.layers if layer.fallback]

    def __str__(self) -> str:
        return table(self)

    def _repr_html_(self) -> str:
        return preformatted(self)

    def summary(self) -> dict[str, Any]:
        """Return all figures as a dictionary for JSON."""
        return {
            "macs": self.macs,
            "binary_macs": self.binary_macs,
            "deployed_binary_macs": self.deployed_binary_macs,
            "parameters": sum(self.parameters.values()),
            "parameters_by_bits": {str(bits): n for bits, n in self.parameters.items()},
            "weight_bytes": self.weight_bytes,
            "flatbuffer_bytes": self.flatbuffer_bytes,
            "activation_bytes": self.activation_bytes,
            "float_activation_bytes": self.float_activation_bytes,
            "operations": self.operations,
            "unknown": list(self.unknown),
            "layers": [
                {**dataclasses.asdict(layer), "weight_bytes": layer.weight_bytes}
                for layer in self.layers
            ],
        }


def profile(model: tf.keras.Model) -> Profile:
    """Count what a built model costs.

    !!! example
        ```python
        costs = larq_nas.cost.profile(model)
        print(costs)  # a table
        costs.binary_macs, costs.flatbuffer_bytes, costs.summary()
        ```

    # Arguments
        model: a built Keras or Larq model with static shapes. Models nested in it and layers of
            your own are taken apart; a shared layer's weights count once, its operations as
            often as it is called.

    # Returns
        A `Profile`. Layers that cannot be counted are named in `unknown`; their weights are
        counted nevertheless, and their operations, found by converting each alone.

    # Raises
        InputError: if the model is not built, or a shape is not static.
    """
    return profile_structure(read_structure(model))


def profile_structure(structure: Structure) -> Profile:
    """Return the profile of a network that was read before."""
    costs = structure.costs()
    rows = [_row(structure, index, counted) for index, counted in enumerate(structure.count())]
    return Profile(
        rows,
        flatbuffer_bytes=int(costs["flatbuffer_bytes"]),
        activation_bytes=int(costs["activation_bytes"]),
        float_activation_bytes=int(structure.float_activation_memory()),
        unknown=structure.network.unknown,
        operations=len(structure.operators),
        least=any(operator.kind == "UNKNOWN" for operator in structure.operators),
    )


def _row(structure: Structure, index: int, counted: Counted) -> LayerProfile:
    network = structure.network
    call, binary = network.calls[index], network.binary(index)
    facts = call.facts
    parameters: Counter[int] = Counter()
    for part in counted.weights:
        parameters[part.bits] += int(part.count)
    return LayerProfile(
        name=call.name,
        kind=facts.kind,
        shape=call.shape,
        macs=int(counted.macs),
        binary_macs=int(counted.binary_macs),
        parameters=dict(sorted(parameters.items())),
        trainable=sum(math.prod(w.shape) for w in call.layer.trainable_weights) * call.first,
        kernel_weights=int(counted.kernel_weights),
        taps=network.calls[call.inputs[0]].area if facts.kind in _GLOBAL_POOLS else facts.taps,
        groups=facts.groups,
        bias=facts.bias,
        summands=len(call.inputs),
        relu=facts.kind == "relu" or own_activation(call.layer) is tf.keras.activations.relu,
        binary=binary,
        zero_padding=binary and zero_padded(network, index),
        fallback=cause_of_fallback(network, index) if binary or is_binary(call.layer) else "",
    )


def table(profile: Profile) -> str:
    """Return the costs of a network as text: a row for each layer, and the totals."""
    bits = list(profile.parameters)
    header = ["layer", "output", *(f"{n}-bit weights" for n in bits), "memory", "MACs"]
    rows = [_cells(row, bits) for row in profile.layers if _counts(row)]
    total = [
        "total",
        "",
        *(f"{profile.parameters[n]:,}" for n in bits),
        size(profile.weight_bytes),
        f"{profile.macs:,}",
        f"{profile.binary_macs:,}",
        "",
    ]
    grid = AsciiTable([[*header, "binary MACs", "runs in"], *rows, total])
    grid.inner_footing_row_border = True
    for column in range(2, len(total) - 1):
        grid.justify_columns[column] = "right"
    return "\n".join([grid.table, *_lines(profile)])


def size(number: float) -> str:
    """Return a number of bytes with its unit: 1 KB is 1,000 bytes."""
    for unit, one in (("MB", 1e6), ("KB", 1e3)):
        if number >= one:
            return f"{number / one:,.2f} {unit}"
    return f"{number:,.0f} B"


def _counts(row: LayerProfile) -> bool:
    return bool(row.macs or row.binary_macs or row.parameters or row.kind == "unknown")


def _cells(row: LayerProfile, bits: list[int]) -> list[Any]:
    if row.kind == "unknown":
        runs = "unknown"
    elif not row.macs and not row.binary_macs:
        runs = ""
    else:
        runs = "binary" if row.binary and not row.fallback else "float"
    macs = "?" if row.kind == "unknown" else f"{row.macs:,}"
    return [
        row.name,
        "x".join(map(str, row.shape)),
        *(f"{row.parameters.get(n, 0):,}" for n in bits),
        size(row.weight_bytes),
        macs,
        f"{row.binary_macs:,}",
        runs,
    ]


def _lines(profile: Profile) -> list[str]:
    deployed, defined = profile.deployed_binary_macs, profile.binary_macs
    least = "at least" if profile.least else "about"
    lines = [
        f"flatbuffer, once trained: {least} {size(profile.flatbuffer_bytes)} in "
        f"{profile.operations:,} operations",
        f"activations of one image: {size(profile.activation_bytes)} at most at once "
        f"(float twin: {size(profile.float_activation_bytes)})",
    ]
    if defined:
        lines.append(
            f"binary MACs that Larq Compute Engine runs in binary: {deployed / defined:.1%}"
        )
    lines += [
        f"{row.name}: binary, but will run in float: {row.fallback}" for row in profile.fallbacks
    ]
    padded = sum(row.zero_padding for row in profile.layers)
    if padded:
        lines.append(
            f"{padded} binary layers pad with zeros, Larq's default: what follows is not fused "
            "into them; with pad_values=1 the file is smaller"
        )
    if any(row.groups > 1 and row.binary for row in profile.layers):
        lines.append("each group of a binary convolution is a convolution of its own in the file")
    if profile.unknown:
        lines.append(
            f"not counted: multiply-accumulates of {', '.join(profile.unknown)} (unknown layers; "
            "their weights are counted)"
        )
    return lines
