"""Widths that are tied to each other, and widths that cannot change."""

from typing import TypeAlias

__all__ = ["Parts", "Widths"]

Parts: TypeAlias = list[tuple[int, int]]
"""The channels of a tensor, side by side: a width by its number, and how many times it."""


class Widths:
    """Numbered widths, some tied to each other, some fixed for a reason.

    # Attributes
        filters: each width, as it is in the model.
        reasons: of a width that stands for those tied to it, why they are fixed, if so.
    """

    def __init__(self) -> None:
        self.filters: list[int] = []
        self.reasons: list[str] = []
        self._parents: list[int] = []

    def add(self, filters: int, fixed: str = "") -> int:
        """Return the number of a new width."""
        self.filters.append(filters)
        self.reasons.append(fixed)
        self._parents.append(len(self._parents))
        return len(self._parents) - 1

    def root(self, number: int) -> int:
        """Return the width that stands for those tied to this one."""
        while self._parents[number] != number:
            number = self._parents[number]
        return number

    def tie(self, one: Parts, other: Parts, fixed: str) -> None:
        """Tie widths one by one, or fix all for the reason `fixed` if they do not match."""
        if self.sizes(one) != self.sizes(other):
            self.fix(one, fixed)
            self.fix(other, fixed)
            return
        for (a, _), (b, _) in zip(one, other, strict=True):
            first, second = sorted((self.root(a), self.root(b)))
            self._parents[second] = first
            self.reasons[first] = self.reasons[first] or self.reasons[second]

    def fix(self, parts: Parts, reason: str) -> None:
        """Fix widths and those tied to them; the first reason is kept."""
        for number, _ in parts:
            root = self.root(number)
            self.reasons[root] = self.reasons[root] or reason

    def sizes(self, parts: Parts) -> list[tuple[int, int]]:
        """Return the widths of `parts` in place of their numbers."""
        return [(self.filters[number], times) for number, times in parts]
