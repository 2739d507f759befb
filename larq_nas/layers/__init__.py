"""Layers and blocks that search spaces are written with."""

from larq_nas.layers.binary_policy import (
    BINARY_SEARCH,
    DEPLOYED,
    REAL_WEIGHTS,
    SEARCH,
    Domain,
    building_in,
    current_domain,
)
from larq_nas.layers.blocks import (
    Activation,
    batch_norm,
    binary_conv,
    classifier,
    factorized_reduce,
    imagenet_stem,
    sign_conv,
    split_halves,
    stem,
)
from larq_nas.layers.conv import BinaryConv2D
from larq_nas.layers.drop_path import DropPath
from larq_nas.layers.mixture import Mixture, Probabilities
from larq_nas.layers.precision import ComputedIn, computing_in
from larq_nas.layers.scale import Scale
from larq_nas.layers.serialization import Functional
from larq_nas.layers.zeros import Zeros, concatenate

__all__ = [
    "BINARY_SEARCH",
    "DEPLOYED",
    "REAL_WEIGHTS",
    "SEARCH",
    "Activation",
    "BinaryConv2D",
    "ComputedIn",
    "Domain",
    "DropPath",
    "Functional",
    "Mixture",
    "Probabilities",
    "Scale",
    "Zeros",
    "batch_norm",
    "binary_conv",
    "building_in",
    "classifier",
    "computing_in",
    "concatenate",
    "current_domain",
    "factorized_reduce",
    "imagenet_stem",
    "sign_conv",
    "split_halves",
    "stem",
]
