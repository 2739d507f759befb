"""Choosers: the contract, and choosers that fix, sample or take the widest."""

import dataclasses
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from larq_nas.choices import (
    Cell,
    Choice,
    Depth,
    Expansion,
    Filters,
    Pair,
    Value,
    all_alive,
)
from larq_nas.errors import InputError, require_whole
from larq_nas.layers.binary_policy import current_domain
from larq_nas.layers.drop_path import DropPath
from larq_nas.layers.zeros import Zeros, concatenate, image_of

Operation: TypeAlias = Callable[[tf.Tensor, str], tf.Tensor] | None
"""Builds layers on a tensor, given the prefix of their names; `None` is the zero operation."""

Operations: TypeAlias = Mapping[str, Operation]

ImageShape: TypeAlias = tuple[int, int, int]
"""Height, width and channels of images, in pixels."""


_KEEP = 2


class Chooser(ABC):
    """Answers a search space while it builds its network.

    A space asks where a person would write a layer. Layers are named after the question,
    so the same part of two networks of a space has the same name.
    """

    def __init__(self) -> None:
        self.choices: dict[str, Choice] = {}
        self.expansions: dict[str, Expansion] = {}
        self.cells: dict[str, Cell] = {}
        self._asked: Counter[str] = Counter()
        self._prefixes: set[str] = set()
        self._outer = ""

    def op(self, name: str, x: tf.Tensor, operations: Operations) -> tf.Tensor:
        """Apply one of `operations` to `x`.

        !!! example
            ```python
            x = choose.op("block1", x, {
                "conv3": lambda x, name: larq_nas.layers.binary_conv(x, 64, 3, name=name),
                "conv5": lambda x, name: larq_nas.layers.binary_conv(x, 64, 5, name=name),
            })
            ```

        # Arguments
            name: name of the choice; asked again, the same name has the same answer.
            x: tensor the operation reads.
            operations: the candidates by name.

        # Returns
            The output of the chosen operation (in a supernet: the weighted sum of all).
        """
        return self.node(name, [x], [operations], keep=1)

    def node(
        self,
        name: str,
        inputs: Sequence[tf.Tensor],
        operations: Sequence[Operations],
        keep: int = _KEEP,
        prefix: str | None = None,
        keep_zero: bool = False,
    ) -> tf.Tensor:
        """Sum one operation on each of `keep` of the `inputs`.

        # Arguments
            name: name of the choice; asked again, the same name has the same answer.
            inputs: tensors to choose from.
            operations: the candidates by name, for each input.
            keep: number of inputs the final network keeps.
            prefix: prefix of the layers' names; by default the choice's name and how often
                it was asked before.
            keep_zero: whether the zero operation may be chosen; an input it is chosen on
                adds nothing.
        """
        known = self._ask(name, operations, keep, keep_zero)
        if len(inputs) != len(operations):
            raise InputError(
                f"Choice `{name}` has {len(inputs)} inputs, {len(operations)} op sets."
            )
        if prefix is None:
            count = self._asked[name]
            prefix = name.replace("/", "_") + (f"_{count}" if count else "")
        self._asked[name] += 1
        self._claim(name, prefix)
        return self._answer(known, inputs, operations, prefix)

    def _ask(
        self,
        name: str,
        operations: Sequence[Operations],
        keep: int = _KEEP,
        keep_zero: bool = False,
    ) -> Choice:
        """Return the choice of that name, or raise `InputError` if another was asked."""
        require_whole(keep=keep)
        if not operations:
            raise InputError(f"Choice `{name}` must have inputs to choose from, but has none.")
        names = tuple(operations[0])
        zeros = frozenset(key for key, operation in operations[0].items() if operation is None)
        if not set(names) - zeros:
            raise InputError(f"Choice `{name}` has no operation to choose, only {names}.")
        if any(tuple(named) != names for named in operations):
            raise InputError(f"Choice `{name}` must offer the same operations on every input.")
        return self._know(Choice(name, names, len(operations), keep, zeros, keep_zero=keep_zero))

    def _know(self, choice: Choice) -> Choice:
        """Return the choice of that name, or raise `InputError` if another was asked."""
        name = choice.name
        self._require_outside(name)
        if name in self.expansions:
            raise InputError(f"Choice `{name}` was asked before for filters; rename it.")
        known = self.choices.setdefault(name, choice)
        if known.question() != choice.question():
            raise InputError(
                f"Choice `{name}` was asked before with other operations or inputs; "
                "give it a name of its own."
            )
        return known

    @contextmanager
    def _operation_of(self, name: str) -> Iterator[None]:
        """Build an operation of the choice `name`."""
        outer, self._outer = self._outer, name
        try:
            yield
        finally:
            self._outer = outer

    def _require_outside(self, name: str) -> None:
        """Raise `InputError` for a question that only networks of some operation would ask."""
        if self._outer and name not in self.choices and name not in self.expansions:
            raise InputError(
                f"Choice `{name}` is asked within an operation of choice `{self._outer}`, which "
                "not every network has: ask for widths before it, and give an operation for each "
                "answer to others."
            )

    def _claim(self, name: str, prefix: str) -> None:
        """Raise `InputError` if layers were named by that prefix before."""
        if prefix in self._prefixes:
            raise InputError(
                f"Choice `{name}` would name its layers `{prefix}`, as another does: rename it, "
                "or give a `prefix`."
            )
        self._prefixes.add(prefix)

    def depth(
        self,
        name: str,
        x: tf.Tensor,
        blocks: Sequence[Callable[[tf.Tensor, str], tf.Tensor]],
        least: int = 1,
    ) -> tf.Tensor:
        """Apply the first of a row of blocks: `least` of them, or more up to all.

        Blocks ask what they leave open whether the network has them or not.

        !!! example
            ```python
            def block(x, name):
                return larq_nas.layers.binary_conv(x, 64, 3, name=name)

            x = choose.depth("section1", x, [block] * 4, least=2)
            ```

        # Arguments
            name: name of the choice; asked again, the same name has the same answer.
            x: tensor the first block reads.
            blocks: functions of a tensor and the prefix of their layers' names, which is `name`
                and the block's number from 0.
            least: the fewest blocks a network has, 1 or more.

        # Returns
            The output of the last block that is there (in a supernet: the weighted sum of all
            that may be the last).
        """
        choice = self._know(_depth_of(name, blocks, least))
        count = self._asked[name]
        self._asked[name] += 1
        prefix = name.replace("/", "_") + (f"_{count}" if count else "")
        outputs = []
        for number, block in enumerate(blocks):
            x = block(x, f"{prefix}_{number}")
            if not hasattr(x, "_keras_history"):
                raise InputError(
                    f"Block {number} of choice `{name}` must return a tensor, but returned {x!r}."
                )
            outputs.append(x)
        return self._answer_depth(choice, outputs[least - 1 :], prefix)

    def cell(
        self,
        name: str,
        inputs: Sequence[tf.Tensor],
        operations: Callable[[int], Operations],
        nodes: int = 4,
        prefix: str | None = None,
        concat: Sequence[int] | None = None,
        keep_zero: bool = False,
    ) -> tf.Tensor:
        """Build a cell: nodes that each read two earlier states, concatenated.

        # Arguments
            name: kind of the cell, such as `"normal"`; cells of a kind share their choices.
            inputs: tensors the cell reads, all of one shape unless `operations` mend it.
            operations: the candidates by name, for the index of the state they read (the
                inputs first, then the nodes).
            nodes: number of nodes.
            prefix: prefix of the layers' names; by default the kind and a count.
            concat: indices of the states that are concatenated; by default all nodes.
            keep_zero: whether the zero operation may be chosen; see `node`.
        """
        require_whole(nodes=nodes)
        indices = range(len(inputs), len(inputs) + nodes)
        if concat is None:
            concat = indices
        elif not _are_of(concat, indices):
            raise InputError(
                f"`concat` of cell `{name}` must hold nodes, {indices[0]} to {indices[-1]}, each "
                f"once, but got {concat!r}."
            )
        if prefix is None:
            prefix = f"{name}{self._asked[name]}"
        self._asked[name] += 1
        questions = {index: f"{name}/{index}" for index in indices}
        cell = Cell(name, len(inputs), questions, tuple(concat))
        if self.cells.setdefault(name, cell) != cell:
            raise InputError(
                f"Cell `{name}` was asked before with other inputs, nodes or `concat`; give it a "
                "name of its own."
            )
        return self._answer_cell(cell, inputs, operations, prefix, keep_zero)

    def _answer_cell(
        self,
        cell: Cell,
        inputs: Sequence[tf.Tensor],
        operations: Callable[[int], Operations],
        prefix: str,
        keep_zero: bool,
    ) -> tf.Tensor:
        """Build the answer to all choices of `cell`."""
        states = list(inputs)
        for index, question in cell.questions.items():
            candidates = [operations(i) for i in range(len(states))]
            label = f"{prefix}_node{index}"
            states.append(
                self.node(question, states, candidates, prefix=label, keep_zero=keep_zero)
            )
        return concatenate([states[i] for i in cell.concat], prefix=prefix)

    def filters(
        self, name: str, filters: int, ratios: Sequence[float], multiple_of: int = 1
    ) -> int:
        """Return how many filters a layer gets: one of `ratios` times its own number.

        !!! example
            ```python
            filters = choose.filters("conv1", 64, ratios=(0.5, 1, 2))
            x = larq_nas.layers.BinaryConv2D(filters, 3)(x)
            ```

        # Arguments
            name: name of the choice; asked again, the same name has the same answer.
            filters: number of filters at ratio 1.
            ratios: the ratios to choose from.
            multiple_of: what all widths are rounded to multiples of, at least one of it; Larq
                Compute Engine packs 32 binary channels to a word.
        """
        self._require_outside(name)
        expansion = Expansion(name, filters, tuple(ratios), multiple_of)
        if name in self.choices or self.expansions.setdefault(name, expansion) != expansion:
            raise InputError(
                f"Choice `{name}` was asked before with other filters, ratios or multiples; "
                "give it a name of its own."
            )
        return self._answer_filters(expansion)

    def structure(self) -> dict[str, Any]:
        """Return the cells, and the filters at ratio 1 of each width, as JSON holds them.

        What widths are multiples of is among it where it is not 1.
        """
        multiples = {n: one.multiple_of for n, one in self.expansions.items()}
        rounded = {name: number for name, number in multiples.items() if number > 1}
        return {
            **({"multiple_of": rounded} if rounded else {}),
            "cells": {name: dataclasses.asdict(cell) for name, cell in self.cells.items()},
            "filters": {name: asked.filters for name, asked in self.expansions.items()},
        }

    @abstractmethod
    def _answer_depth(self, choice: Choice, outputs: Sequence[tf.Tensor], prefix: str) -> tf.Tensor:
        """Return the answer to a choice of depth, whose operations give `outputs`."""

    @abstractmethod
    def _answer_filters(self, expansion: Expansion) -> int:
        """Return the answer to `expansion`."""

    @abstractmethod
    def _answer(
        self,
        choice: Choice,
        inputs: Sequence[tf.Tensor],
        operations: Sequence[Operations],
        prefix: str,
    ) -> tf.Tensor:
        """Build the answer to `choice`."""


class Fix(Chooser):
    """Answers with the chosen operations alone: the final network.

    # Arguments
        values: the value of each choice by name, as an `Architecture` holds them.
    """

    def __init__(self, values: Mapping[str, Value]) -> None:
        super().__init__()
        self.values = values

    def _value(self, name: str) -> Value:
        if name not in self.values:
            raise InputError(f"The architecture has no value for choice `{name}`.")
        return self.values[name]

    def _pairs(self, choice: Choice) -> list[Pair]:
        return choice.decode(self._value(choice.name))

    def _answer_filters(self, expansion: Expansion) -> int:
        return expansion.width(expansion.decode(self._value(expansion.name)))

    def _answer_depth(self, choice: Choice, outputs: Sequence[tf.Tensor], prefix: str) -> tf.Tensor:
        # Widths may differ: what is behind the last block follows the one it has.
        require_one_shape(choice, [y.shape[:-1] for y in outputs])
        ((number, _),) = self._pairs(choice)
        return outputs[choice.operations.index(number)]

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
            with self._operation_of(choice.name):
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

    def alive(self) -> bool:
        """Return whether each kind of cell has a path that is not zero."""
        chosen = {name: self._pairs(choice) for name, choice in self.choices.items()}
        return all_alive(self.cells.values(), self.choices, chosen)

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

    def _answer_depth(self, choice: Choice, outputs: Sequence[tf.Tensor], prefix: str) -> tf.Tensor:
        require_one_shape(choice, [y.shape for y in outputs])
        return super()._answer_depth(choice, outputs, prefix)

    def questions(self) -> dict[str, list[Any]]:
        """Return each question by name."""
        widths = {name: expansion.question() for name, expansion in self.expansions.items()}
        return {name: choice.question() for name, choice in self.choices.items()} | widths


def ask(expansion: Expansion) -> Filters:
    """Return the width nearest to a layer's own, remembering the choice."""
    nearest = min(expansion.options, key=lambda width: abs(width - expansion.filters))
    return Filters(nearest, lambda answers: answers[expansion.name])


def _depth_of(name: str, blocks: object, least: int) -> Depth:
    """Return the choice of a number of blocks, or raise `InputError` for what is none."""
    if not isinstance(blocks, Sequence) or not blocks or not all(map(callable, blocks)):
        raise InputError(
            f"`blocks` of choice `{name}` must be a list of functions of a tensor and a name, but "
            f"got {blocks!r}."
        )
    require_whole(**{f"least of choice {name}": least})
    if least > len(blocks):
        raise InputError(
            f"`least` of choice `{name}` must be at most the number of its blocks, {len(blocks)}, "
            f"but got {least}."
        )
    return Depth.between(name, least, len(blocks))


def require_one_shape(choice: Choice, shapes: Sequence[tf.TensorShape]) -> None:
    """Raise `InputError` if the shape depends on the number of blocks."""
    for number, shape in zip(choice.operations, shapes, strict=True):
        if shape != shapes[0]:
            raise InputError(
                f"Any number of blocks of choice `{choice.name}` must give one shape, but "
                f"{choice.operations[0]} give {shapes[0]} and {number} give {shape}: raise "
                "`least`, or leave the block that changes it out of the row."
            )


def zeros(x: tf.Tensor, operations: Operations, prefix: str, reads: tf.Tensor) -> tf.Tensor:
    """Return zeros of the shape that an operation on `x` would give, which depend on `reads`."""
    operation = next(operation for operation in operations.values() if operation is not None)
    # What this builds is read by nothing, and so is no part of the model.
    shape = operation(x, f"{prefix}_shape").shape[1:]
    return Zeros(shape, name=f"{prefix}_zeros")(reads)


class Sample(Fix):
    """Answers with what keras-tuner's hyperparameters draw: a candidate.

    !!! example
        ```python
        choose = larq_nas.spaces.Sample(keras_tuner.HyperParameters())
        model = space.build(choose, (32, 32, 3), classes=10)
        choose.values  # the choices made, as an `Architecture` holds them
        ```

    # Arguments
        hyperparameters: a `keras_tuner.HyperParameters`; each choice becomes `Choice`
            parameters of its name, and for a node `NAME/inputs`, `NAME/operation0` and so on.
    """

    def __init__(self, hyperparameters: Any) -> None:
        super().__init__({})
        self.hyperparameters = hyperparameters
        self.values: dict[str, Value] = {}

    @classmethod
    def seeded(cls, seed: int) -> "Sample":
        """Return a chooser that draws each choice from a seed, all options being as likely."""
        return cls(_Seeded(seed))

    def _value(self, name: str) -> Value:
        if name not in self.values:
            asked = self.choices.get(name) or self.expansions[name]
            drawn = {
                parameter: self.hyperparameters.Choice(parameter, list(options))
                for parameter, options in asked.parameters().items()
            }
            self.values[name] = asked.value(drawn)
        return super()._value(name)


def _are_of(concat: object, indices: range) -> bool:
    """Return whether something holds some of the indices, each once."""
    if not isinstance(concat, Sequence):
        return False
    if not all(isinstance(i, int | np.integer) and not isinstance(i, bool) for i in concat):
        return False
    return 0 < len(set(concat)) == len(concat) and set(concat) <= set(indices)


class _Seeded:
    """Draws like `keras_tuner.HyperParameters`, from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def Choice(self, name: str, values: list[Any]) -> Any:  # noqa: N802 - keras-tuner's name
        return self._random.choice(values)


class Widest(Survey):
    """Answers with the largest width everywhere, remembering the choice.

    # Arguments
        widths: number of filters of each choice by name, in place of the largest of its options.
    """

    def __init__(self, widths: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self._widths = widths

    def _answer_filters(self, expansion: Expansion) -> int:
        widths = self._widths
        widest = max(expansion.options) if widths is None else widths[expansion.name]
        return Filters(widest, lambda answers: answers[expansion.name])
