"""A network in the form that a paper counts, where that is not the one that is deployed."""

import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.choosers import Fix, Operations
from larq_nas.choosers.fix import zeros
from larq_nas.cost.conventions import CONVENTIONS, by_convention
from larq_nas.cost.profile import profile
from larq_nas.spaces.space import Space, resolve
from larq_nas.spaces.width import WidthSpace

__all__ = ["columns"]

_RATIOS = {"shen2019": ("flops", "speedup"), "dms": ("megabytes", "saving")}


class _Whole(Fix):
    """Answers with the chosen operations, and keeps what only a zero reads."""

    def _zero(self, x: tf.Tensor, operations: Operations, prefix: str) -> list[tf.Tensor]:
        return [zeros(x, operations, prefix, reads=x)]


def columns(
    convention: str,
    architecture: Architecture,
    space: Space,
    input_shape: tuple[int, int, int],
    classes: int,
) -> dict[str, float]:
    """Return a paper's columns for a network, in the form that the paper counts.

    Where the paper compares with the float twin, its column over this one is there too: the
    speedup, or the saving in memory.

    # Arguments
        convention: name of the convention.
        architecture: the network.
        space: the network's space.
        input_shape: `(height, width, channels)` of the images, in pixels.
        classes: number of classes.
    """
    counts = CONVENTIONS[convention]
    space = resolve(space, counts.settings.get(space.name))
    choose = _Whole(architecture.choices) if counts.whole else Fix(architecture.choices)
    found = by_convention(convention, profile(space.build(choose, input_shape, classes)))
    if isinstance(space, WidthSpace) and convention in _RATIOS:
        twin = resolve(space, {"precision": "real", "expansion": 1})
        model = twin.build(Fix({}), input_shape, classes)
        of_twin = by_convention(convention, profile(model))
        column, name = _RATIOS[convention]
        found[name] = of_twin[column] / found[column]
    return found
