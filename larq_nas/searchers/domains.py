"""Whether a supernet is as binary as it was asked to be."""

from collections.abc import Iterator

import tensorflow as tf

from larq_nas.errors import InputError
from larq_nas.fused import FusedCell

__all__ = ["require_domain"]

_QUANTIZERS = {"weights": "kernel_quantizer", "activations": "input_quantizer"}


def require_domain(supernet: tf.keras.Model, **asked: str | None) -> None:
    """Raise `InputError` for a supernet that is not built in the domain that was given.

    # Arguments
        supernet: the network.
        **asked: `weights` and `activations`, each `"binary"`, `"real"` or `None` for any.
    """
    for name, wanted in asked.items():
        binary = [layer.name for layer in _quantized(supernet, _QUANTIZERS[name])]
        if wanted == "real" and binary:
            raise InputError(
                f'`{name}` cannot be "real" in this space: layer `{binary[0]}` stays binary; build '
                "it of the blocks of larq_nas.layers."
            )
        if wanted == "binary" and not binary:
            raise InputError(
                f'`{name}` cannot be "binary" in this space, which has real ones alone: search it '
                'with precision="binary".'
            )


def _quantized(supernet: tf.keras.Model, attribute: str) -> Iterator[tf.keras.layers.Layer]:
    """Yield the layers that have a quantizer, those inside of fused cells too."""
    for layer in supernet._flatten_layers(include_self=False):
        inside = layer.plan.prototypes.values() if isinstance(layer, FusedCell) else ()
        for one in (layer, *inside):
            if getattr(one, attribute, None) is not None:
                yield one
