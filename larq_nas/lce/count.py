"""Channels, multiply-accumulates and weights of each call of a network.

Every formula takes numbers of channels that are whole numbers, arrays (one element for each
of many candidates) or tensors alike: the costs of a network, of a thousand widths of it,
and what a gradient flows through are one computation.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import larq as lq

from larq_nas.choices import at
from larq_nas.graph.calls import Call, needed_by
from larq_nas.graph.channels import channels_from, divide, latent
from larq_nas.graph.layers import Facts
from larq_nas.lce.fallback import is_binary
from larq_nas.lce.network import Network, merge_signs


@dataclass(frozen=True)
class Weights:
    """Number of weights of as many bits each."""

    count: Any
    bits: int


@dataclass(frozen=True)
class Counted:
    """What one call costs.

    # Arguments
        channels: number of channels of its output.
        macs: multiply-accumulates that are not binary.
        binary_macs: multiply-accumulates of binary inputs with binary weights.
        weights: its weights, by precision; none after the first call of a shared layer.
        kernel_weights: number of those that are in kernels.
    """

    channels: Any
    macs: Any = 0
    binary_macs: Any = 0
    weights: tuple[Weights, ...] = ()
    kernel_weights: Any = 0


def understand(calls: Sequence[Call]) -> Network:
    """Return `calls` with what their costs depend on.

    A layer whose weights are not what its kind would give is unknown: its weights are counted,
    its operations are not, and it is named.
    """
    calls = merge_signs(calls)
    network = Network(calls)
    checked, unknown = [], []
    # Of some calls, only the shape is read.
    computed = needed_by(
        (index for index, call in enumerate(calls) if call.output),
        lambda index: () if calls[index].facts.kind == "static" else calls[index].inputs,
    )
    for index, call in enumerate(calls):
        facts = call.facts
        counted = _count(network, index, [calls[i].shape[-1] for i in call.inputs], None)
        dropped = facts.folded * counted.channels + facts.stored
        # Those of the layer around it are counted here, but are none of its own.
        kept = sum(part.count for part in counted.weights)
        trained = kept - call.first * call.variables + call.first * dropped
        # A function has its kernel as a constant.
        sized = hasattr(call.layer, "symbol") or trained == call.first * _size(call.layer)
        if facts.kind == "unknown" or not sized:
            facts = Facts("unknown")
            unknown += [call.owner] if index in computed else []
        elif counted.channels != call.shape[-1]:  # such as a reshape, or concatenated rows
            facts = dataclasses.replace(facts, filters=call.shape[-1])
        checked.append(dataclasses.replace(call, facts=facts))
    return Network(checked, tuple(dict.fromkeys(unknown)))


def count(network: Network, answers: Mapping[str, Any] | None = None) -> list[Counted]:
    """Return what each call costs, of the widths in `answers` or those it was built with."""
    counted: list[Counted] = []
    for index, call in enumerate(network.calls):
        read = [counted[i].channels for i in call.inputs]
        counted.append(_count(network, index, read, answers))
    return counted


def _count(
    network: Network, index: int, read: Sequence[Any], answers: Mapping[str, Any] | None
) -> Counted:
    call, facts = network.calls[index], network.facts[index]
    if facts.filters is None:
        channels = channels_from(call, read, network.calls)
    else:
        channels = int(facts.filters) if answers is None else at(facts.filters, answers)
    weights = _weights(call, facts, read, channels) if call.first else ()
    macs = _macs(network, index, read[0] if read else 0, channels)
    binary = network.binary(index)
    return Counted(
        channels,
        macs=0 if binary else macs,
        binary_macs=macs if binary else 0,
        weights=tuple(weights),
        kernel_weights=sum(_kernels(facts, read, channels)) if call.first else 0,
    )


def _size(layer: Any) -> int:
    return sum(_numbers(weight) for weight in layer.weights)


def _macs(network: Network, index: int, inputs: Any, outputs: Any) -> Any:
    call, facts = network.calls[index], network.facts[index]
    if facts.kind in ("conv", "dense", "transposed"):
        transposed = facts.kind == "transposed"
        area = network.calls[call.inputs[0]].area if transposed else call.area
        return divide(area * facts.taps * inputs * outputs, facts.groups)
    if facts.kind == "depthwise":
        return call.area * facts.taps * outputs
    if facts.kind == "separable":
        return call.area * inputs * facts.multiplier * (facts.taps + outputs)
    return 0


def _weights(call: Call, facts: Facts, read: Sequence[Any], channels: Any) -> list[Weights]:
    own = [Weights(call.variables, 32)] if call.variables else []
    if facts.kind in ("unknown", "converted"):
        return [*own, *_weights_inside(call.layer)]
    weights = own + [
        Weights(kernel, bits)
        for kernel, bits in zip(_kernels(facts, read, channels), facts.kernel_bits, strict=False)
    ]
    vectors = facts.vectors + facts.bias
    if facts.vectors < 0:  # a slope for each position
        vectors = call.area
    return [*weights, Weights(vectors * channels, 32)] if vectors else weights


def _weights_inside(layer: Any) -> list[Weights]:
    """Return the weights of a layer that is one call, those of binary layers in it as bits."""
    binary = {
        id(latent(inner.kernel))
        for inner in layer._flatten_layers()
        if is_binary(inner) and isinstance(inner, lq.layers.QuantConv2D) and inner.built
    }
    packed = sum(_numbers(weight) for weight in layer.weights if id(weight) in binary)
    weights = [Weights(packed, 1), Weights(_size(layer) - packed, 32)]
    return [part for part in weights if part.count]


def _numbers(weight: Any) -> int:
    return int(weight.shape.num_elements())


def _kernels(facts: Facts, read: Sequence[Any], channels: Any) -> list[Any]:
    if facts.kind in ("conv", "dense", "transposed"):
        return [divide(facts.taps * read[0] * channels, facts.groups)]
    if facts.kind == "depthwise":
        return [facts.taps * channels]
    if facts.kind == "separable":
        inputs = read[0] * facts.multiplier
        return [facts.taps * inputs, inputs * channels]
    return []
