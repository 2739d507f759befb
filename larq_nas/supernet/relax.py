"""Relax a space: every candidate operation, weighted."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from larq_nas.choices import Choice, Expansion, Pair
from larq_nas.errors import InputError, require_positive
from larq_nas.graph.rebuild import has_weights
from larq_nas.layers.mixture import Kept, Mixture, Probabilities
from larq_nas.spaces.chooser import Chooser, Operations, ask, require_one_shape


class Relax(Chooser):
    """Answers with every candidate, weighted: the supernet.

    # Arguments
        temperature: temperature of the softmax over operations, for all choices or by the
            group of the choice (for cells: their kind).
        kept: for choices of which not all operations are candidates, by name, whether each
            is: shape `(inputs, operations)`.

    # Attributes
        mixtures: the weighted sum of each choice, by its name.
        prefixes: the prefix of the layers' names, for each time a choice was asked.
    """

    def __init__(
        self,
        temperature: float | Mapping[str, float] = 1.0,
        *,
        kept: Mapping[str, Kept] | None = None,
    ) -> None:
        super().__init__()
        require_temperature(temperature)
        self.temperature = temperature
        self.kept = kept or {}
        self.mixtures: dict[str, Probabilities] = {}
        self.prefixes: dict[str, list[str]] = {}

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
                if operation is None or not self._is_kept(choice.name, i, o):
                    continue
                with self._operation_of(choice.name):
                    y = operation(x, f"{prefix}_in{i}_{name}")
                candidates.append((i, o))
                outputs.append(y)
                if not has_weights(x, y):
                    free.add((name, i))
        _require_one_shape(choice, candidates, outputs)
        if choice.name not in self.mixtures:
            self._note_free(choice, frozenset(free))
        self.prefixes.setdefault(choice.name, []).append(prefix)
        return self._mix(choice, candidates, outputs, prefix)

    def _answer_depth(self, choice: Choice, outputs: Sequence[tf.Tensor], prefix: str) -> tf.Tensor:
        require_one_shape(choice, [y.shape for y in outputs])
        kept = [o for o in range(len(outputs)) if self._is_kept(choice.name, 0, o)]
        self.prefixes.setdefault(choice.name, []).append(prefix)
        return self._mix(choice, [(0, o) for o in kept], [outputs[o] for o in kept], prefix)

    def _is_kept(self, name: str, index: int, operation: int) -> bool:
        return name not in self.kept or bool(self.kept[name][index][operation])

    def _answer_filters(self, expansion: Expansion) -> int:
        return ask(expansion)

    def _note_free(self, choice: Choice, free: frozenset[Pair]) -> None:
        self.choices[choice.name] = dataclasses.replace(choice, parameter_free=free)

    def _mix(
        self,
        choice: Choice,
        candidates: list[tuple[int, int]],
        outputs: list[tf.Tensor],
        prefix: str,
    ) -> tf.Tensor:
        """Return the weighted sum of the outputs of `candidates`."""
        if choice.name not in self.mixtures:
            self.mixtures[choice.name] = Mixture(candidates, **self._settings(choice))
        return self.mixtures[choice.name](outputs)

    def _settings(self, choice: Choice) -> dict[str, Any]:
        """Return the settings of the layer that has the architecture parameters."""
        return {
            "inputs": choice.inputs,
            "operations": len(choice.operations),
            "temperature": self._temperature(choice),
            "kept": self.kept.get(choice.name),
            "name": f"mixture_{choice.name.replace('/', '_')}",
        }

    def _temperature(self, choice: Choice) -> float:
        if not isinstance(self.temperature, Mapping):
            return self.temperature
        if choice.group not in self.temperature:
            raise InputError(
                f"`temperature` must have one for each group of choices, but has none for "
                f"`{choice.group}`: it has {', '.join(map(str, self.temperature)) or 'none'}."
            )
        return self.temperature[choice.group]


class Light(Relax):
    """Answers with the operations without weights; with all of a choice where each has weights."""

    def __init__(self) -> None:
        super().__init__()
        self._light: dict[str, list[str]] = {}

    def node(
        self,
        name: str,
        inputs: Sequence[tf.Tensor],
        operations: Sequence[Operations],
        keep: int = 2,
        prefix: str | None = None,
        keep_zero: bool = False,
    ) -> tf.Tensor:
        if name not in self._light:
            self._light[name] = self._without_weights(name, inputs, operations)
        light = [{one: named[one] for one in self._light[name]} for named in operations]
        return super().node(name, inputs, light, keep, prefix, keep_zero)

    @staticmethod
    def _without_weights(
        name: str, inputs: Sequence[tf.Tensor], operations: Sequence[Operations]
    ) -> list[str]:
        def is_light(one: str) -> bool:
            return not any(
                has_weights(x, operation(x, f"{name}_{i}_{one}".replace("/", "_")))
                for i, (x, named) in enumerate(zip(inputs, operations, strict=True))
                if (operation := named[one]) is not None
            )

        found = [one for one in operations[0] if is_light(one)]
        computes = any(operations[0][one] is not None for one in found)
        return found if computes else list(operations[0])


def require_temperature(temperature: float | Mapping[str, float]) -> None:
    """Raise `InputError` for a temperature that is not positive."""
    values = temperature.values() if isinstance(temperature, Mapping) else [temperature]
    for value in values:
        require_positive(temperature=value)


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
