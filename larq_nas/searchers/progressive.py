"""Progressive search: deeper networks of fewer operations, stage by stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from larq_nas.choosers import Survey
from larq_nas.errors import InputError, require_whole
from larq_nas.layers.mixture import Kept
from larq_nas.searchers.differentiable import Differentiable
from larq_nas.searchers.prepared import Prepared
from larq_nas.searchers.stages import Staged, Stages
from larq_nas.spaces import Space
from larq_nas.spaces.skeleton import CellSpace
from larq_nas.task import Task

__all__ = ["Progressive"]


@dataclass(frozen=True)
class Progressive(Differentiable):
    """Search in stages: the supernet gets deeper, and of each edge the worst operations go.

    Found in a shallow network, cells need not be the best ones of a deep one; and a deep supernet
    of all operations is large (P-DARTS). Each stage starts from new weights and new architecture
    parameters, and trains weights alone in its first two fifths. What is not given is BATS'
    (section 6.1): three stages of 25 epochs, with 5, 11 and 17 cells of 8, 5 and 3 operations,
    and no dropout on skips. `epochs` of `search` are those of each stage.

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

    def prepare(self, space: Space, task: Task, epochs: int) -> Staged:  # type: ignore[override]
        """Return a search that is ready to run; each stage was built once.

        # Arguments
            space: where to search, a space of cells.
            task: the data to search on; its training data is halved.
            epochs: number of epochs of each stage.

        # Raises
            InputError: if the space or the settings cannot be searched.
        """
        shape, classes = task.facts.input_shape, task.facts.classes
        if not isinstance(space, CellSpace):
            raise InputError(
                f"Searcher `{self.name}` changes the number of cells, which space `{space.name}` "
                "does not have: search it by `differentiable`."
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

        def prepare(index: int, kept: Mapping[str, Kept] | None) -> Prepared:
            stage, before = f"search_{index + 1}", index * epochs
            return self.prepare_stage(space, proxies[index], task, epochs, kept, stage, before)

        return Staged(Stages(self.stage_cells, self.stage_operations), epochs, prepare)

    def _require_operations(self, space: Space, survey: Survey) -> None:
        counts = {len(choice.operations) for choice in survey.choices.values()}
        first, last = self.stage_operations[0], self.stage_operations[-1]
        if counts != {first}:
            raise InputError(
                f"`stage_operations` must start with all {_listed(counts)} operations of space "
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


def _listed(counts: set[int]) -> str:
    return " or ".join(map(str, sorted(counts)))
