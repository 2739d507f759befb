"""Whether a layer gives the channels it reads, however many they are."""

import tensorflow as tf

from larq_nas.cost.graph import Call
from larq_nas.spaces.rebuild import call_again, copy

__all__ = ["times_passed"]

_PASSING = (
    "activation",
    "average_pool",
    "composite",
    "crop",
    "global_average_pool",
    "global_max_pool",
    "max_pool",
    "norm",
    "offset",
    "pad",
    "pass",
    "prelu",
    "relu",
    "resize",
    "scale",
    "sign",
)


def times_passed(call: Call, read: tuple[int, ...]) -> int:
    """Return how many channels a layer makes of each that it reads.

    # Arguments
        call: the only call of the layer, or one of several.
        read: shape of what it reads, without the batch.

    # Returns
        A whole number; 0 if it does not go for other numbers of channels.
    """
    if call.facts.kind == "depthwise":
        return call.facts.multiplier
    times, rest = divmod(call.shape[-1], read[-1])
    if rest:
        return 0
    if call.facts.kind == "reshape" and _keeps_last_axis(call.layer):
        return times
    known = call.facts.kind in _PASSING and _is_plain(call.layer)
    return int(times == 1 and (known or _keeps_any_width(call, read)))


def _keeps_last_axis(layer: tf.keras.layers.Layer) -> bool:
    if isinstance(layer, tf.keras.layers.Permute):
        return layer.dims[-1] == len(layer.dims)
    return isinstance(layer, tf.keras.layers.Flatten | tf.keras.layers.Reshape)


def _is_plain(layer: tf.keras.layers.Layer) -> bool:
    """Return whether a layer holds no numbers for each channel but its weights."""
    return not isinstance(layer, tf.keras.layers.Rescaling) and not hasattr(layer, "symbol")


def _keeps_any_width(call: Call, read: tuple[int, ...]) -> bool:
    """Try other widths: what a layer that is not known does cannot be read off it."""
    for channels in (read[-1] + 1, 2 * read[-1]):
        image = tf.keras.Input((*read[:-1], channels))
        try:
            (outputs,) = call_again(copy(call, {}), call, [image])
        except Exception:  # noqa: BLE001 - a layer of someone else may raise anything
            return False
        if tuple(outputs.shape[1:]) != (*call.shape[:-1], channels):
            return False
    return True
