"""Answers with the chosen operations alone: the final network."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from larq_nas.choices import Choice, Pair, Value
from larq_nas.choosers.chooser import Chooser, Operations
from larq_nas.errors import InputError
from larq_nas.expansion import Expansion, Filters, expand
from larq_nas.layers.domain import current_domain
from larq_nas.layers.drop_path import DropPath
from larq_nas.layers.zeros import Zeros, image_of

__all__ = ["Fix", "Survey"]


class Fix(Chooser):
    """Answers with the chosen operations alone: the final network.

    # Arguments
        values: the value of each choice by name, as an `Architecture` holds them.
    """

    def __init__(self, values: Mapping[str, Value]) -> None:
        super().__init__()
        self.values = values

    def _pairs(self, choice: Choice) -> list[Pair]:
        if choice.name not in self.values:
            raise InputError(f"The architecture has no value for choice `{choice.name}`.")
        return choice.decode(self.values[choice.name])

    def _answer_filters(self, expansion: Expansion) -> int:
        if expansion.name not in self.values:
            raise InputError(f"The architecture has no value for choice `{expansion.name}`.")
        return expand(expansion.filters, expansion.decode(self.values[expansion.name]))

    def _answer(
        self,
        choice: Choice,
        inputs: Sequence[tf.Tensor],
        operations: Sequence[Operations],
        prefix: str,
    ) -> tf.Tensor:
        outputs = []
        used: Counter[str] = Counter()
        for name, i in self._pairs(choice):
            operation = operations[i][name]
            if operation is None:
                if not choice.keep_zero:
                    raise InputError(f"Choice `{choice.name}` cannot keep the zero operation.")
                outputs += self._zero(inputs[i], operations[i], f"{prefix}_in{i}")
                continue
            label = f"{prefix}_in{i}_{name}"
            used[label] += 1
            suffix = f"_{used[label]}" if used[label] > 1 else ""
            y = operation(inputs[i], label + suffix)
            if current_domain().drop_path and choice.keep > 1 and y is not inputs[i]:
                y = DropPath(name=f"{label}{suffix}_drop_path")(y)
            outputs.append(y)
        if not outputs:
            return zeros(inputs[0], operations[0], prefix, image_of(inputs[0]))
        if len(outputs) == 1:
            return outputs[0]
        return tf.keras.layers.Add(name=f"{prefix}_sum")(outputs)

    def _zero(self, x: tf.Tensor, operations: Operations, prefix: str) -> list[tf.Tensor]:
        """Return what an input adds to its node that the zero operation was chosen on."""
        return []

    def unused(self) -> list[str]:
        """Return the names of values that no choice asked for."""
        return sorted(set(self.values) - set(self.choices) - set(self.expansions))


class Survey(Fix):
    """Takes the first operation everywhere, to learn what a space asks."""

    def __init__(self) -> None:
        super().__init__({})

    def _pairs(self, choice: Choice) -> list[Pair]:
        return choice.any()

    def _answer_filters(self, expansion: Expansion) -> int:
        return ask(expansion)

    def questions(self) -> dict[str, list[Any]]:
        """Return each question by name."""
        widths = {name: expansion.question() for name, expansion in self.expansions.items()}
        return {name: choice.question() for name, choice in self.choices.items()} | widths


def ask(expansion: Expansion) -> Filters:
    """Return the width nearest to a layer's own, remembering the choice."""
    nearest = min(expansion.options, key=lambda width: abs(width - expansion.filters))
    return Filters(nearest, lambda answers: answers[expansion.name])


def zeros(x: tf.Tensor, operations: Operations, prefix: str, reads: tf.Tensor) -> tf.Tensor:
    """Return zeros of the shape that an operation on `x` would give, which depend on `reads`."""
    operation = next(operation for operation in operations.values() if operation is not None)
    # What this builds is read by nothing, and so is no part of the model.
    shape = operation(x, f"{prefix}_shape").shape[1:]
    return Zeros(shape, name=f"{prefix}_zeros")(reads)
