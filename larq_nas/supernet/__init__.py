"""Supernets: all networks of a search space in one, as searches train them."""

from larq_nas.supernet.fuse import Fuse
from larq_nas.supernet.relax import Relax

__all__ = ["Fuse", "Relax"]
