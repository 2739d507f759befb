"""What the costs of a layer depend on."""

from dataclasses import dataclass

from larq_nas.cost.opaque import Opaque

__all__ = ["Facts"]


@dataclass(frozen=True)
class Facts:
    """What the costs of a layer depend on, besides its inputs.

    # Arguments
        kind: `"conv"`, `"dense"`, `"norm"`, `"add"` and so on; `"unknown"` for a layer whose
            operations cannot be counted, `"converted"` for one that multiplies by no kernel, and
            whose operations are found by converting it alone, `"static"` for what does not depend
            on the numbers it reads, such as their shape.
        filters: number of its output channels, if it sets it.
        taps: number of positions of its kernel.
        groups: groups of channels that do not mix.
        multiplier: outputs of a depthwise convolution for each of its inputs.
        bias: whether it adds a bias.
        vectors: number of its weights for each channel, besides kernel and bias.
        folded: how many more it trains with; a batch norm becomes a scale and an offset.
        stored: number of further weights that no deployed network has.
        kernel_bits: bits of a weight of its kernel; of its depthwise kernel and then its
            pointwise one, if it has both.
        kernel_scale: what its kernel quantizer gives: `"ones"` for -1 and 1, `"scaled"` for a scale
            times these in each filter, `"other"` for what no binary kernel computes.
        binary_inputs: whether it takes the sign of its inputs.
        sign_of_zero: what the sign that it takes, of its inputs or as a layer, gives for 0.
        turned: whether its input quantizer takes the sign of its inputs times -1.
        before_sign: the operations before the sign, of an input quantizer that takes the sign of
            something else than its inputs.
        constants: numbers in constants of its own, such as `t` in `x + t`.
        same: of a layer without weights its settings: of the same tensors, two layers of the
            same settings compute the same.
    """

    kind: str
    filters: int | None = None
    taps: int = 1
    groups: int = 1
    multiplier: int = 1
    bias: bool = False
    vectors: int = 0
    folded: int = 0
    stored: int = 0
    kernel_bits: tuple[int, ...] = (32,)
    kernel_scale: str = "ones"
    binary_inputs: bool = False
    sign_of_zero: int = 1
    turned: bool = False
    before_sign: Opaque | None = None
    constants: int = 0
    same: str = ""
