"""What a candidate is made of: one of several options for each choice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from larq_nas.errors import InputError

__all__ = ["Genes", "Genome"]

Genome = tuple[int, ...]
"""Which option of each gene, by its index."""


@dataclass(frozen=True)
class Genes:
    """The choices of a space, each with its options.

    # Arguments
        options: the options of each choice by its name, such as expansion ratios.
    """

    options: Mapping[str, tuple[float, ...]]

    @property
    def size(self) -> int:
        """Number of different candidates."""
        size = 1
        for options in self.options.values():
            size *= len(options)
        return size

    @property
    def counts(self) -> list[int]:
        """Number of options of each gene."""
        return [len(options) for options in self.options.values()]

    def random(self, rng: np.random.Generator) -> Genome:
        """Return a candidate drawn evenly."""
        return tuple(int(rng.integers(count)) for count in self.counts)

    def values(self, genome: Genome) -> dict[str, float]:
        """Return the option of each choice by name, as an `Architecture` holds them."""
        pairs = zip(self.options.items(), genome, strict=True)
        return {name: options[index] for (name, options), index in pairs}

    def genome(self, values: Mapping[str, float]) -> Genome:
        """Return the candidate of these options.

        # Raises
            InputError: if a choice has no such option.
        """
        found = []
        for name, options in self.options.items():
            if values.get(name) not in options:
                raise InputError(
                    f"Choice `{name}` has the options {', '.join(map(str, options))}, but got "
                    f"{values.get(name)!r}."
                )
            found.append(options.index(values[name]))
        return tuple(found)

    def smaller(self, genome: Sequence[int], rng: np.random.Generator) -> Genome:
        """Return `genome` with one gene at its next smaller option; unchanged if there is none."""
        ranked = [sorted(range(len(o)), key=lambda i: o[i]) for o in self.options.values()]
        places = [ranks.index(index) for ranks, index in zip(ranked, genome, strict=True)]
        movable = [gene for gene, place in enumerate(places) if place > 0]
        if not movable:
            return tuple(genome)
        gene = int(rng.choice(movable))
        changed = list(genome)
        changed[gene] = ranked[gene][places[gene] - 1]
        return tuple(changed)
