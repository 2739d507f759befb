"""How wide a layer is: the question, and a width that remembers where it came from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from larq_nas.errors import InputError, require_whole

__all__ = ["Expansion", "Filters", "expand"]


def expand(filters: int, ratio: float) -> int:
    """Return `ratio` times `filters` as a whole number, at least 1."""
    return max(1, int(filters * ratio + 0.5))


@dataclass(frozen=True)
class Expansion:
    """How many times its own width a layer gets.

    # Arguments
        name: name of the choice; asked again, the same name has the same answer.
        filters: number of filters at ratio 1.
        ratios: the ratios to choose from.
    """

    name: str
    filters: int
    ratios: tuple[float, ...]

    def __post_init__(self) -> None:
        require_whole(**{f"filters of choice {self.name}": self.filters})
        if not self.ratios or any(not _is_ratio(ratio) for ratio in self.ratios):
            raise InputError(f"`ratios` must be positive, but got {self.ratios}.")
        if len(set(self.ratios)) < len(self.ratios):
            raise InputError(f"`ratios` must differ from each other, but got {self.ratios}.")

    @property
    def options(self) -> list[int]:
        """Number of filters for each ratio."""
        return [expand(self.filters, ratio) for ratio in self.ratios]

    def question(self) -> list[Any]:
        """Return what is asked, apart from the name, as a run's settings hold it."""
        return ["filters", self.filters, list(self.ratios)]

    def decode(self, value: object) -> float:
        """Return the ratio of a JSON `value`, or raise `InputError` if it is none of them."""
        for ratio in self.ratios:
            if not isinstance(value, bool | str) and ratio == value:
                return ratio
        raise InputError(
            f"Choice `{self.name}` expects a ratio of {', '.join(map(str, self.ratios))}, but "
            f"got {value!r}."
        )


def _is_ratio(ratio: object) -> bool:
    return isinstance(ratio, int | float) and not isinstance(ratio, bool) and 0 < ratio < 1e6


class Filters(int):
    """A number of filters that remembers which choice it came from.

    Layers keep it as they keep any whole number. It lets the costs of every other width be
    computed from one build of the network. Adding, multiplying and dividing whole numbers
    is remembered too; what turns it into a plain `int` is not.

    # Arguments
        value: the number of filters.
        at: returns the number for other answers, given them by the name of the choice.
    """

    at: Callable[[Mapping[str, Any]], Any]

    def __new__(cls, value: int, at: Callable[[Mapping[str, Any]], Any]) -> "Filters":
        filters = super().__new__(cls, value)
        filters.at = at
        return filters

    def __add__(self, other: int) -> "Filters":
        return self._with(other, lambda a, b: a + b)

    def __radd__(self, other: int) -> "Filters":
        return self._with(other, lambda a, b: b + a)

    def __sub__(self, other: int) -> "Filters":
        return self._with(other, lambda a, b: a - b)

    def __mul__(self, other: int) -> "Filters":
        return self._with(other, lambda a, b: a * b)

    def __rmul__(self, other: int) -> "Filters":
        return self._with(other, lambda a, b: b * a)

    def __floordiv__(self, other: int) -> "Filters":
        return self._with(other, lambda a, b: a // b)

    def _with(self, other: int, operation: Callable[[Any, Any], Any]) -> "Filters":
        if not isinstance(other, int):
            return NotImplemented
        value = operation(int(self), int(other))
        return Filters(value, lambda answers: operation(self.at(answers), at(other, answers)))


def at(filters: int, answers: Mapping[str, Any]) -> Any:
    """Return `filters` for other answers; a plain number stays as it is."""
    return filters.at(answers) if isinstance(filters, Filters) else filters
