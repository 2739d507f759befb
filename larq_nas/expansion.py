"""How wide a layer is: the question, and a width that remembers where it came from."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from larq_nas.errors import InputError, require_whole

__all__ = ["Expansion", "Filters", "at", "expand", "require_ratios"]

_MOST = 64


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
        if not self.ratios:
            raise InputError(f"`ratios` of choice `{self.name}` must hold one, but is empty.")
        require_ratios("ratios", self.ratios)
        for ratio in self.ratios:
            if self.filters * ratio < 1:
                raise InputError(
                    f"Each of `ratios` must leave choice `{self.name}` one channel or more, but "
                    f"it has {self.filters}, and got {ratio}."
                )
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
        """Return the ratio of a JSON `value`, or raise `InputError` if it is none.

        It need not be one of `ratios`, which are those that a search by sampling tries.
        """
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 1 / self.filters <= value < math.inf:  # type: ignore[operator]
            raise InputError(
                f"Choice `{self.name}` expects a ratio that leaves it a channel or more, but got "
                f"{value!r}."
            )
        return value  # type: ignore[return-value]


def require_ratios(name: str, ratios: Sequence[float]) -> None:
    """Raise `InputError` for a ratio that is no number above 0 and up to 64."""
    for ratio in ratios:
        number = isinstance(ratio, int | float) and not isinstance(ratio, bool)
        if not number or not 0 < ratio <= _MOST:
            raise InputError(f"`{name}` must be positive, up to {_MOST}, but got {ratio!r}.")


class Filters(int):
    """A number of filters that remembers which choice it came from.

    Layers keep it as they keep any whole number. It lets the costs of every other width be
    computed from one build of the network. `+`, `-`, `*` and `//` with whole numbers are
    remembered too; what turns it into a plain `int` is not.

    # Arguments
        value: the number of filters.
        at: returns the number for other answers, given them by the name of the choice.
    """

    at: Callable[[Mapping[str, Any]], Any]

    def __new__(cls, value: int, at: Callable[[Mapping[str, Any]], Any]) -> "Filters":
        filters = super().__new__(cls, value)
        filters.at = at
        return filters

    def __deepcopy__(self, memo: Any) -> "Filters":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (int(self),)

    def __add__(self, other: int) -> "Filters":
        return self._with(other, lambda a, b: a + b)

    def __radd__(self, other: int) -> "Filters":
        return self._with(other, lambda a, b: b + a)

    def __sub__(self, other: int) -> "Filters":
        return self._with(other, lambda a, b: a - b)

    def __rsub__(self, other: int) -> "Filters":
        return self._with(other, lambda a, b: b - a)

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
