"""Search spaces of widths: an expansion ratio for each layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import tensorflow as tf

from larq_nas.choices import expand, require_ratios
from larq_nas.errors import InputError, unknown_name
from larq_nas.layers import batch_norm, binary_conv, current_domain, sign_conv
from larq_nas.layers.blocks import Binarization
from larq_nas.spaces.chooser import Chooser
from larq_nas.spaces.space import Precision, Space

__all__ = ["WidthSpace"]


OfNetwork: TypeAlias = Binarization | Literal["bats"]
"""How a network is binary: each of its convolutions, or as BATS makes any network binary."""

_BINARIZATIONS = (*get_args(Binarization), "bats")


@dataclass(frozen=True)
class WidthSpace(Space):
    """A fixed network of which the widths are open.

    # Arguments
        expansion: how many times its own width each layer gets: one ratio for all, one for
            each in the order of `layers`, or `None` to choose them by a search.
        ratios: the ratios to choose from.
        precision: `"binary"`, or `"real"` for the float twin; first and last layer are real.
        binarization: `"sign"`, `"dorefa"` as Shen et al. have it (Eq. 1), or `"dms"` as DMS does
            (Eq. 2), see `larq_nas.layers.sign_conv`; or `"bats"` (its section 3): batch norm, sign,
            convolution, a learned scale and PReLU, in that order.
    """

    expansion: float | tuple[float, ...] | None = None
    ratios: tuple[float, ...] = (0.25, 0.5, 1, 2, 3, 4)
    precision: Precision = "binary"
    binarization: OfNetwork = "sign"

    @property
    def layers(self) -> dict[str, int]:
        """Number of filters at ratio 1 of each layer whose width is open, by its name."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        if self.precision not in ("binary", "real"):
            raise unknown_name("precision", self.precision, ("binary", "real"))
        if self.binarization not in _BINARIZATIONS:
            raise unknown_name("binarization", self.binarization, _BINARIZATIONS)
        if not isinstance(self.ratios, tuple) or not self.ratios:
            raise InputError(f"`ratios` must be a list of numbers, but got {self.ratios!r}.")
        require_ratios("ratios", self.ratios)
        require_ratios("expansion", self._given() or ())
        if isinstance(self.expansion, tuple) and len(self.expansion) != len(self.layers):
            raise InputError(
                f"`expansion` must be one ratio, or {len(self.layers)} (for "
                f"{', '.join(self.layers)}), but got {len(self.expansion)}."
            )

    def widths(self, choose: Chooser) -> dict[str, int]:
        """Return the number of filters of each layer, by its name."""
        given = self._given()
        if given is None:
            return {
                name: choose.filters(name, filters, self.ratios)
                for name, filters in self.layers.items()
            }
        return {
            name: expand(filters, ratio)
            for (name, filters), ratio in zip(self.layers.items(), given, strict=True)
        }

    def _given(self) -> Sequence[float] | None:
        if self.expansion is None or isinstance(self.expansion, tuple):
            return self.expansion
        return [self.expansion] * len(self.layers)

    def first_conv(
        self, x: tf.Tensor, filters: int, kernel_size: int, name: str, strides: int = 1
    ) -> tf.Tensor:
        """Apply the real convolution of the images, and batch norm."""
        return self.activate(self.real_conv(x, filters, kernel_size, name, strides), name)

    def real_conv(
        self, x: tf.Tensor, filters: int, kernel_size: int, name: str, strides: int = 1
    ) -> tf.Tensor:
        """Apply a real convolution and batch norm."""
        x = tf.keras.layers.Conv2D(
            filters, kernel_size, strides, "same", use_bias=False, name=f"{name}_conv"
        )(x)
        return batch_norm(x, f"{name}_bn", affine=True)

    def conv(
        self, x: tf.Tensor, filters: int, name: str, kernel_size: int = 3, strides: int = 1
    ) -> tf.Tensor:
        """Apply a convolution and batch norm; of signs, if the network is binary."""
        if not self._binary():
            return self.real_conv(x, filters, kernel_size, name, strides)
        if self.binarization == "bats":
            return binary_conv(
                x,
                filters,
                kernel_size,
                name=name,
                strides=strides,
                activation="prelu",
                identity=False,
            )
        return sign_conv(
            x, filters, kernel_size, name=name, strides=strides, binarization=self.binarization
        )

    def activate(self, x: tf.Tensor, name: str) -> tf.Tensor:
        """Apply ReLU in the float twin; a binary network has its signs."""
        if self._binary():
            return x
        return tf.keras.layers.ReLU(name=f"{name}_relu")(x)

    def _binary(self) -> bool:
        # As BATS has it, the float twin is of the same layers, without signs.
        follows = self.binarization == "bats" or current_domain().activations == "binary"
        return self.precision == "binary" and follows
