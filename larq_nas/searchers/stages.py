"""A progressive search that is ready to run, stage by stage."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.choices import Choice
from larq_nas.errors import InputError
from larq_nas.files import write_atomically
from larq_nas.layers.mixture import Kept
from larq_nas.run import Run
from larq_nas.searchers.announce import announce
from larq_nas.searchers.derive import scores_of, warn_if_undecided
from larq_nas.searchers.estimate import estimate, warn_if_too_large
from larq_nas.searchers.prepared import Prepared
from larq_nas.training.forget import forgetting_graphs

__all__ = ["Staged", "Stages", "strongest_operations"]


@dataclass(frozen=True)
class Stages:
    """How deep the supernet of each stage is, and of how many operations on each edge."""

    cells: Sequence[int]
    operations: Sequence[int]

    @property
    def count(self) -> int:
        """The number of stages."""
        return len(self.cells)

    def describe(self, index: int) -> str:
        """Return what a stage is, as its user reads it."""
        return (
            f"stage {index + 1} of {self.count}: {self.cells[index]} cells, "
            f"{self.operations[index]} operations on each edge"
        )


class Staged:
    """A progressive search that is ready to run.

    # Arguments
        stages: the stages.
        epochs: number of epochs of each.
        prepare: returns a stage that is ready to run, given its index and the operations that
            are kept.
    """

    def __init__(
        self,
        stages: Stages,
        epochs: int,
        prepare: Callable[[int, Mapping[str, Kept] | None], Prepared],
    ) -> None:
        self.stages = stages
        self.epochs = epochs
        self._choices: Mapping[str, Choice] = {}
        self._prepare = prepare
        self._bytes = [self._estimate(index) for index in range(stages.count)]

    def search(
        self,
        run: Run,
        callbacks: Sequence[tf.keras.callbacks.Callback] = (),
        verbose: int | str = "auto",
    ) -> Architecture:
        """Return the architecture found.

        # Arguments
            run: where checkpoints, history and logs go, and `stages.json`.
            callbacks: further Keras callbacks.
            verbose: as in `fit`.
        """
        records = _read(run, self._choices, self.stages)
        self._announce(len(records), verbose)
        for index in range(len(records), self.stages.count):
            with forgetting_graphs():
                prepared = self._prepare(index, records[-1]["kept"] if records else None)
                if verbose:
                    print(f"Progressive search, {self.stages.describe(index)}", flush=True)
                announce(prepared, verbose)
                prepared.learn(run, callbacks, verbose)
                if index == self.stages.count - 1:
                    return prepared.derive()
                record = self._record(index, prepared)
                records.append(record)
                write_atomically(run.stages, json.dumps({"stages": records}, indent=1) + "\n")
                if verbose:
                    print(_dropped(record["dropped"]), flush=True)
        raise AssertionError("the last stage returns")

    def _announce(self, done: int, verbose: int | str) -> None:
        for index, needed in enumerate(self._bytes):
            told = f"about {needed / 2**30:.1f} GiB of memory, {self.epochs} epochs"
            if verbose:
                stage = self.stages.describe(index).capitalize()
                print(f"{stage}: {'done before' if index < done else told}", flush=True)
        # Each stage warns of itself when it starts; of later ones it would be late.
        warn_if_too_large(max(self._bytes[done + 1 :], default=0), self._can_rematerialize)

    def _estimate(self, index: int) -> float:
        """Return the bytes that a stage takes, whatever operations it will have."""
        with forgetting_graphs():
            prepared = self._prepare(index, self._largest(index) if index else None)
            choose = prepared.choose
            self._choices = self._choices or dict(choose.choices)
            self._can_rematerialize = bool(choose.fused) and not choose.rematerialize
            return estimate(prepared.model, prepared.task.facts.batch_size)

    def _largest(self, index: int) -> dict[str, Kept]:
        """Return the operations that take most: those with weights first."""
        number = self.stages.operations[index]
        kept: dict[str, Kept] = {}
        for name, choice in self._choices.items():
            free = [
                operation in choice.zeros
                or all(
                    (operation, index) in choice.parameter_free for index in range(choice.inputs)
                )
                for operation in choice.operations
            ]
            order = np.argsort(free, kind="stable")[:number]
            row = [place in order for place in range(len(free))]
            kept[name] = [row] * choice.inputs
        return kept

    def _record(self, index: int, prepared: Prepared) -> dict[str, Any]:
        """Return what a stage was, and what of it goes on."""
        warn_if_undecided(prepared.model, f"Stage {index + 1}")
        scores, fewer = scores_of(prepared.choose), self.stages.operations[index + 1]
        before = {name: mixture.kept for name, mixture in prepared.choose.mixtures.items()}
        kept = {
            name: strongest_operations(probabilities, before[name], fewer)
            for name, probabilities in scores.items()
        }
        dropped = {
            name: [
                [self._choices[name].operations[o], int(i), float(scores[name][i, o])]
                for i, o in np.argwhere(before[name] & ~np.array(kept[name]))
            ]
            for name in scores
        }
        return {
            "cells": self.stages.cells[index],
            "operations": self.stages.operations[index],
            "parameters": prepared.model.count_params(),
            "kept": kept,
            "dropped": dropped,
        }


def strongest_operations(probabilities: np.ndarray, kept: np.ndarray, number: int) -> Kept:
    """Return which operations of each edge go on: the most probable ones.

    # Arguments
        probabilities: of each operation on each input, shape `(inputs, operations)`.
        kept: which of them are candidates, of that shape.
        number: of operations that go on, for each input.
    """
    order = np.argsort(np.where(kept, -probabilities, np.inf), axis=1, kind="stable")
    found = np.zeros_like(kept)
    np.put_along_axis(found, order[:, :number], True, axis=1)
    going: list[list[bool]] = found.tolist()
    return going


def _dropped(dropped: Mapping[str, Sequence[Sequence[Any]]]) -> str:
    counted = Counter(operation for pairs in dropped.values() for operation, *_ in pairs)
    listed = ", ".join(f"{name} {count}" for name, count in counted.most_common())
    return f"Dropped from the edges, on how many of them: {listed}"


def _read(run: Run, choices: Mapping[str, Choice], stages: Stages) -> list[dict[str, Any]]:
    """Return the records of the stages that are done."""
    if not run.stages.exists():
        return []
    try:
        records: list[dict[str, Any]] = json.loads(run.stages.read_text(encoding="utf-8"))["stages"]
        for index, record in enumerate(records):
            for name, choice in choices.items():
                kept = np.array(record["kept"][name])
                shape = choice.inputs, len(choice.operations)
                if kept.shape != shape or set(kept.sum(axis=1)) != {stages.operations[index + 1]}:
                    raise ValueError
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise InputError(
            f"`{run.stages}` is damaged, or not of this search: delete it, and the last stage that "
            "was finished is read from its checkpoint."
        ) from None
    return records
