"""Search spaces, by name or as a function of your own."""

from larq_nas.spaces.bats import Bats
from larq_nas.spaces.bnas import Bnas
from larq_nas.spaces.chooser import Chooser, Fix, Sample, Survey, Widest
from larq_nas.spaces.darts import Darts
from larq_nas.spaces.model_widths import ModelWidths
from larq_nas.spaces.space import (
    FunctionSpace,
    Space,
    SpaceFunction,
    SpaceLike,
    is_built_in,
    names,
    resolve,
)
from larq_nas.spaces.width_space import ResNet18, ResNet18Cifar, Vgg11, VggSmall, WidthSpace

__all__ = [
    "Bats",
    "Bnas",
    "Chooser",
    "Darts",
    "Fix",
    "FunctionSpace",
    "ModelWidths",
    "ResNet18",
    "ResNet18Cifar",
    "Sample",
    "Space",
    "SpaceFunction",
    "SpaceLike",
    "Survey",
    "Vgg11",
    "VggSmall",
    "Widest",
    "WidthSpace",
    "is_built_in",
    "names",
    "resolve",
]
