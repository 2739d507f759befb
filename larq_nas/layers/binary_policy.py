"""Which tensors of a network are binary while it is built."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Domain:
    """What the blocks of `larq_nas.layers` build: the same network, more or less binary.

    Spaces need not know of it: the same `build` gives the supernet, the network that is
    trained with real weights, and the binary one that is deployed.

    # Arguments
        activations: `"binary"`, or `"real"`: for the float twin that DMS starts ResNets from
            (appendix B.2.2), and the searches that BATS compares with (Table 4).
        weights: `"binary"`, or `"real"` as BATS searches and pretrains (section 4.3).
        affine: whether batch normalization learns a scale and an offset. Off in a search,
            so that no operation is preferred for the size of its output.
        preprocess: `"real"` where the convolutions that bring a cell's inputs to its width
            have real weights and activations, as in the search of BNAS.
        drop_path: whether operations of a cell can be dropped at random; see `DropPath`.
        auxiliary: whether networks of cells have a second output, of an auxiliary classifier.
        pool_norm: whether batch normalization follows the pools of a cell, as in the
            searches of DARTS and BNAS.
        shared_norms: whether all binary convolutions that read one tensor read it through one
            batch normalization, and so take its signs once. Not where it learns nothing.
        positive_scales: whether batch normalization before signs holds its scales above 0: then
            Larq Compute Engine adds an offset alone.
    """

    weights: Literal["binary", "real"] = "binary"
    affine: bool = True
    preprocess: Literal["binary", "real"] = "binary"
    pool_norm: bool = False
    drop_path: bool = False
    auxiliary: bool = False
    activations: Literal["binary", "real"] = "binary"
    shared_norms: bool = False
    positive_scales: bool = False


SEARCH = Domain(weights="real", affine=False)
"""A supernet of BATS: real weights, batch norm without scale and offset."""

BINARY_SEARCH = Domain(affine=False, preprocess="real", pool_norm=True)
"""A supernet of BNAS: binary weights, real convolutions at a cell's inputs, norms behind pools."""

REAL_WEIGHTS = Domain(weights="real")
"""The first stage of a training in two: real weights and binary activations."""

FLOAT = Domain(weights="real", activations="real")
DEPLOYED = Domain()
"""The network that is deployed: binary weights and activations."""

_current: ContextVar[Domain] = ContextVar("larq_nas_domain", default=DEPLOYED)


def current_domain() -> Domain:
    """Return the domain that blocks are built in at this moment."""
    return _current.get()


@contextmanager
def building_in(domain: Domain) -> Iterator[None]:
    """Build in `domain` within a `with` block.

    !!! example
        ```python
        with larq_nas.layers.building_in(larq_nas.layers.REAL_WEIGHTS):
            model = architecture.build((32, 32, 3), classes=10)
        ```

    # Arguments
        domain: what the blocks called inside will build.
    """
    token = _current.set(domain)
    try:
        yield
    finally:
        _current.reset(token)
