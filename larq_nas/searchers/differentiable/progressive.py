"""Progressive search: deeper networks of fewer operations, stage by stage."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from larq_nas.architecture import Architecture
from larq_nas.choices import Choice
from larq_nas.cost import Limits
from larq_nas.data.data import Data
from larq_nas.errors import InputError, require_whole
from larq_nas.files import write_atomically
from larq_nas.layers.mixture import Kept
from larq_nas.log import counted, log
from larq_nas.run_directory import RunDirectory
from larq_nas.searchers.differentiable.derivation import scores_of
from larq_nas.searchers.differentiable.search import (
    Differentiable,
    DifferentiableSearch,
    announce,
    warn_if_undecided,
)
from larq_nas.searchers.estimate import estimate
from larq_nas.searchers.searcher import Callbacks
from larq_nas.spaces import Space
from larq_nas.spaces.cell_space import CellSpace
from larq_nas.spaces.chooser import Survey
from larq_nas.training.callbacks import StageLogs
from larq_nas.training.loop import forgetting_graphs
from larq_nas.training.recipe import Recipe


class ProgressiveSearch:
    """A progressive search that is ready to run, of so many epochs each stage.

    `prepare` returns a stage that is ready to run, given its index and which operations it has;
    `require_memory` refuses one that does not fit.
    """

    def __init__(
        self,
        searcher: "Progressive",
        epochs: int,
        prepare: Callable[[int, Mapping[str, Kept] | None], DifferentiableSearch],
        require_memory: Callable[[int, DifferentiableSearch], None],
    ) -> None:
        self._cells, self._operations = searcher.stage_cells, searcher.stage_operations
        self._epochs = epochs
        self._choices: Mapping[str, Choice] = {}
        self._prepare, self._require_memory = prepare, require_memory
        self._bytes = [self._estimate(index) for index in range(len(self._cells))]

    def _describe(self, index: int) -> str:
        return (
            f"stage {index + 1} of {len(self._cells)}: {self._cells[index]} cells, "
            f"{self._operations[index]} operations on each edge"
        )

    def run(
        self, directory: RunDirectory, callbacks: Callbacks = (), verbose: int | str = "auto"
    ) -> Architecture:
        """Return the architecture found; `stages.json` has what each stage passed on."""
        records = self._read(directory)
        self._announce(len(records), verbose)
        # BATS, section 6.1: each stage is deeper and has fewer operations on an edge.
        for index in range(len(records), len(self._cells)):
            with forgetting_graphs():
                prepared = self._prepare(index, records[-1]["kept"] if records else None)
                if verbose:
                    log.info(f"Progressive search, {self._describe(index)}")
                announce(prepared, verbose)
                prepared.learn(directory, callbacks, verbose)
                if index == len(self._cells) - 1:
                    return prepared.derive(directory, verbose)
                record = self._record(index, prepared)
                records.append(record)
                write_atomically(directory.stages, json.dumps({"stages": records}, indent=1) + "\n")
                if verbose:
                    log.info(_dropped(record["dropped"]))
        raise AssertionError("the last stage returns")

    def _announce(self, done: int, verbose: int | str) -> None:
        for index, needed in enumerate(self._bytes):
            told = f"about {needed / 2**30:.1f} GiB of memory, {counted(self._epochs, 'epoch')}"
            if verbose:
                stage = self._describe(index).capitalize()
                log.info(f"{stage}: {'done before' if index < done else told}")

    def _estimate(self, index: int) -> float:
        """Return the bytes that a stage takes, whatever operations it will have."""
        with forgetting_graphs():
            prepared = self._prepare(index, self._largest(index) if index else None)
            choose = prepared.choose
            self._choices = self._choices or dict(choose.choices)
            # When a stage starts it would be late.
            self._require_memory(index, prepared)
            return estimate(prepared.model, prepared.data.facts.batch_size)

    def _largest(self, index: int) -> dict[str, Kept]:
        """Return the operations that take most: those with weights first."""
        number = self._operations[index]
        masks: dict[str, Kept] = {}
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
            masks[name] = [row] * choice.inputs
        return masks

    def _record(self, index: int, prepared: DifferentiableSearch) -> dict[str, Any]:
        """Return what a stage was, and what of it goes on."""
        warn_if_undecided(prepared.model, f"Stage {index + 1}")
        scores, fewer = scores_of(prepared.choose), self._operations[index + 1]
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
            "cells": self._cells[index],
            "operations": self._operations[index],
            "parameters": prepared.model.count_params(),
            "kept": kept,
            "dropped": dropped,
        }

    def _read(self, run: RunDirectory) -> list[dict[str, Any]]:
        """Return the records of the stages that are done."""
        if not run.stages.exists():
            return []
        try:
            text = run.stages.read_text(encoding="utf-8")
            records: list[dict[str, Any]] = json.loads(text)["stages"]
            for index, record in enumerate(records):
                number = self._operations[index + 1]
                for name, choice in self._choices.items():
                    mask = np.array(record["kept"][name])
                    shape = choice.inputs, len(choice.operations)
                    if mask.shape != shape or set(mask.sum(axis=1)) != {number}:
                        raise ValueError
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise InputError(
                f"`{run.stages}` is damaged, or not of this search: delete it, and the last stage "
                "that was finished is read from its checkpoint."
            ) from None
        return records


def strongest_operations(probabilities: np.ndarray, candidates: np.ndarray, number: int) -> Kept:
    """Return which operations of each edge go on: the most probable ones of `candidates`.

    Both are of shape `(inputs, operations)`; `number` is that of each input.
    """
    order = np.argsort(np.where(candidates, -probabilities, np.inf), axis=1, kind="stable")
    found = np.zeros_like(candidates)
    np.put_along_axis(found, order[:, :number], True, axis=1)
    going: list[list[bool]] = found.tolist()
    return going


def _dropped(dropped: Mapping[str, Sequence[Sequence[Any]]]) -> str:
    counted = Counter(operation for pairs in dropped.values() for operation, *_ in pairs)
    listed = ", ".join(f"{name} {count}" for name, count in counted.most_common())
    return f"Dropped from the edges, on how many of them: {listed}"


@dataclass(frozen=True)
class Progressive(Differentiable):
    """Search in stages: the supernet gets deeper, and of each edge the worst operations go.

    Found in a shallow network, cells need not be the best ones of a deep one; and a deep supernet
    of all operations is large (P-DARTS). Each stage starts from new weights and new architecture
    parameters, and trains weights alone at first. The stages of BATS (section 6.1) are the
    default; as there, skips are not dropped out. `epochs` of `search` are those of each stage.

    !!! example
        ```python
        searcher = larq_nas.searchers.Progressive(stage_cells=(3, 5, 7))
        model = larq_nas.search(train, validation, space="bats", searcher=searcher)
        ```

    # Arguments
        stage_cells: cells of the supernet in each stage, rising.
        stage_operations: operations of each edge in each stage, falling; the first has all of the
            space.
        **settings: those of `larq_nas.searchers.Differentiable`.

    # References
        - [BATS: Binary ArchitecTure Search](https://arxiv.org/abs/2003.01711)
        - [Progressive Differentiable Architecture Search](https://arxiv.org/abs/1904.12760)
    """

    name: ClassVar[str] = "progressive"

    stage_cells: tuple[int, ...] = (5, 11, 17)
    stage_operations: tuple[int, ...] = (8, 5, 3)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("stage_cells", "stage_operations"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple) or not value:
                raise InputError(
                    f"`{name}` must be a number for each stage, such as "
                    f"{getattr(type(self), name)}, but got {value!r}."
                )
            for place, number in enumerate(value):
                require_whole(**{f"{name}[{place}]": number})
            object.__setattr__(self, name, tuple(value))
        if len(self.stage_cells) != len(self.stage_operations):
            raise InputError(
                "`stage_cells` and `stage_operations` must be of as many stages, but got "
                f"{len(self.stage_cells)} and {len(self.stage_operations)}."
            )
        _require_order("stage_cells", "rise", self.stage_cells, sorted(set(self.stage_cells)))
        falling = sorted(set(self.stage_operations), reverse=True)
        _require_order("stage_operations", "fall", self.stage_operations, falling)

    @property
    def stages(self) -> dict[str, StageLogs]:
        """What each stage logs."""
        return {f"search_{index + 1}": self._logs() for index in range(len(self.stage_cells))}

    def prepare(  # type: ignore[override]
        self, space: Space, data: Data, limits: Limits | None, epochs: int, recipe: Recipe
    ) -> ProgressiveSearch:
        """Return a search of which each stage was built once; `epochs` are those of each."""
        shape, classes = data.facts.input_shape, data.facts.classes
        if not isinstance(space, CellSpace):
            raise InputError(
                f"Searcher `{self.name}` changes the number of cells, which space `{space.name}` "
                "does not have: give `searcher` differentiable, or evolution if it chooses widths."
            )
        if space.search_cells is not None:
            raise InputError(
                f"`search_cells` of space `{space.name}` has no effect in a search by "
                f"`{self.name}`: leave it out, and give `stage_cells`."
            )
        survey = Survey()
        space.build(survey, shape, classes)
        self._require_operations(space, survey)
        proxies = [space.proxy().with_cells(cells) for cells in self.stage_cells]
        for proxy in proxies:
            proxy.check(shape)
        # Deeper ones ask for the same; 3 cells or more have cells of each kind.
        space.require_like(proxies[0], shape, classes)

        def prepare(index: int, masks: Mapping[str, Kept] | None) -> DifferentiableSearch:
            stage, before = f"search_{index + 1}", index * epochs
            return self.prepare_stage(
                space, proxies[index], data, limits, epochs, masks, stage, before
            )

        def require_memory(index: int, prepared: DifferentiableSearch) -> None:
            self.require_memory(prepared, proxies[index])

        return ProgressiveSearch(self, epochs, prepare, require_memory)

    def _require_operations(self, space: Space, survey: Survey) -> None:
        counts = {len(choice.operations) for choice in survey.choices.values()}
        first, last = self.stage_operations[0], self.stage_operations[-1]
        if counts != {first}:
            listed = " or ".join(map(str, sorted(counts)))
            raise InputError(
                f"`stage_operations` must start with all {listed} operations of space "
                f"`{space.name}`, but got {first}: of which to drop nothing is known yet."
            )
        zeros = max(len(choice.zeros) for choice in survey.choices.values())
        if last <= zeros:
            raise InputError(
                f"`stage_operations` must end with {zeros + 1} or more, since one of them may be "
                f"zero, but got {last}."
            )


def _require_order(name: str, verb: str, given: Sequence[Any], ordered: Sequence[Any]) -> None:
    if list(given) != list(ordered):
        raise InputError(f"`{name}` must {verb} from stage to stage, but got {given}.")
