"""Settings of an evolution of widths."""

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from larq_nas.choices import Expansion
from larq_nas.cost import LATENCY, SpaceCosts
from larq_nas.data.data import Task
from larq_nas.errors import (
    InputError,
    callers_level,
    require_count,
    require_not_negative,
    require_positive,
    require_whole,
)
from larq_nas.searchers.dms.settings import require_no_operations
from larq_nas.searchers.evolution.candidates import Inheritance, require_one_trace
from larq_nas.searchers.evolution.fitness import OBJECTIVES, Worth, require_objectives
from larq_nas.searchers.evolution.generation import (
    Breeder,
    Genes,
    Genome,
    Strategy,
    resolve_strategy,
)
from larq_nas.searchers.evolution.search import EvolutionSearch
from larq_nas.spaces import Space
from larq_nas.spaces.chooser import Widest
from larq_nas.training.recipe import Recipe, RecipeLike, resolve_recipe

__all__ = ["Evolution"]


_GENERATIONS = 50


@dataclass(frozen=True)
class Evolution:
    r"""Evolve the widths of a network (Shen et al.).

    The widest network of the space is trained first. Every candidate starts with the first
    channels of its layers, trains for a few epochs on a part of the data, and is worth

    \\[ f = \max(100 \, Acc - \lambda \frac{FLOPs}{FLOPs_{original}}, 0) \\]

    A generation is bred from the best candidates so far. What is not given is the paper's.

    !!! example
        ```python
        searcher = larq_nas.searchers.Evolution(population=12, candidate_epochs=2, subset=5000)
        model = larq_nas.search(
            train, validation, space="vgg_small", searcher=searcher, epochs=10
        )
        ```

    # Arguments
        population: number of candidates of a generation.
        candidate_epochs: epochs each is trained for; 0 measures what it inherits.
        widest_epochs: epochs the widest network is trained for first; 0 leaves its weights random.
        subset: number of images that candidates and the widest network train on, as many of each
            class as can be; `None` for all.
        trade_off: lambda: points of accuracy that are given for the operations of the original
            binary network.
        strategy: `"genetic"`, `"aging"` or `"random"`, or one of `larq_nas.searchers.evolution`.
        objectives: what to maximize: `("fitness",)` as the paper does, or several of `"accuracy"`,
            `"memory"`, `"binary_macs"`, `"flatbuffer"`, `"latency"` and so on, for a Pareto front.
        recipe: how candidates are trained, in its last stage; by default as the space's paper
            trains.
        keep: number of candidates whose weights are kept.
        shared: whether one trace serves all candidates; without, each is a network of its own:
            the same results, slower.
        worker_timeout: seconds after which the candidate of a silent worker is given to another.

    # References
        - [Searching for Accurate Binary Neural Architectures](https://arxiv.org/abs/1909.07378)
    """

    name: ClassVar[str] = "evolution"
    several_devices: ClassVar[bool] = False
    several_processes: ClassVar[bool] = True
    smallest_ratio: ClassVar[float | None] = None

    population: int = 32
    candidate_epochs: int = 10
    widest_epochs: int = 150
    subset: int | None = None
    trade_off: float = 4.0
    strategy: str | Strategy = "genetic"
    objectives: tuple[str, ...] = ("fitness",)
    recipe: RecipeLike | None = None
    keep: int = 3
    shared: bool = True
    worker_timeout: float = 60.0

    def __post_init__(self) -> None:
        require_whole(population=self.population)
        if self.population < 2:
            raise InputError(f"`population` must be 2 or more, but got {self.population}.")
        require_count(
            candidate_epochs=self.candidate_epochs,
            widest_epochs=self.widest_epochs,
            keep=self.keep,
        )
        if self.subset is not None:
            require_whole(subset=self.subset)
        require_not_negative(trade_off=self.trade_off)
        require_positive(worker_timeout=self.worker_timeout)
        require_objectives(self.objectives)
        resolve_strategy(self.strategy)
        if self.recipe is not None:
            resolve_recipe(self.recipe)
        if not isinstance(self.shared, bool):
            raise InputError(f"`shared` must be True or False, but got {self.shared!r}.")

    def epochs(self, space: Space) -> int:
        """Return the number of generations of the paper."""
        return _GENERATIONS

    def settings(self, space: Space) -> dict[str, Any]:
        """Return the settings as a run keeps them."""
        strategy: Any = resolve_strategy(self.strategy)
        settings = {
            entry.name: getattr(self, entry.name)
            for entry in dataclasses.fields(self)
            # What changes no result may be given to a run that is resumed.
            if entry.name not in ("shared", "worker_timeout", "keep")
        }
        return {
            "name": self.name,
            **settings,
            "objectives": list(self.objectives),
            "strategy": {"name": strategy.name, **dataclasses.asdict(strategy)},
            "recipe": self._recipe(space).settings(),
        }

    def prepare(self, space: Space, task: Task, epochs: int) -> EvolutionSearch:
        """Return a search that is ready to run.

        # Arguments
            space: where to search; it asks for widths.
            task: the data to search on.
            epochs: number of generations.

        # Raises
            InputError: if the space or the settings cannot be searched.
        """
        facts = task.facts
        costs = (
            task.limits.costs
            if task.limits
            else SpaceCosts(space, facts.input_shape, facts.classes)
        )
        self._require_widths(space, costs)
        if self.subset is not None and self.subset > facts.train_examples:
            raise InputError(
                f"`subset` must be at most the {facts.train_examples} training images, but got "
                f"{self.subset}."
            )
        # What candidates cannot take from the widest network shows here, before it is trained.
        choose = Widest()
        Inheritance(space.build(choose, facts.input_shape, facts.classes), choose)
        if self.shared:
            require_one_trace(space, self._recipe(space), facts)
        worth = Worth(costs, self.trade_off)
        options = {}
        for name, asked in costs.expansions.items():
            options[name] = _distinct(asked)
        genes = Genes(options)
        breeder = Breeder(
            genes, resolve_strategy(self.strategy), self.population, task.seed, _fits(task, genes)
        )
        return EvolutionSearch(self, space, task, epochs, self._recipe(space), breeder, worth)

    def _recipe(self, space: Space) -> Recipe:
        return space.recipe() if self.recipe is None else resolve_recipe(self.recipe)

    def _require_widths(self, space: Space, costs: SpaceCosts) -> None:
        require_no_operations(space, costs, self.name)
        if not any(len(asked.ratios) > 1 for asked in costs.expansions.values()):
            raise InputError(
                f"Space `{space.name}` has no width to choose: give it several `ratios`, and no "
                "`expansion`."
            )
        for name in self.objectives:
            figure = OBJECTIVES[name]
            if figure == LATENCY and figure not in costs.quantities:
                raise InputError(
                    "Objective `latency` needs `max_latency` and `latency_table`, of the device "
                    "that it is about."
                )


def _fits(task: Task, genes: Genes) -> Callable[[Genome], bool]:
    limits = task.limits
    if limits is None:
        return lambda genome: True
    return lambda genome: not limits.budget.excess(limits.costs.exact(genes.values(genome)))


def _distinct(asked: Expansion) -> tuple[float, ...]:
    """Return the ratios of a choice that give different widths, the first of each."""
    first: dict[int, float] = {}
    for ratio, filters in zip(asked.ratios, asked.options, strict=True):
        first.setdefault(filters, ratio)
    if len(first) < len(asked.ratios):
        left = sorted(set(asked.ratios) - set(first.values()))
        warnings.warn(
            f"Ratios {', '.join(map(str, left))} of choice `{asked.name}` give widths that others "
            "give too, and are left out.",
            stacklevel=callers_level(),
        )
    return tuple(first.values())
