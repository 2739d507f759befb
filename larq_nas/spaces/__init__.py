"""Search spaces, by name or as a function of your own."""

from larq_nas.spaces.bats import Bats
from larq_nas.spaces.bnas import Bnas
from larq_nas.spaces.darts import Darts
from larq_nas.spaces.space import Space, SpaceFunction, SpaceLike, resolve

__all__ = ["Bats", "Bnas", "Darts", "Space", "SpaceFunction", "SpaceLike", "resolve"]
