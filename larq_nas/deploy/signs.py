"""Survey the numbers of which a model takes signs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_nas.deploy.recording import LayerCall, watch
from larq_nas.deploy.rewriting import Lowered
from larq_nas.graph.quantizers import zero_one

_BATCH = 32
# Of a number: what a straight-through estimator written as x + (sign(x) - x) leaves to rounding.
_ROUNDING = 1e-5


@dataclass
class Signs:
    """What a binary layer takes the sign of, over all images.

    # Arguments
        layer: the layer.
        quantizer: what takes the sign: the layer's input quantizer, or the layer itself.
        channels: number of its channels.
        negative: for each channel whether a number was negative; for inputs of 0 and 1, 0.
        positive: for each channel whether one was not.
        other: for each channel whether one was not 0.
        wrong: number of inputs that the layer's quantizer does not turn into a sign.
        negative_zeros: how many numbers were -0.0.
        numbers: how many there were.
    """

    layer: tf.keras.layers.Layer
    quantizer: Any
    channels: int
    negative: np.ndarray = field(repr=False)
    positive: np.ndarray = field(repr=False)
    other: np.ndarray = field(repr=False)
    wrong: int = 0
    negative_zeros: int = 0
    numbers: int = 0

    @property
    def zero(self) -> int:
        """Number of channels that are always 0."""
        return int(np.sum(~self.other))

    @property
    def constant(self) -> int:
        """Number of channels whose sign never changes, though they are not always 0."""
        return int(np.sum(self.other & ~(self.negative & self.positive)))

    def add(self, numbers: np.ndarray, quantized: np.ndarray) -> None:
        """Count the inputs of one call."""
        levels = zero_one(self.quantizer)
        height, threshold = levels or (1.0, 0.0)
        negative = numbers <= threshold if levels else numbers < 0
        # A sign may be that of another number than 0, such as of x + 0.25.
        made = np.where(negative, 0.0, height) if levels else np.sign(quantized)
        excess = np.abs(made - quantized) > _ROUNDING * (1 + np.abs(numbers))
        rows = negative.reshape(-1, self.channels)
        self.negative |= rows.any(axis=0)
        self.positive |= (~rows).any(axis=0)
        self.other |= numbers.reshape(-1, self.channels).any(axis=0)
        self.wrong += int(np.sum(excess | (made == 0) & (levels is None)))
        self.negative_zeros += int(np.sum((numbers == 0) & np.signbit(numbers)))
        self.numbers += numbers.size


def sign_warnings(signs: Sequence[Signs]) -> list[str]:
    """Return warnings of channels before a sign that are the same for all images."""
    lines, some = [], []
    for sign in signs:
        name = sign.layer.name
        if sign.zero:
            lines.append(
                f"`{name}` takes the sign of {sign.zero} of {sign.channels} "
                "channels that are always 0: each counts as +1. Zeros before a sign (of a mask, or "
                "of a cell's zero operations) remove no channel: if that is not meant, put them "
                "behind the sign, or build the network with fewer channels"
            )
        if sign.constant and sign.constant + sign.zero == sign.channels:
            lines.append(
                f"`{name}` gives one output for every image: the {sign.numbers:,} numbers that it "
                "takes the sign of never change sign; shift them before the sign (a batch norm, "
                "or inputs of -1 to 1), or train the network anew"
            )
        elif sign.constant:
            share = sign.constant / sign.channels
            some.append(f"`{name}` {sign.constant} of {sign.channels} channels ({share:.0%})")
    if some:
        lines.append(
            "inputs of binary layers that never change sign on these images, and so carry nothing "
            f"of an image: {', '.join(some)}"
        )
    return lines


def survey_signs(
    lowered: Lowered, images: Sequence[np.ndarray]
) -> tuple[list[Signs], list[np.ndarray]]:
    """Return what the layers of a model take the sign of, and its outputs.

    # Returns
        `Signs` of each layer that has an input quantizer, or is a sign, and one array for each
        output of the model.
    """
    found: dict[int, Signs] = {}
    outputs: list[list[np.ndarray]] = []
    # Of a sign that several functions compute, the last one does not read the number itself.
    signs = {
        id(call.layer)
        for call in lowered.calls
        if call.facts.kind == "sign" and not hasattr(call.layer, "symbol")
    }

    def count(call: LayerCall) -> None:
        own = getattr(call.layer, "input_quantizer", None)
        if call.inputs and own is not None:
            _count(found, call.layer, own, call.inputs[0])
        elif call.inputs and id(call.layer) in signs:
            # Its recorded output: one more call would be recorded, too.
            _count(found, call.layer, lambda x: call.outputs[0], call.inputs[0])

    for start in range(0, len(images[0]), _BATCH):
        batch = [image[start : start + _BATCH] for image in images]
        outputs.append([output.numpy() for output in watch(lowered.model, batch, count)])
    whole = [np.concatenate(parts) for parts in zip(*outputs, strict=True)]
    return list(found.values()), whole


def _count(
    found: dict[int, Signs], layer: tf.keras.layers.Layer, quantizer: Any, tensor: tf.Tensor
) -> None:
    numbers = tensor.numpy()
    channels = numbers.shape[-1]
    if id(layer) not in found:
        negative, positive, other = np.zeros((3, channels), bool)
        found[id(layer)] = Signs(layer, quantizer, channels, negative, positive, other)
    exact = isinstance(quantizer, lq.quantizers.SteSign)
    quantized = np.where(numbers < 0, -1.0, 1.0) if exact else quantizer(tensor)
    found[id(layer)].add(numbers, np.asarray(quantized))
