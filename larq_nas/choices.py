"""A question a search space asks, and the values that answer it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from larq_nas.errors import InputError, unknown_name

__all__ = ["Choice", "Pair", "Value", "share_parameter_free", "share_zero"]

Pair = tuple[str, int]
"""An operation and the index of the input it reads."""

Value = str | list[list[str | int]] | float
"""What JSON holds: an operation's name, a list of `[operation, input]`, or a ratio."""


@dataclass(frozen=True)
class Choice:
    """Which operation on which inputs.

    # Arguments
        name: name of the choice, `"group/rest"` or just `"group"`; asked again, the same
            name has the same answer.
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
        """Return the best operation on each of the `keep` strongest inputs.

        Zero is excluded, unless it is kept.

        # Arguments
            probabilities: weight of each operation on each input, shape
                `(inputs, operations)`.
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
        if operation not in self.operations:
            raise unknown_name(f"operation for choice `{self.name}`", operation, self.operations)
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < self.inputs:
            raise InputError(
                f"Choice `{self.name}` has inputs 0 to {self.inputs - 1}, but got {index!r}."
            )
        return operation, index

    def _misfit(self, value: object) -> InputError:
        pairs = f"{min(self.keep, self.inputs)} pairs [operation, input]"
        form = "an operation's name" if self.inputs == 1 else pairs
        return InputError(f"Choice `{self.name}` expects {form}, but got {value!r}.")


def share_parameter_free(
    choices: Mapping[str, Choice], chosen: Mapping[str, Sequence[Pair]]
) -> float:
    """Return the share of chosen operations that have no trainable weights."""
    return _share(
        pair in choices[name].parameter_free for name, pairs in chosen.items() for pair in pairs
    )


def share_zero(choices: Mapping[str, Choice], chosen: Mapping[str, Sequence[Pair]]) -> float:
    """Return the share of chosen operations that are zero."""
    return _share(
        operation in choices[name].zeros for name, pairs in chosen.items() for operation, _ in pairs
    )


def _share(found: Iterable[bool]) -> float:
    counted = list(found)
    return sum(counted) / max(len(counted), 1)
