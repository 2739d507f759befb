"""Which layers of a supernet are binary."""

from collections.abc import Iterator

import tensorflow as tf

from larq_nas.fused import FusedCell

__all__ = ["quantized"]


def quantized(supernet: tf.keras.Model, attribute: str) -> Iterator[tf.keras.layers.Layer]:
    """Yield the layers that have a quantizer, those inside of fused cells too.

    # Arguments
        supernet: the network.
        attribute: the quantizer, such as `"input_quantizer"`.
    """
    for layer in supernet._flatten_layers(include_self=False):
        inside = layer.plan.prototypes.values() if isinstance(layer, FusedCell) else ()
        for one in (layer, *inside):
            if getattr(one, attribute, None) is not None:
                yield one
