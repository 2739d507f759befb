"""Questions that a search space asks about operations and widths, and their values."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any, TypeAlias

import numpy as np

from larq_nas.errors import (
    InputError,
    is_number,
    require_at_most,
    require_known,
    require_whole,
    use_plain_numbers,
)

Pair = tuple[str, int]
"""An operation and the index of the input it reads."""

Value = str | list[list[str | int]] | int | float
"""What JSON holds: an operation's name, a list of `[operation, input]`, a depth, or a ratio."""

Parameter: TypeAlias = str | int | float
"""A scalar that a value is made of, as keras-tuner and tables hold it."""


Chosen: TypeAlias = Mapping[str, Sequence[Pair]]
"""Operations and inputs of each choice."""

Scores: TypeAlias = Mapping[str, np.ndarray]
"""How good each `(input, operation)` of each choice is."""


@dataclass(frozen=True)
class Choice:
    """Which operation on which inputs.

    # Arguments
        name: name of the choice, `"group/rest"` or just `"group"`.
        operations: names of the operations, in the order of `alpha`'s columns.
        inputs: number of inputs to choose from.
        keep: number of inputs that the chosen network keeps.
        zeros: the operations that compute nothing.
        parameter_free: operations and inputs without trainable weights, such as pooling.
        keep_zero: whether zero competes, and stays in the chosen network, as in BNAS.
    """

    name: str
    operations: tuple[str, ...]
    inputs: int = 1
    keep: int = 1
    zeros: frozenset[str] = frozenset()
    parameter_free: frozenset[Pair] = frozenset()
    keep_zero: bool = False

    @property
    def group(self) -> str:
        """The part of the name that choices of one kind of cell have in common."""
        return self.name.split("/")[0]

    def question(self) -> list[Any]:
        """Return what is asked, apart from the name, as a run's settings hold it."""
        asked = [list(self.operations), self.inputs, self.keep]
        return [*asked, "keep_zero"] if self.keep_zero else asked

    @property
    def keeps_zero(self) -> bool:
        """Whether the chosen network may hold an operation that computes nothing."""
        return self.keep_zero and bool(self.zeros)

    @property
    def eligible(self) -> tuple[str, ...]:
        """The operations that the chosen network may hold."""
        return tuple(name for name in self.operations if self.keep_zero or name not in self.zeros)

    def strongest(self, probabilities: np.ndarray) -> list[Pair]:
        """Return the best operation on each of the `keep` strongest inputs; zero only if kept.

        Probabilities are of shape `(inputs, operations)`.
        """
        scores = np.array(probabilities, dtype=np.float64)
        scores[:, [name not in self.eligible for name in self.operations]] = -np.inf
        best = scores.max(axis=1)
        kept = sorted(np.argsort(-best, kind="stable")[: self.keep])
        return [(self.operations[int(scores[i].argmax())], int(i)) for i in kept]

    def any(self) -> list[Pair]:
        """Return a choice that can be made: the first operation on the first inputs."""
        name = next(name for name in self.operations if name not in self.zeros)
        return [(name, index) for index in range(min(self.keep, self.inputs))]

    def one_hot(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Return 1 for each of `pairs` and 0 for the others, shape `(inputs, operations)`."""
        matrix = np.zeros((self.inputs, len(self.operations)), dtype=np.float32)
        for operation, index in pairs:
            matrix[index, self.operations.index(operation)] = 1
        return matrix

    def encode(self, pairs: Sequence[Pair]) -> Value:
        """Return `pairs` as JSON holds them."""
        if self.inputs == self.keep == 1 and len(pairs) == 1:
            return pairs[0][0]
        return [[operation, index] for operation, index in pairs]

    def decode(self, value: object) -> list[Pair]:
        """Return the pairs of a JSON `value`, or raise `InputError` if it does not fit."""
        entries = [[value, 0]] if isinstance(value, str) else value
        if not isinstance(entries, list | tuple) or len(entries) != min(self.keep, self.inputs):
            raise self._misfit(value)
        return [self._decode_pair(entry) for entry in entries]

    def _decode_pair(self, entry: object) -> Pair:
        if not isinstance(entry, list | tuple) or len(entry) != 2:
            raise self._misfit(entry)
        operation, index = entry
        require_known(f"operation for choice `{self.name}`", operation, self.operations)
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < self.inputs:
            raise InputError(
                f"Choice `{self.name}` has inputs 0 to {self.inputs - 1}, but got {index!r}."
            )
        return operation, index

    def parameters(self) -> dict[str, tuple[Parameter, ...]]:
        """Return the scalars that a value is made of by name, each with its options.

        Of one operation on one input it is the operation. Of a node they are the inputs, such as
        `"0,2"`, where there are others to choose, and an operation on each.
        """
        if self.inputs == self.keep == 1:
            return {self.name: self.eligible}
        slots = min(self.keep, self.inputs)
        options = [",".join(map(str, one)) for one in combinations(range(self.inputs), slots)]
        of_inputs = {f"{self.name}/inputs": tuple(options)} if len(options) > 1 else {}
        return {
            **of_inputs,
            **{f"{self.name}/operation{slot}": self.eligible for slot in range(slots)},
        }

    def value(self, parameters: Mapping[str, Any]) -> Value:
        """Return the value made of these scalars, as JSON holds it; others may be among them."""
        if self.inputs == self.keep == 1:
            return self.encode([(parameters[self.name], 0)])
        slots = range(min(self.keep, self.inputs))
        given = parameters.get(f"{self.name}/inputs", ",".join(map(str, slots)))
        indices = map(int, given.split(","))
        return self.encode(
            [
                (parameters[f"{self.name}/operation{slot}"], i)
                for slot, i in zip(slots, indices, strict=True)
            ]
        )

    def of_value(self, value: object) -> dict[str, Parameter]:
        """Return the scalars that a JSON value is made of, or raise `InputError` if it is none."""
        pairs = sorted(self.decode(value), key=lambda pair: pair[1])
        if self.inputs == self.keep == 1:
            return {self.name: pairs[0][0]}
        indices = ",".join(str(index) for _, index in pairs)
        is_open = f"{self.name}/inputs" in self.parameters()
        # The one way to read all inputs is no parameter; to read one of them twice is another.
        is_other = indices != ",".join(map(str, range(len(pairs))))
        return {
            **({f"{self.name}/inputs": indices} if is_open or is_other else {}),
            **{f"{self.name}/operation{slot}": name for slot, (name, _) in enumerate(pairs)},
        }

    def _misfit(self, value: object) -> InputError:
        pairs = f"{min(self.keep, self.inputs)} pairs [operation, input]"
        form = "an operation's name" if self.inputs == 1 else pairs
        return InputError(f"Choice `{self.name}` expects {form}, but got {value!r}.")


@dataclass(frozen=True)
class Depth(Choice):
    """How many of a row of blocks are there: each number is an operation on one input."""

    @classmethod
    def between(cls, name: str, least: int, most: int) -> "Depth":
        """Return the choice of `least` to `most` blocks."""
        return cls(name, tuple(str(number) for number in range(least, most + 1)))

    def question(self) -> list[Any]:
        return ["depth", int(self.operations[0]), int(self.operations[-1])]

    def encode(self, pairs: Sequence[Pair]) -> Value:
        return int(pairs[0][0])

    def decode(self, value: object) -> list[Pair]:
        least, most = int(self.operations[0]), int(self.operations[-1])
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise InputError(
                f"Choice `{self.name}` expects a number of blocks, {least} to {most}, but got "
                f"{value!r}."
            )
        return [(str(value), 0)]

    def parameters(self) -> dict[str, tuple[Parameter, ...]]:
        return {self.name: tuple(int(number) for number in self.operations)}

    def value(self, parameters: Mapping[str, Any]) -> Value:
        return int(parameters[self.name])

    def of_value(self, value: object) -> dict[str, Parameter]:
        ((number, _),) = self.decode(value)
        return {self.name: int(number)}


def strongest(choices: Mapping[str, Choice], scores: Scores) -> dict[str, list[Pair]]:
    """Return the strongest operations and inputs of each choice."""
    return {name: choice.strongest(scores[name]) for name, choice in choices.items()}


def share_parameter_free(choices: Mapping[str, Choice], chosen: Chosen) -> float:
    """Return the share of chosen operations that have no trainable weights."""
    free = [pair in choices[name].parameter_free for name in chosen for pair in chosen[name]]
    return float(np.mean(free or [False]))


def share_zero(choices: Mapping[str, Choice], chosen: Chosen) -> float:
    """Return the share of chosen operations that are zero."""
    zero = [operation in choices[name].zeros for name in chosen for operation, _ in chosen[name]]
    return float(np.mean(zero or [False]))


_MOST = 64
_MOST_CHANNELS = 2**16


def expand(filters: int, ratio: float, multiple_of: int = 1) -> int:
    """Return the multiple of a number nearest to `ratio` times `filters`, at least that number."""
    return multiple_of * max(1, int(filters * ratio / multiple_of + 0.5))


@dataclass(frozen=True)
class Expansion:
    """How many times its own width, `filters`, a layer gets: one of `ratios`.

    Widths are rounded to multiples of `multiple_of`.
    """

    name: str
    filters: int
    ratios: tuple[float, ...]
    multiple_of: int = 1

    def __post_init__(self) -> None:
        use_plain_numbers(self)
        require_whole(**{f"filters of choice {self.name}": self.filters})
        require_multiple(self.multiple_of)
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
        return [self.width(ratio) for ratio in self.ratios]

    def width(self, ratio: float) -> int:
        """Return the number of filters at `ratio`."""
        return expand(self.filters, ratio, self.multiple_of)

    def question(self) -> list[Any]:
        """Return what is asked, apart from the name, as a run's settings hold it."""
        asked = ["filters", self.filters, list(self.ratios)]
        return asked if self.multiple_of == 1 else [*asked, self.multiple_of]

    def decode(self, value: object) -> float:
        """Return the ratio of a JSON `value`, or raise `InputError` if it is none.

        It need not be one of `ratios`, which are those that a search by sampling tries.
        """
        if not is_number(value) or not 1 <= self.filters * value <= _MOST_CHANNELS:
            raise InputError(
                f"Choice `{self.name}` expects a ratio that leaves it a channel or more, up to "
                f"{_MOST_CHANNELS:,}, but got {value!r}."
            )
        return value

    def parameters(self) -> dict[str, tuple[Parameter, ...]]:
        """Return the ratios that give different widths, the first of each, as floats."""
        first: dict[int, float] = {}
        for ratio in self.ratios:
            first.setdefault(self.width(ratio), float(ratio))
        return {self.name: tuple(first.values())}

    def value(self, parameters: Mapping[str, Any]) -> Value:
        """Return the ratio among these scalars."""
        return float(parameters[self.name])

    def of_value(self, value: object) -> dict[str, Parameter]:
        """Return the ratio of a JSON value: of those in `parameters`, the one of the same width.

        One that gives a width of its own stays as it is.
        """
        ratio = self.decode(value)
        alike = [one for one in self.ratios if self.width(one) == self.width(ratio)]
        return {self.name: float(alike[0] if alike else ratio)}


def require_ratios(name: str, ratios: Sequence[float]) -> None:
    """Raise `InputError` for a ratio that is no number above 0 and up to 64."""
    for ratio in ratios:
        if not is_number(ratio) or not 0 < ratio <= _MOST:
            raise InputError(f"`{name}` must be positive, up to {_MOST}, but got {ratio!r}.")


def require_multiple(multiple_of: int) -> None:
    """Raise `InputError` for what widths cannot be multiples of."""
    require_whole(multiple_of=multiple_of)
    require_at_most(_MOST_CHANNELS, multiple_of=multiple_of)


class Filters(int):
    """A number of filters that remembers which choice it came from.

    Layers keep it as they keep any whole number. It lets the costs of every other width be
    computed from one build of the network. `+`, `-`, `*` and `//` with whole numbers are
    remembered too; what turns it into a plain `int` is not.
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

    __radd__ = __add__

    def __sub__(self, other: int) -> "Filters":
        return self._with(other, lambda a, b: a - b)

    def __rsub__(self, other: int) -> "Filters":
        return self._with(other, lambda a, b: b - a)

    def __mul__(self, other: int) -> "Filters":
        return self._with(other, lambda a, b: a * b)

    __rmul__ = __mul__

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


@dataclass(frozen=True)
class Cell:
    """How the choices of a kind of cell hang together.

    `inputs` is their number, the first of the states; `questions` are the choices of the nodes, by
    their indices among the states, of which those of `concat` are concatenated.
    """

    name: str
    inputs: int
    questions: Mapping[int, str]
    concat: tuple[int, ...]


@dataclass(frozen=True)
class Revival:
    """One pair of a choice replaced, so that a cell is no longer zero on every path.

    `pairs` is what is chosen then, `pair` the one that is new, and `gain` by how much the sum of
    scores grows.
    """

    cell: str
    choice: str
    pairs: list[Pair]
    pair: Pair
    gain: float


def all_alive(cells: Iterable[Cell], choices: Mapping[str, Choice], chosen: Chosen) -> bool:
    """Return whether each kind of cell has a path that is not zero."""
    return all(_is_alive(cell, choices, chosen) for cell in cells)


def revive(
    cells: Iterable[Cell], choices: Mapping[str, Choice], scores: Scores, chosen: Chosen
) -> tuple[Chosen, list[Revival]]:
    """Return `chosen` with one operation changed in each cell that is zero on every path.

    Of all changes that bring such a cell to life, it is the one that costs least score, by scores
    of shape `(inputs, operations)`. What was changed is returned too.
    """
    changes: list[Revival] = []
    for cell in cells:
        if not _is_alive(cell, choices, chosen):
            best = max(revivals(cell, choices, scores, chosen), key=lambda way: way.gain)
            chosen = {**chosen, best.choice: best.pairs}
            changes.append(best)
    return chosen, changes


def _is_alive(cell: Cell, choices: Mapping[str, Choice], chosen: Chosen) -> bool:
    return not _alive(cell, choices, chosen).isdisjoint(cell.concat)


def _alive(cell: Cell, choices: Mapping[str, Choice], chosen: Chosen) -> set[int]:
    """Return the states of a cell that depend on its inputs."""
    alive = set(range(cell.inputs))
    for node, name in cell.questions.items():
        zeros = choices[name].zeros
        if any(operation not in zeros and index in alive for operation, index in chosen[name]):
            alive.add(node)
    return alive


def revivals(
    cell: Cell, choices: Mapping[str, Choice], scores: Scores, chosen: Chosen
) -> Iterator[Revival]:
    """Yield each change of one pair that gives life. There are some: any node may read an input."""
    alive = _alive(cell, choices, chosen)
    for name in cell.questions.values():
        choice, old = choices[name], chosen[name]
        before = _total(choice, scores[name], old)
        lively = [operation for operation in choice.operations if operation not in choice.zeros]
        indices = sorted(alive & set(range(choice.inputs)))
        for pair, pairs in exchanges(old, lively, indices):
            if _is_alive(cell, choices, {**chosen, name: pairs}):
                gain = _total(choice, scores[name], pairs) - before
                yield Revival(cell.name, name, pairs, pair, gain)


def exchanges(
    pairs: Sequence[Pair], operations: Iterable[str], indices: Sequence[int]
) -> Iterator[tuple[Pair, list[Pair]]]:
    """Yield each other pair that one of `pairs` can be exchanged for, and the pairs then.

    Each of `pairs` is on an input of its own; the new one is of `operations` and `indices`.
    """
    for slot, operation in product(range(len(pairs)), operations):
        others = [pair for number, pair in enumerate(pairs) if number != slot]
        taken = {index for _, index in others}
        for index in indices:
            new = operation, index
            if index not in taken and new != pairs[slot]:
                yield new, sorted([*others, new], key=lambda pair: pair[1])


def _total(choice: Choice, scores: np.ndarray, pairs: Sequence[Pair]) -> float:
    return float(sum(scores[index, choice.operations.index(name)] for name, index in pairs))
