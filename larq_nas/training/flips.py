"""How many binary weights change their sign."""

import numpy as np
import tensorflow as tf

__all__ = ["FlipRatio"]


class FlipRatio(tf.keras.callbacks.Callback):
    """Reports `flip_ratio`: the share of binary weights whose sign an epoch has changed.

    Next to nothing flips where the learning rate is too low for signs to learn; all flips
    where it is so high that they cannot settle. Networks without binary weights have none.

    # References
        - [Latent Weights Do Not Exist](https://arxiv.org/abs/1906.02107)
    """

    def __init__(self) -> None:
        super().__init__()
        self._before: list[np.ndarray] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._before = self._signs()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if logs is None or not self._before:
            return
        pairs = zip(self._before, self._signs(), strict=True)
        flipped = sum(np.count_nonzero(before != after) for before, after in pairs)
        logs["flip_ratio"] = flipped / sum(before.size for before in self._before)

    def _signs(self) -> list[np.ndarray]:
        return [binary.numpy() >= 0 for binary in _binary_kernels(self.model)]


def _binary_kernels(model: tf.keras.Model) -> list[tf.Tensor]:
    """Return the binary weights of the layers that have them."""
    found = []
    for layer in model._flatten_layers(include_self=False):
        if hasattr(layer, "binary_kernels"):
            found += layer.binary_kernels()
        for kind in ("", "depthwise_", "pointwise_"):
            quantizer = getattr(layer, f"{kind or 'kernel_'}quantizer", None)
            if quantizer is not None and getattr(quantizer, "precision", 32) == 1:
                kernel = getattr(layer, f"{kind}kernel")
                latent = getattr(kernel, "latent_variable", kernel)
                found.append(quantizer(tf.convert_to_tensor(latent)))
    return found
