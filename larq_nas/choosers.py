"""The three answers to a search space's questions: relax, fix and sample."""

import dataclasses
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, TypeAlias

import tensorflow as tf

from larq_nas.choices import Choice, Pair, Value
from larq_nas.errors import InputError, require_positive, unknown_name
from larq_nas.layers.mixture import Mixture

__all__ = ["Chooser", "Fix", "Operation", "Relax", "Sample"]

Operation: TypeAlias = Callable[[tf.Tensor, str], tf.Tensor] | None
"""Builds layers on a tensor, given the prefix of their names; `None` is the zero operation."""

Operations: TypeAlias = Mapping[str, Operation]


class Chooser(ABC):
    """Answers a search space while it builds its network.

    A space asks where a person would write a layer. Layers are named after the question,
    so the same part of a supernet and of the network derived from it has the same name.
    """

    def __init__(self) -> None:
        self.choices: dict[str, Choice] = {}
        self._asked: Counter[str] = Counter()
        self._prefixes: set[str] = set()

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
        keep: int = 2,
        prefix: str | None = None,
    ) -> tf.Tensor:
        """Sum one operation on each of `keep` of the `inputs`.

        # Arguments
            name: name of the choice; asked again, the same name has the same answer.
            inputs: tensors to choose from.
            operations: the candidates by name, for each input.
            keep: number of inputs the final network keeps.
            prefix: prefix of the layers' names; by default the choice's name and how often
                it was asked before.
        """
        choice = _describe(name, inputs, operations, keep)
        known = self.choices.setdefault(name, choice)
        if known.question() != choice.question():
            raise InputError(
                f"Choice `{name}` was asked before with other operations or inputs; "
                "give it a name of its own."
            )
        if prefix is None:
            count = self._asked[name]
            prefix = name.replace("/", "_") + (f"_{count}" if count else "")
        self._asked[name] += 1
        if prefix in self._prefixes:
            raise InputError(
                f"Choice `{name}` would name its layers `{prefix}`, as another does: rename it, "
                "or give a `prefix`."
            )
        self._prefixes.add(prefix)
        return self._answer(known, inputs, operations, prefix)

    def cell(
        self,
        name: str,
        inputs: Sequence[tf.Tensor],
        operations: Callable[[int], Operations],
        nodes: int = 4,
        prefix: str | None = None,
    ) -> tf.Tensor:
        """Build a cell: nodes that each read two earlier states, concatenated.

        # Arguments
            name: kind of the cell, such as `"normal"`; cells of a kind share their choices.
            inputs: tensors the cell reads, all of one shape unless `operations` mend it.
            operations: the candidates by name, for the index of the state they read (the
                inputs first, then the nodes).
            nodes: number of nodes.
            prefix: prefix of the layers' names; by default the kind and a count.
        """
        if prefix is None:
            prefix = f"{name}{self._asked[name]}"
        self._asked[name] += 1
        states = list(inputs)
        for index in range(len(inputs), len(inputs) + nodes):
            candidates = [operations(i) for i in range(len(states))]
            label = f"{prefix}_node{index}"
            states.append(self.node(f"{name}/{index}", states, candidates, prefix=label))
        outputs = states[len(inputs) :]
        if len(outputs) == 1:  # Keras cannot reload a concatenation of one tensor
            return outputs[0]
        return tf.keras.layers.Concatenate(name=f"{prefix}_concat")(outputs)

    @abstractmethod
    def _answer(
        self,
        choice: Choice,
        inputs: Sequence[tf.Tensor],
        operations: Sequence[Operations],
        prefix: str,
    ) -> tf.Tensor:
        """Build the answer to `choice`."""


class Relax(Chooser):
    """Answers with every candidate, weighted: the supernet.

    # Arguments
        temperature: temperature of the softmax over operations, for all choices or by the
            group of the choice (for cells: their kind).
    """

    def __init__(self, temperature: float | Mapping[str, float] = 1.0) -> None:
        super().__init__()
        require_temperature(temperature)
        self.temperature = temperature
        self.mixtures: dict[str, Mixture] = {}

    def _answer(
        self,
        choice: Choice,
        inputs: Sequence[tf.Tensor],
        operations: Sequence[Operations],
        prefix: str,
    ) -> tf.Tensor:
        candidates, outputs, free = [], [], set()
        for i, (x, named) in enumerate(zip(inputs, operations, strict=True)):
            for o, (name, operation) in enumerate(named.items()):
                if operation is None:
                    continue
                y = operation(x, f"{prefix}_in{i}_{name}")
                candidates.append((i, o))
                outputs.append(y)
                if not _has_weights(x, y):
                    free.add((name, i))
        _require_one_shape(choice, candidates, outputs)
        if choice.name not in self.mixtures:
            self._add_mixture(choice, candidates, frozenset(free))
        return self.mixtures[choice.name](outputs)

    def _add_mixture(
        self, choice: Choice, candidates: list[tuple[int, int]], free: frozenset[Pair]
    ) -> None:
        self.choices[choice.name] = dataclasses.replace(choice, parameter_free=free)
        self.mixtures[choice.name] = Mixture(
            candidates,
            choice.inputs,
            len(choice.operations),
            self._temperature(choice),
            name=f"mixture_{choice.name.replace('/', '_')}",
        )

    def _temperature(self, choice: Choice) -> float:
        if not isinstance(self.temperature, Mapping):
            return self.temperature
        if choice.group not in self.temperature:
            raise unknown_name("choice group in `temperature`", choice.group, self.temperature)
        return self.temperature[choice.group]


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
                raise InputError(f"Choice `{choice.name}` cannot keep the zero operation.")
            label = f"{prefix}_in{i}_{name}"
            used[label] += 1
            suffix = f"_{used[label]}" if used[label] > 1 else ""
            outputs.append(operation(inputs[i], label + suffix))
        if len(outputs) == 1:
            return outputs[0]
        return tf.keras.layers.Add(name=f"{prefix}_sum")(outputs)

    def unused(self) -> list[str]:
        """Return the names of values that no choice asked for."""
        return sorted(set(self.values) - set(self.choices))


class Sample(Fix):
    """Answers with what keras-tuner's hyperparameters draw: a candidate.

    !!! example
        ```python
        choose = larq_nas.choosers.Sample(keras_tuner.HyperParameters())
        model = space.build(choose, (32, 32, 3), classes=10)
        choose.values  # the choices made, as an `Architecture` holds them
        ```

    # Arguments
        hyperparameters: a `keras_tuner.HyperParameters`; each choice becomes `Choice`
            parameters of the same name.
    """

    def __init__(self, hyperparameters: Any) -> None:
        super().__init__({})
        self.hyperparameters = hyperparameters
        self.values: dict[str, Value] = {}

    def _pairs(self, choice: Choice) -> list[Pair]:
        if choice.name not in self.values:
            self.values[choice.name] = choice.encode(self._draw(choice))
        return super()._pairs(choice)

    def _draw(self, choice: Choice) -> list[Pair]:
        names = [name for name in choice.operations if name not in choice.zeros]
        kept = list(combinations(range(choice.inputs), min(choice.keep, choice.inputs)))
        indices = kept[0]
        if len(kept) > 1:
            options = [",".join(map(str, option)) for option in kept]
            drawn = self.hyperparameters.Choice(f"{choice.name}/inputs", options)
            indices = kept[options.index(drawn)]
        return [
            (self.hyperparameters.Choice(f"{choice.name}/operation{slot}", names), index)
            for slot, index in enumerate(indices)
        ]


class Survey(Fix):
    """Takes the first operation everywhere, to learn what a space asks."""

    def __init__(self) -> None:
        super().__init__({})

    def _pairs(self, choice: Choice) -> list[Pair]:
        name = next(name for name in choice.operations if name not in choice.zeros)
        return [(name, index) for index in range(min(choice.keep, choice.inputs))]

    def questions(self) -> dict[str, list[Any]]:
        """Return each question by name."""
        return {name: choice.question() for name, choice in self.choices.items()}


def require_temperature(temperature: float | Mapping[str, float]) -> None:
    """Raise `InputError` for a temperature that is not positive."""
    values = temperature.values() if isinstance(temperature, Mapping) else [temperature]
    for value in values:
        require_positive(temperature=value)


def _describe(
    name: str, inputs: Sequence[tf.Tensor], operations: Sequence[Operations], keep: int
) -> Choice:
    if len(inputs) != len(operations):
        raise InputError(f"Choice `{name}` has {len(inputs)} inputs, {len(operations)} op sets.")
    names = tuple(operations[0])
    zeros = frozenset(key for key, operation in operations[0].items() if operation is None)
    if not set(names) - zeros:
        raise InputError(f"Choice `{name}` has no operation to choose, only {names}.")
    if any(tuple(named) != names for named in operations):
        raise InputError(f"Choice `{name}` must offer the same operations on every input.")
    return Choice(name, names, len(inputs), keep, zeros)


def _has_weights(x: tf.Tensor, y: tf.Tensor) -> bool:
    """Return whether a layer between `x` and `y` has trainable weights."""
    history = x._keras_history
    waiting, seen = [y._keras_history], set()
    while waiting:
        layer, node_index, tensor_index = step = waiting.pop()
        if step == history or (id(layer), node_index, tensor_index) in seen:
            continue
        seen.add((id(layer), node_index, tensor_index))
        if layer.trainable_weights:
            return True
        before = tf.nest.flatten(layer._inbound_nodes[node_index].keras_inputs)
        waiting += [tensor._keras_history for tensor in before if tensor._keras_history != step]
    return False


def _require_one_shape(
    choice: Choice, candidates: list[tuple[int, int]], outputs: list[tf.Tensor]
) -> None:
    for (i, o), y in zip(candidates, outputs, strict=True):
        if y.shape != outputs[0].shape:
            first = candidates[0]
            raise InputError(
                f"Operations of choice `{choice.name}` must give tensors of one shape, but "
                f"`{choice.operations[first[1]]}` on input {first[0]} gives {outputs[0].shape} "
                f"and `{choice.operations[o]}` on input {i} gives {y.shape}."
            )
